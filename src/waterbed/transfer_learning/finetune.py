"""finetune: a new head on an old backbone, in the modes of the paper's appendix C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from waterbed.data.images import check_data
from waterbed.data.task import as_task
from waterbed.devices import as_device
from waterbed.errors import UsageError, check_choice, check_count
from waterbed.models.heads import with_linear_head
from waterbed.training.callbacks import Callback, check_callbacks
from waterbed.training.config import TrainConfig
from waterbed.training.objective import Objective, check_objective
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk, trunk_for
from waterbed.transfer_learning.logistic import held_out
from waterbed.transfer_learning.modes import CACHED_MODES, MODES, fingerprint
from waterbed.transfer_learning.protocols import PROTOCOLS, fixed_recipe
from waterbed.transfer_learning.search import GRIDS, WHOLE_NETWORK_GRIDS, Chosen, Grid, Pair, Search
from waterbed.transfer_learning.settings import FINETUNING, SOLVERS, check_logistic, steps_of
from waterbed.transfer_learning.whole_network import WholeNetwork


def finetune(
    model: nn.Module,
    data: Any,
    mode: int | str = 0,
    out: str | Path | None = None,
    *,
    protocol: str = "tuned",
    config: TrainConfig | None = None,
    lr: float | Sequence[float] | None = None,
    weight_decay: float | Sequence[float] | None = None,
    views: int = 1,
    solver: str | None = None,
    validation: float = 0.1,
    search_epochs: int | None = None,
    cache: str = "auto",
    trunk: FrozenTrunk | None = None,
    device: torch.device | str | None = None,
    objective: Objective | None = None,
    callbacks: Sequence[Callback] = (),
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
        protocol: "tuned" chooses what decides the outcome for this backbone and task: the strength of logistic
            regression in the mode "linear", learning rate and weight decay elsewhere. "paper" and "paper-imagenet" are
            the fixed settings of appendix C, for backbones trained on CIFAR and on ImageNet (:data:`FIXED`), and take
            no other.
        config, settings: the recipe, a :class:`TrainConfig`, or its fields as keywords (``epochs=5``). Without a
            config the defaults are :data:`FINETUNING`: 20 epochs, no augmentation, no accuracies after epochs (watch),
            no progress bar. On a cache, ``watch`` takes all test images, and settings that a cache cannot honour
            (such as ``ema``, ``trackers``, ``precision="bf16"``) are refused.
        lr, weight_decay: the largest learning rate, and the weight decay. Where there are several candidates, they are
            compared by successive halving: trained without a held-out part of the training images, compared on it, and
            the best trained again on all images. None for both takes those of ``config``; without a config it compares
            every pair of a grid (:data:`GRIDS`), on a cache wider where its end is best: one setting for all backbones
            would compare the scales of their features. An ``lr`` that is given leaves the decay at 5e-4, and an
            ``optimizer`` of your own keeps its own of both.
        views: number of augmented copies of each image in the cache; epochs take them in turn.
        solver: "logistic" is l2-regularised logistic regression on standardised features, its strength chosen on
            held-out images, for the mode "linear" alone; "sgd" makes steps. None takes "logistic" for the mode
            "linear", unless an argument such as ``epochs`` or ``lr`` speaks of steps, the protocol is the paper's, or
            there is no cache.
        validation: the fraction of the training images that is held out to choose.
        search_epochs: epochs of the trainings that decide between candidates; None: all where a cache makes that cheap,
            a quarter (one at least) elsewhere.
        cache: "auto", or "never" to run the whole network at every step.
        trunk: a :class:`FrozenTrunk` of this model, task and mode, to use its cache again.
        device: where the network is run for the cache and the rest is trained; by default that of
            :func:`waterbed.fit`, a GPU if there is one. A cache that a GPU has no room for is in memory or in a file.
        objective: what is minimised, as for :func:`waterbed.fit`; cross-entropy by default. With
            ``AdversarialTraining(attack)`` the fine-tuning is robust, and of several candidates the one with the
            highest accuracy under the attack is taken. Every step then runs the whole network: modes 1 and 2, or
            ``cache="never"``.
        callbacks: called after each epoch of the final training, as in :func:`waterbed.fit`; where an objective could
            be given.

    Returns:
        A :class:`Run`; ``run.config["finetune"]`` says what was trained and cached, by which protocol and solver, and
        "edge" at which end of the candidates the choice lies, if it does: beyond it a better one may lie.

    Raises:
        UsageError: unknown mode or protocol, data that do not fit, a backbone without any normalisation in modes 0 and
            1, a setting that is misspelt, cannot be honoured or contradicts the protocol, an objective where training
            is on cached activations.
        DivergenceError: the loss is not finite at the one learning rate given.

    >>> import waterbed as wb
    >>> model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    >>> run = finetune(model, wb.load_dataset("digits").take(100, 50), "linear")
    >>> run.config["finetune"]["trained"], run.config["finetune"]["solver"], run.config["finetune"]["protocol"]
    (['head'], 'logistic', 'tuned')
    """
    asked = {**settings, "protocol": protocol, "config": config, "lr": lr, "weight_decay": weight_decay}
    asked |= {"views": views, "solver": solver, "search_epochs": search_epochs, "cache": cache, "objective": objective}
    recipe = read_recipe(asked)
    data = as_task(data)
    _check(data, mode, search_epochs)
    solver = solver_of(mode, asked)
    model = with_linear_head(model, data.shape)
    if objective is not None:
        check_objective(objective)
        _check_honoured("objective", objective.config()["name"], mode, cache, solver)
    options = {}
    if callbacks:
        _check_honoured("callbacks", callbacks, mode, cache, solver)
        options["callbacks"] = check_callbacks(callbacks)
    if trunk is not None:
        _check_made_for(trunk, model, data, mode, cache, device)
    else:
        filling = {**recipe.of_images(), "views": views, "seed": recipe.seed, "progress": recipe.progress}
        filling |= {"device": device, "workers": recipe.workers}
        trunk = trunk_for(model, data, mode, cache, **filling)
    if asked["solver"] is None and (trunk is None or model.head.bias is None):
        solver = "sgd"  # a network that cannot be cut has no cache, and a head without bias no intercept
    if trunk is None and device is not None:
        raise UsageError(f"device={str(device)!r} is that of a cache, and fit chooses its own; leave device out")
    network = trunk or WholeNetwork(model, data, mode, objective, recipe.workers)
    network.check(recipe, views)
    record = {
        "mode": str(mode),
        "source": fingerprint(model.backbone),
        "trained": ["everything" if name == "" else name for name in network.trained],
        "cache": network.record,
        "protocol": protocol,
        "solver": solver,
    }
    if solver == "logistic":
        run = network.fit_logistic(recipe, out, validation=validation, notes={"finetune": record})
    else:
        epochs = search_epochs or network.search_epochs(recipe.epochs)
        search = Search.of(_default_grid(asked, recipe, trunk), recipe, epochs, lr, weight_decay)
        if trunk is None:  # a wider grid would cost several times the training itself: its edge is named instead
            search = replace(search, widen=False)
        chosen = search.only
        if search.compares:
            record["search"] = search.record()
            chosen = search.recorded(out) or search.best(partial(_held_out_accuracies, network, recipe, validation))
        record["edge"] = chosen.edge
        recipe = recipe if not search.compares and lr is weight_decay is None else _with(recipe, chosen)
        run = network.fit(recipe, out, notes={"finetune": record}, **options)
    run.model.requires_grad_(True)
    return run


