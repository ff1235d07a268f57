"""finetune: a new head on an old backbone, in the modes of the paper's appendix C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from waterbed.data.images import check_data
from waterbed.distributed import Engine
from waterbed.errors import DivergenceError, UsageError, UsageTypeError, check_choice, check_count, check_number
from waterbed.evaluation.accuracy import Score, evaluate, score_of
from waterbed.models.classifier import FeatureClassifier
from waterbed.training.config import TrainConfig
from waterbed.training.fit import fit, run_config
from waterbed.training.objectives import Standard
from waterbed.training.run_folder import Run, RunFolder, open_run
from waterbed.transfer_learning.cached import Caches, accuracy, fit_tail, predictions
from waterbed.transfer_learning.logistic import fit_logistic, held_out
from waterbed.transfer_learning.modes import CACHED_MODES, MODES, fingerprint, trained_modules, with_new_head
from waterbed.transfer_learning.trunk import UntraceableError, fill, split

SOLVERS = ("sgd", "logistic")
CACHE = ("auto", "never")
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)


def finetune(
    model: FeatureClassifier,
    data: Any,
    mode: int | str = 0,
    out: str | Path | None = None,
    *,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float | Sequence[float] | None = None,
    weight_decay: float = 5e-4,
    schedule: str = "one-cycle",
    milestones: Sequence[int] = (),
    nesterov: bool = True,
    augment: str = "none",
    views: int = 1,
    solver: str = "sgd",
    validation: float = 0.1,
    search_epochs: int | None = None,
    watch: int = 0,
    seed: int = 0,
    cache: str = "auto",
    caches: Caches | None = None,
    resume: str = "auto",
    progress: bool = False,
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
        lr: the largest learning rate; of several, the one that does best on held-out training images is taken, and
            the training repeated on all. None chooses among :data:`RATES`. A rate fixed for all backbones would
            compare the scales of their features.
        augment, views: in the cached modes that many augmented copies of each image are cached and taken in turn.
        solver: "sgd", or for the mode "linear" "logistic": l2-regularised logistic regression on standardised
            features (scikit-learn), its strength chosen on held-out images. It takes no seed and no learning rate.
        validation: the fraction of the training images that chooses.
        search_epochs: epochs of the trainings that compare learning rates; None: all where a cache makes that cheap, a
            quarter (one at least) elsewhere.
        watch: record test accuracy after every epoch: on all test images where cached, on that many elsewhere.
        cache: "auto", or "never" to run the whole network at every step.
        caches: what :func:`cached_trunk` gave for this model, task and mode, to use it again.
        settings: anything else :func:`waterbed.fit` takes, for what is not cached.

    Returns:
        A :class:`Run`; ``run.config["finetune"]`` says what was trained, at which rate, and what was cached.

    Raises:
        UsageError: unknown mode, data that do not fit, a backbone without any normalisation in modes 0 and 1, ``ema``
            where the trunk is cached.
    """
    check_choice("mode", mode, MODES)
    check_choice("solver", solver, SOLVERS)
    check_settings(settings)
    check_data(data)
    if not isinstance(model, FeatureClassifier):
        raise UsageTypeError(
            f"model={type(model).__name__} must be a FeatureClassifier; wrap the backbone and head in one"
        )
    if solver == "logistic" and mode != "linear":
        raise UsageError(f"solver='logistic' fits the head alone; pass mode='linear', not {mode!r}")
    rates = _rates(lr)
    if search_epochs is not None:
        check_count("search_epochs", search_epochs)
    if settings.get("ema") and mode in CACHED_MODES and (cache != "never" or caches is not None):
        raise UsageError(f"ema={settings['ema']!r} is not for cached training; pass cache='never', or mode=1 or 2")
    if caches is None:
        caches = cached_trunk(
            model, data, mode, augment=augment, views=views, seed=seed, cache=cache, progress=progress
        )
    if solver == "logistic" and caches is None:
        raise UsageError("solver='logistic' works on cached features; leave cache='auto'")

    def train(lr: float, part: Any, keep: Tensor | None, held: Tensor | None, out: Any, epochs: int = epochs) -> Run:
        tuned, names = with_new_head(model, data, mode, seed)
        said = {
            "mode": str(mode),
            "source": fingerprint(model.backbone),
            "trained": ["everything" if name == "" else name for name in names],
            "cache": "none" if caches is None else caches.train.said,
            "solver": solver,
            **({} if searched is None else {"search": searched}),
        }
        chosen = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
        chosen |= {"schedule": schedule, "augment": augment, "watch": watch, "seed": seed}
        chosen |= {"milestones": tuple(milestones), "nesterov": nesterov}
        modules = [tuned.get_submodule(name) for name in names]
        if caches is not None:
            return _fit_cached(
                tuned, names, modules, caches, part, chosen, solver, validation, keep, held, said, out, resume
            )
        run = fit(
            tuned,
            part,
            Standard(),
            out,
            trained=modules,
            notes={"finetune": said},
            resume=resume,
            progress=progress,
            **chosen,
            **settings,
        )
        if held is not None:
            run.history[-1]["validation_clean"] = float(evaluate(run.model, Subset(data.train, held.tolist())).clean)
        return run

    best = rates[0]
    search = search_epochs or (epochs if caches is not None else max(1, epochs // 4))
    searched = {"rates": list(rates), "epochs": search} if len(rates) > 1 and solver == "sgd" else None
    if searched is not None:
        keep, held = held_out(len(data.train), validation, seed)
        part = SimpleNamespace(
            train=Subset(data.train, keep.tolist()),
            **{name: getattr(data, name) for name in ("test", "classes", "num_classes", "shape", "name")},
        )
        part = data if caches is not None else part

        def score(rate: float) -> float:
            try:
                return train(rate, part, keep, held, None, search).history[-1]["validation_clean"]
            except DivergenceError:
                return -1.0

        best = _found_before(out, searched)
        if best is None:
            scores = {rate: score(rate) for rate in rates}
            best = max(scores, key=lambda rate: (scores[rate], -rate))
    run = train(best, data, None, None, out)
    run.model.requires_grad_(True)
    return run


def _found_before(out: str | Path | None, searched: dict[str, Any]) -> float | None:
    """The learning rate that a run in this folder found by the same search."""
    if out is None or not RunFolder(out).is_run():
        return None
    config = RunFolder(out).config()
    return config["lr"] if config.get("finetune", {}).get("search") == searched else None


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise unless every name is an argument of :func:`finetune` or of ``fit``: a misspelt one would do nothing."""
    known = {*signature(finetune).parameters, *(f.name for f in fields(TrainConfig))} - {
        "settings",
        "model",
        "data",
        "out",
    }
    for name in settings:
        check_choice("the setting", name, known)


def _rates(lr: float | Sequence[float] | None) -> Sequence[float]:
    """The learning rates to choose from."""
    if lr is None:
        return RATES
    rates = (lr,) if isinstance(lr, int | float) else tuple(lr)
    if not rates:
        raise UsageError("lr is empty; pass one learning rate or more")
    for rate in rates:
        check_number("lr", rate, above=0)
    return rates


def cached_trunk(
    model: FeatureClassifier,
    data: Any,
    mode: int | str,
    *,
    augment: str = "none",
    views: int = 1,
    seed: int = 0,
    cache: str = "auto",
    progress: bool = False,
    **budget: int,
) -> Caches | None:
    """What the part that ``mode`` leaves alone puts out for the training and test images; None in the modes 1 and 2,
    with cache="never", and for a network that cannot be cut.

    Args:
        augment, views: of the training images; see :func:`finetune`.
        budget: memory_bytes (1 GiB) and disk_bytes (20 GiB), of :func:`trunk.fill`.
    """
    check_choice("cache", cache, CACHE)
    check_count("views", views)
    if views > 1 and augment == "none":
        raise UsageError(f"views={views} of images that are not augmented are all the same; pass augment= or views=1")
    if mode not in CACHED_MODES or cache == "never":
        return None
    try:
        trunk, _ = split(model, trained_modules(model, mode, data.shape))
    except UntraceableError:
        return None
    options = {"data": data, "seed": seed, "progress": progress, **budget}
    return Caches(
        fill(trunk, data.train, data.num_classes, augment=augment, views=views, **options),
        fill(trunk, data.test, data.num_classes, **options),
    )


def score_cached(model: FeatureClassifier, mode: int | str, data: Any, caches: Caches) -> Score:
    """:func:`waterbed.evaluate` of a fine-tuned model on the cached test images: the same counts, no trunk."""
    _, tail = split(model, trained_modules(model, mode, data.shape))
    return score_of(predictions(model, tail, caches.test), caches.test.labels)


def _fit_cached(
    tuned: FeatureClassifier,
    names: list[str],
    modules: list[nn.Module],
    caches: Caches,
    data: Any,
    chosen: dict[str, Any],
    solver: str,
    validation: float,
    keep: Tensor | None,
    held: Tensor | None,
    said: dict[str, Any],
    out: Any,
    resume: str,
) -> Run:
    """One training on the cache; the run folder is written when it is done."""
    settings = TrainConfig(**chosen)
    engine = Engine("fp32")
    tuned.to(engine.device)
    config = {**run_config(tuned, data, Standard(), settings, engine), "finetune": said}
    with open_run(out, config, resume) as (folder, saved):
        path = folder.path if folder else None
        if saved is not None:
            tuned.load_state_dict(saved["model"])
            return Run(tuned.eval(), saved["history"], path, config)
        _, tail = split(tuned, names)
        if solver == "logistic":
            features = caches.train.values[0][0].float().flatten(1)
            found = fit_logistic(features, caches.train.labels, data.num_classes, settings.seed, validation)
            with torch.no_grad():
                tuned.head.weight.copy_(found.weight)
                tuned.head.bias.copy_(found.bias)
            history = [{"epoch": 1, "strength": found.strength, "test_clean": accuracy(tuned, tail, caches.test)}]
            tuned.eval()
        else:
            history = fit_tail(tuned, tail, modules, caches, settings, keep, held)
        if folder is not None:
            folder.save({"model": tuned.state_dict(), "history": history}, history, weights=tuned)
    return Run(tuned, history, path, config)
