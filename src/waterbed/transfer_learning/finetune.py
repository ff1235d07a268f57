"""finetune: a new head on an old backbone, in the modes of the paper's appendix C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from waterbed.data.images import check_data
from waterbed.errors import UsageError, UsageTypeError, check_choice, check_count
from waterbed.models.classifier import FeatureClassifier
from waterbed.training.config import TrainConfig
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk, trunk_for
from waterbed.transfer_learning.logistic import held_out
from waterbed.transfer_learning.modes import MODES, fingerprint
from waterbed.transfer_learning.rate_search import RATES, RateSearch
from waterbed.transfer_learning.settings import FINETUNING, SOLVERS, check_logistic, check_rates
from waterbed.transfer_learning.whole_network import WholeNetwork


def finetune(
    model: FeatureClassifier,
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
    **settings: Any,
) -> Run:
    """Train a copy of ``model`` with a new linear head on another task; ``model`` itself is not changed.

    In the modes "linear" and 0 the rest of the network is run once and what it puts out is cached.

    Args:
        model: the source network; its mean and std are kept.
        data: what ``load_dataset`` returns (of the model's image shape), or an object like it.
        mode: "linear" trains the head alone; 0 the head and the last BatchNorm of the backbone's main path, its
            running statistics included; 1 the head and every BatchNorm; 2 everything. The rest stays in eval mode
            and does not move. A backbone without BatchNorm: the last (0) or every (1) LayerNorm or GroupNorm.
        out: run folder; None writes nothing.
        config, settings: the recipe, a :class:`TrainConfig` or its fields as keywords (``epochs=5``). Without a
            ``config`` fine-tuning takes 20 epochs, no augmentation, watches nothing and shows no progress. On a cache
            ``watch`` is of all test images; what a cache cannot honour (averages, bf16, trackers) is refused.
        lr: the largest learning rate; of several, the one that does best on held-out training images is taken, and
            the training repeated on all. None is that of ``config``, and without one chooses among :data:`RATES`. A
            rate fixed for all backbones would compare the scales of their features.
        views: in the cached modes that many augmented copies of each image are cached and taken in turn.
        solver: "sgd", or for the mode "linear" "logistic": l2-regularised logistic regression on standardised
            features (scikit-learn), its strength chosen on held-out images. It takes no learning rate.
        validation: the fraction of the training images that chooses.
        search_epochs: epochs of the trainings that compare learning rates; None: all where a cache makes that cheap, a
            quarter (one at least) elsewhere.
        cache: "auto", or "never" to run the whole network at every step.
        trunk: a :class:`FrozenTrunk` of this model, task and mode, to use its cache again.

    Returns:
        A :class:`Run`; ``run.config["finetune"]`` says what was trained, at which rate, and what was cached.

    Raises:
        UsageError: unknown mode, data that do not fit, a backbone without any normalisation in modes 0 and 1, a
            setting that is misspelt or cannot be honoured.
    """
    recipe = read_recipe({"config": config, **settings})
    _check(model, data, mode, solver, search_epochs)
    rates = check_rates(lr) if lr is not None else RATES if config is None else (config.lr,)
    if trunk is not None:
        trunk.check_made_for(model, data, mode, cache)
    else:
        options = {"augment": recipe.augment, "views": views, "seed": recipe.seed, "progress": recipe.progress}
        trunk = trunk_for(model, data, mode, cache, **options)
    network = trunk or WholeNetwork(model, data, mode)
    network.check(recipe, views)
    record = {
        "mode": str(mode),
        "source": fingerprint(model.backbone),
        "trained": ["everything" if name == "" else name for name in network.trained],
        "cache": str(network),
        "solver": solver,
    }
    if solver == "logistic":
        check_logistic(recipe, lr, views, search_epochs)
        if trunk is None:
            raise UsageError("solver='logistic' works on cached features; leave cache='auto'")
        run = trunk.fit_logistic(replace(recipe, lr=rates[0]), out, validation=validation, notes={"finetune": record})
    else:
        rate = rates[0]
        if len(rates) > 1:
            search = RateSearch(rates, search_epochs or network.search_epochs(recipe.epochs))
            record["search"] = search.record()
            rate = search.recorded(out)
            if rate is None:
                brief = replace(recipe, epochs=search.epochs, watch=0)
                rate = search.best(lambda lr: _held_out_accuracy(network, replace(brief, lr=lr), validation))
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


def _check(model: Any, data: Any, mode: Any, solver: Any, search_epochs: Any) -> None:
    """Raise unless the arguments of :func:`finetune` are of the right kind and belong together."""
    check_choice("mode", mode, MODES)
    check_choice("solver", solver, SOLVERS)
    check_data(data)
    if not isinstance(model, FeatureClassifier):
        raise UsageTypeError(
            f"model={type(model).__name__} must be a FeatureClassifier; wrap the backbone and head in one"
        )
    if solver == "logistic" and mode != "linear":
        raise UsageError(f"solver='logistic' fits the head alone; pass mode='linear', not {mode!r}")
    if search_epochs is not None:
        check_count("search_epochs", search_epochs)


def _held_out_accuracy(network: FrozenTrunk | WholeNetwork, config: TrainConfig, validation: float) -> float:
    """Percent of a fraction ``validation`` of the training images that a training on the others gets right."""
    kept, held = held_out(len(network.data.train), validation, config.seed)
    return network.accuracy(network.fit(config, indices=kept).model, held)