def read_recipe(asked: Mapping[str, Any]) -> TrainConfig:
    """The recipe that keywords of :func:`finetune` make: its defaults, a ``config`` or a fixed protocol, with settings.

    Raises:
        UsageError: a keyword that is neither of :func:`finetune` nor a setting of :class:`TrainConfig` (misspelt, it
            would do nothing), or one that contradicts the protocol.
    """
    own = {name for name, p in signature(finetune).parameters.items() if p.kind is Parameter.KEYWORD_ONLY}
    for name in asked:
        check_choice("the setting", name, {*own, *(field.name for field in fields(TrainConfig))})
    protocol = asked.get("protocol", "tuned")
    check_choice("protocol", protocol, PROTOCOLS)
    changes = {name: value for name, value in asked.items() if name not in own}
    if protocol == "tuned":
        return TrainConfig.of(asked.get("config"), changes, FINETUNING)
    decides = {name: asked.get(name) for name in ("config", "lr", "weight_decay", "search_epochs", "objective")}
    if asked.get("solver") == "logistic":
        decides["solver"] = "logistic"
    return fixed_recipe(protocol, {**changes, **decides})


def solver_of(mode: int | str, asked: Mapping[str, Any]) -> str:
    """The solver that keywords of :func:`finetune` ask for.

    Raises:
        UsageError: an unknown one, or arguments that mean nothing to logistic regression.

    >>> solver_of("linear", {}), solver_of("linear", {"epochs": 5}), solver_of(0, {})
    ('logistic', 'sgd', 'sgd')
    """
    solver, config = asked.get("solver"), asked.get("config")
    elsewhere = ("protocol", "config", "solver", "cache", "validation", "trunk", "objective", "device")
    given = {name: value for name, value in asked.items() if name not in elsewhere and (name, value) != ("views", 1)}
    if solver is None:
        cached = asked.get("cache", "auto") == "auto" and asked.get("objective") is None
        tuned = asked.get("protocol", "tuned") == "tuned" and config is None
        return "logistic" if mode == "linear" and cached and tuned and not steps_of(given) else "sgd"
    check_choice("solver", solver, SOLVERS)
    if solver == "logistic":
        if config is not None:
            usual = {f.name: (f.default, getattr(FINETUNING, f.name)) for f in fields(config)}
            given |= {name: value for name, default in usual.items() if (value := getattr(config, name)) not in default}
        check_logistic(mode, given)
    return solver


