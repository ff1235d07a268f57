"""finetune: a new head on an old backbone, in the modes of the paper's appendix C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from torch import nn

from waterbed.data.images import check_data
from waterbed.data.task import as_task
from waterbed.errors import UsageError, check_choice, check_count
from waterbed.models.heads import with_linear_head
from waterbed.training.config import TrainConfig
from waterbed.training.objective import Objective, check_objective
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk, trunk_for
from waterbed.transfer_learning.logistic import held_out
from waterbed.transfer_learning.modes import CACHED_MODES, MODES, fingerprint
from waterbed.transfer_learning.rate_search import RATES_BY_OPTIMIZER, RateSearch
from waterbed.transfer_learning.settings import FINETUNING, SOLVERS, check_logistic, check_rates
from waterbed.transfer_learning.whole_network import WholeNetwork


def finetune(
    model: nn.Module,
    data: Any,
    mode: int | str = 0,
    out: str | Path | None = None,
    *,
    config: TrainConfig | None = None,
    lr: float | Sequence[float] | None = None,
    views: int = 1,
    solver: str = "sgd",
    validation: float = 0.1,
    search_epochs: int | None = None,
    cache: str = "auto",
    trunk: FrozenTrunk | None = None,
    objective: Objective | None = None,
    **settings: Any,
) -> Run:
    """Train a copy of ``model`` with a new linear head on another task; ``model`` itself is not changed.

    In the modes "linear" and 0 the rest of the network is run once and what it puts out is cached.

    Args:
        model: the source network, any that :func:`waterbed.wrap` takes; the copy has its mean and std.
        data: what ``load_dataset`` returns (of the model's image shape), or an object like it, or a pair (train, test)
            of data sets or loaders.
        mode: "linear" trains the head alone; 0 the head and the last BatchNorm of the backbone's main path, its
            running statistics included; 1 the head and every BatchNorm; 2 everything. The rest stays in eval mode
            and does not move. A backbone without BatchNorm: the last (0) or every (1) LayerNorm or GroupNorm.
        out: run folder; None writes nothing.
        config, settings: the recipe, a :class:`TrainConfig`, or its fields as keywords (``epochs=5``). Without a
            config the defaults are :data:`FINETUNING`: 20 epochs, no augmentation, no accuracies after epochs (watch),
            no progress bar. On a cache, ``watch`` takes all test images, and settings that a cache cannot honour
            (such as ``ema``, ``trackers``, ``precision="bf16"``) are refused.
        lr: the largest learning rate. Of several, the one with the highest accuracy on held-out training images is
            taken, and the training repeated on all images. None takes that of ``config``; without a config it chooses
            among :data:`RATES_BY_OPTIMIZER`: one rate for all backbones would compare the scales of their features.
            An ``optimizer`` of your own keeps its own rate.
        views: number of augmented copies of each image in the cache; epochs take them in turn.
        solver: "sgd", or for the mode "linear" "logistic": l2-regularised logistic regression on standardised
            features (scikit-learn), its strength chosen on held-out images. It takes no learning rate.
        validation: the fraction of the training images that chooses.
        search_epochs: epochs of the trainings that compare learning rates; None: all where a cache makes that cheap, a
            quarter (one at least) elsewhere.
        cache: "auto", or "never" to run the whole network at every step.
        trunk: a :class:`FrozenTrunk` of this model, task and mode, to use its cache again.
        objective: what is minimised, as for :func:`waterbed.fit`; cross-entropy by default. With
            ``AdversarialTraining(attack)`` the fine-tuning is robust, and of several learning rates the one with the
            highest accuracy under the attack is taken. Every step then runs the whole network: modes 1 and 2, or
            ``cache="never"``.

    Returns:
        A :class:`Run`; ``run.config["finetune"]`` says what was trained, at which rate, and what was cached.

    Raises:
        UsageError: unknown mode, data that do not fit, a backbone without any normalisation in modes 0 and 1, a
            setting that is misspelt or cannot be honoured, an objective where training is on cached activations.
        DivergenceError: the loss is not finite at the one learning rate given.

    >>> import waterbed as wb
    >>> model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    >>> run = finetune(model, wb.load_dataset("digits").take(100, 50), "linear", epochs=1, lr=0.1)
    >>> run.config["finetune"]["trained"], run.config["finetune"]["cache"]
    (['head'], 'memory, float32, 1 view')
    """
    recipe = read_recipe({"config": config, **settings})
    data = as_task(data)
    _check(data, mode, solver, search_epochs)
    model = with_linear_head(model, data.shape)
    if objective is not None:
        _check_honoured(objective, mode, cache, solver)
    rates = check_rates(lr) if lr is not None else (recipe.lr,)
    if lr is None and config is None and isinstance(recipe.optimizer, str):
        rates = RATES_BY_OPTIMIZER[recipe.optimizer]
    if solver == "logistic":
        check_logistic(mode, recipe, lr, views, search_epochs)
    if trunk is not None:
        trunk.check_made_for(model, data, mode, cache)
    else:
        options = {"augment": recipe.augment, "views": views, "seed": recipe.seed, "progress": recipe.progress}
        trunk = trunk_for(model, data, mode, cache, **options)
    network = trunk or WholeNetwork(model, data, mode, objective)
    network.check(recipe, views)
    record = {
        "mode": str(mode),
        "source": fingerprint(model.backbone),
        "trained": ["everything" if name == "" else name for name in network.trained],
        "cache": str(network),
        "solver": solver,
    }
    rate = rates[0]
    if solver == "logistic":
        run = network.fit_logistic(replace(recipe, lr=rate), out, validation=validation, notes={"finetune": record})
    else:
        if len(rates) > 1:
            search = RateSearch(rates, search_epochs or network.search_epochs(recipe.epochs))
            record["search"] = search.record()
            rate = search.recorded(out) or search.best(recipe, partial(_held_out_accuracy, network, validation))
        run = network.fit(replace(recipe, lr=rate), out, notes={"finetune": record})
    run.model.requires_grad_(True)
    return run


def read_recipe(settings: Mapping[str, Any]) -> TrainConfig:
    """The recipe that keywords of :func:`finetune` make, over its own defaults or over their ``config``.

    Raises:
        UsageError: a keyword that is neither of :func:`finetune` nor a setting of :class:`TrainConfig`: misspelt, it
            would do nothing.
    """
    own = {name for name, p in signature(finetune).parameters.items() if p.kind is Parameter.KEYWORD_ONLY}
    for name in settings:
        check_choice("the setting", name, {*own, *(field.name for field in fields(TrainConfig))})
    changes = {name: value for name, value in settings.items() if name not in own}
    return TrainConfig.of(settings.get("config"), changes, FINETUNING)


def _check(data: Any, mode: Any, solver: Any, search_epochs: Any) -> None:
    """Raise unless these arguments of :func:`finetune` are of the right kind."""
    check_choice("mode", mode, MODES)
    check_choice("solver", solver, SOLVERS)
    check_data(data)
    if search_epochs is not None:
        check_count("search_epochs", search_epochs)


def _check_honoured(objective: Objective, mode: int | str, cache: str, solver: str) -> None:
    """Raise unless fine-tuning can minimise the objective: on cached activations there is no image to attack."""
    check_objective(objective)
    if solver != "sgd":
        raise UsageError(f"objective={objective!r} means nothing to solver={solver!r}; pass solver='sgd'")
    if mode in CACHED_MODES and cache != "never":
        raise UsageError(
            f"objective={objective!r} needs the whole network at every step, and mode={mode!r} trains on cached "
            "activations of images as they are; pass cache='never', or mode=1 or 2"
        )


def _held_out_accuracy(network: FrozenTrunk | WholeNetwork, validation: float, config: TrainConfig) -> float:
    """Percent of a fraction ``validation`` of the training images that a training on the others gets right."""
    train, held = held_out(len(network.data.train), validation, config.seed)
    return network.accuracy(network.fit(config, indices=train).model, held)