def _default_grid(asked: Mapping[str, Any], recipe: TrainConfig, trunk: FrozenTrunk | None) -> Grid | None:
    """What is searched where neither rate nor decay is given; None: those of the recipe are taken."""
    if asked["protocol"] != "tuned" or asked["config"] is not None or recipe.own_optimizer:
        return None
    return (WHOLE_NETWORK_GRIDS if trunk is None else GRIDS)[recipe.optimizer]


def _with(recipe: TrainConfig, chosen: Chosen) -> TrainConfig:
    return replace(recipe, lr=chosen.lr, weight_decay=chosen.weight_decay)


def _check(data: Any, mode: Any, search_epochs: Any) -> None:
    """Raise unless these arguments of :func:`finetune` are of the right kind."""
    check_choice("mode", mode, MODES)
    check_data(data)
    if search_epochs is not None:
        check_count("search_epochs", search_epochs)


def _check_made_for(
    trunk: FrozenTrunk, model: nn.Module, data: Any, mode: int | str, cache: str, device: torch.device | str | None
) -> None:
    """Raise unless these arguments of :func:`finetune` are those that its ``trunk`` was made for."""
    for name, value, own in (("model", model, trunk.model), ("data", data, trunk.data)):
        if value is not own:
            raise UsageError(f"trunk= was made for another {name}; pass the {name} that it was made for")
    if mode != trunk.mode:
        raise UsageError(f"mode={mode!r}, but trunk= was made for mode={trunk.mode!r}; pass the same to both")
    if cache == "never":
        raise UsageError("cache='never' contradicts trunk=; pass one of the two")
    if as_device(device, trunk.device) != trunk.device:
        raise UsageError(f"device={str(device)!r}, but trunk= is on {str(trunk.device)!r}; pass the same to both")


def _check_honoured(name: str, value: Any, mode: int | str, cache: str, solver: str) -> None:
    """Raise unless every step runs the whole network: on cached activations there is no image to attack, and no network
    to call back with."""
    if solver != "sgd":
        raise UsageError(f"{name}={value!r} means nothing to solver={solver!r}; pass solver='sgd'")
    if mode in CACHED_MODES and cache != "never":
        raise UsageError(
            f"{name}={value!r} needs the whole network at every step, and mode={mode!r} trains on cached activations "
            "of images as they are; pass cache='never', or mode=1 or 2"
        )


def _held_out_accuracies(
    network: FrozenTrunk | WholeNetwork, config: TrainConfig, validation: float, pairs: Sequence[Pair], epochs: int
) -> list[float]:
    """Percent of a fraction ``validation`` of the training images that trainings on the others get right."""
    train, held = held_out(len(network.data.train), validation, config.seed)
    return network.held_out_accuracies(pairs, replace(config, epochs=epochs), train, held)
