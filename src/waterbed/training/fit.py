"""fit: the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from waterbed.data.augment import augmentation
from waterbed.data.images import batches, check_data
from waterbed.devices import channels_last, device_of, seeded
from waterbed.distributed import Engine
from waterbed.errors import UsageError, UsageTypeError
from waterbed.evaluation.accuracy import evaluate
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.folding import folded
from waterbed.models.states import probe
from waterbed.progress import Progress
from waterbed.training.checkpointing import Keeper
from waterbed.training.objectives import TRADES, AdversarialTraining, Objective, Standard
from waterbed.training.run_folder import Run, open_run
from waterbed.training.state import Job, Settings
from waterbed.training.trackers import Tracker, tracking

IMAGES_FOR_STATISTICS = 10_000
FLOATS = ("lr", "momentum", "weight_decay", "validation", "ema")


def fit(
    model: nn.Module,
    data: Any,
    objective: Objective | None = None,
    out: str | Path | None = None,
    *,
    epochs: int = 30,
    batch_size: int = 128,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: str = "one-cycle",
    milestones: Sequence[int] = (),
    nesterov: bool = True,
    augment: str = "auto",
    validation: float = 0.0,
    ema: float = 0.0,
    watch: int = 1000,
    seed: int = 0,
    precision: str = "auto",
    resume: str = "auto",
    workers: int = 0,
    checkpoint_minutes: float = 15.0,
    trackers: Sequence[str | Tracker] = (),
    progress: bool = True,
    trained: Iterable[nn.Module] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Run:
    """Train ``model`` in place and return the :class:`Run`.

    Args:
        model: a :class:`FeatureClassifier` (its mean and std are set from the training images if it has
            none and all of it is trained) or any module from images in [0, 1] to logits.
        data: what ``load_dataset`` returns, or any object with train, test, classes, num_classes, shape, name.
        objective: ``Standard()`` (default), ``AdversarialTraining(attack)``, ``TRADES(attack)``,
            ``GaussianNoise(eps)``.
        out: the run folder; None writes nothing.
        epochs, batch_size, lr, momentum, nesterov, weight_decay: of SGD with momentum.
        schedule: "one-cycle" (rises to ``lr`` over 30 % of the steps, then falls as a cosine), "cosine", "step" (a
            tenth after each of ``milestones``, epochs; by default 1/3 and 2/3 of them), "constant".
        augment: "crop-flip", "crop", "none", or "auto": crops always, flips where the data says that a mirrored
            image keeps its class.
        validation: this fraction of the training images is held out, and the epoch that does best on them (under
            the objective's attack, if it has one) is kept. 0 keeps the last epoch. The test set never chooses.
        ema: decay per step of a moving average of weights and running statistics, which then is what is watched after
            epochs and kept. It starts lower, as (1 + t) / (10 + t) at step t. 0 averages nothing.
        watch: after each epoch, accuracies on that many held-out (else test) images go into the history; 0 for none.
        seed: of data order, augmentation and attacks. The caller's random state is left alone.
        precision: "auto" (bfloat16 where the hardware multiplies it, else fp32), "fp32", "bf16".
        resume: "auto" continues ``out``, or returns its finished run; "never" refuses a folder that holds a run.
        workers: processes that decode images, for sets too large for memory.
        checkpoint_minutes: within a long epoch the state is saved that often; it always is after an epoch, and on
            SIGTERM. A run killed at any moment goes on as if nothing had happened.
        trackers: "tensorboard", "wandb", "mlflow", or objects with ``log(record, step)`` and ``close()``, that get
            every epoch's record beside metrics.jsonl.
        trained: the modules to train; all by default. The others keep weights and running statistics.
        notes: more to record in the run's config.

    Raises:
        UsageError: a wrong argument, data or folder; nothing already written is touched.
        DivergenceError: the loss is not finite; the state is in ``out``/diverged.pt.
        StoppedError: SIGTERM came; the state is saved.
    """
    settings = Settings(
        epochs,
        batch_size,
        lr,
        momentum,
        weight_decay,
        schedule,
        augment,
        validation,
        watch,
        seed,
        tuple(milestones),
        nesterov,
        ema,
    )
    objective = Standard() if objective is None else objective
    if isinstance(objective, type) or not callable(objective) or not hasattr(objective, "config"):
        raise UsageTypeError(
            f"objective={objective!r} must be an objective, such as Standard() or TRADES(PGD(eps=1.0))"
        )
    check_data(data)
    train, held_out = _split(len(data.train), validation, seed)
    engine = Engine(precision)
    model.to(engine.device)
    if isinstance(model, FeatureClassifier) and model.mean is None and trained is None:
        model.set_normalisation(*_channel_statistics(data, train))
    _check_fits(model, data)
    config = {**run_config(model, data, objective, settings, engine), **(notes or {})}
    steps = math.ceil(len(train) / (batch_size * engine.processes))
    job = Job(model, trained, settings, steps, best=-math.inf)
    augmented = augmentation(augment, data)
    attacked = attacked_network(model, objective, data, engine)
    with (
        open_run(out, config, resume, engine.is_main) as (folder, saved),
        Keeper(folder, engine, checkpoint_minutes) as keeper,
        tracking(trackers, folder.path if folder else None, config, engine.is_main) as track,
        seeded(seed + engine.rank, engine.device),
        channels_last(model),
        channels_last(job.kept),
        Progress("training", epochs * steps, progress and engine.is_main) as shown,
    ):
        forward = engine.wrap(model)
        if saved is not None:
            job.restore(saved)
            shown.skip(job.epoch * steps + job.meter.batches)
        for epoch in range(job.epoch, epochs):
            job.train_mode()
            order = _order(train, settings, epoch, engine)
            draws = {"parts": steps, "skip": job.meter.batches, "seed": seed * 1_000_003 + epoch, "workers": workers}
            for x, y in batches(data.train, batch_size, order=order, num_classes=data.num_classes, **draws):
                x, y = engine.place(augmented(x.to(engine.device)), model), y.to(engine.device)
                with engine.autocast():
                    loss, logits = objective(attacked(), forward, x, y)
                keeper.check(job, loss, epoch)
                job.meter.add(loss, logits, y)
                job.step(engine.accelerator.backward, loss)
                shown.advance(message=f"epoch {epoch + 1}/{epochs}, {job.meter}")
                keeper.after_batch(job)
            if job.averaged is not None:
                engine.broadcast_buffers(job.averaged)
            watched = _watch(job.kept, data, held_out, objective, settings)
            improved = job.end_epoch({**job.meter.record(engine.sum), **watched})
            keeper.after_epoch(job, job.kept if improved else None)
            track(job.history[-1])
    job.finish()
    return Run(model, job.history, folder.path if folder else None, config)


def attacked_network(model: nn.Module, objective: Objective, data: Any, engine: Engine) -> Callable[[], nn.Module]:
    """The network that our own objectives attack, with the weights of the moment; a user's own gets the model."""
    if type(objective) not in (AdversarialTraining, TRADES):
        return lambda: model
    images = torch.rand(2, *data.shape, generator=torch.Generator().manual_seed(0))
    return folded(model, images.to(engine.device, next(model.parameters()).dtype), engine.dtype)


def run_config(model: nn.Module, data: Any, objective: Objective, settings: Settings, engine: Engine) -> dict[str, Any]:
    """What the run folder records, and a resumed run must agree with."""
    numbers = {k: float(v) if k in FLOATS else v for k, v in asdict(settings).items()}
    if isinstance(model, FeatureClassifier):
        model.input_shape = tuple(int(v) for v in data.shape)
    return {
        "data": {
            "name": str(data.name),
            "shape": [int(v) for v in data.shape],
            "classes": [str(c) for c in data.classes],
            "train": len(data.train),
            "test": len(data.test),
        },
        "model": getattr(model, "architecture", None)
        or {"class": type(model).__name__, "weights": sum(p.numel() for p in model.parameters())},
        "objective": objective.config(),
        **{k: list(v) if isinstance(v, tuple) else v for k, v in numbers.items()},
        "precision": engine.precision,
        "processes": engine.processes,
    }


def _split(total: int, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices to train on and to hold out."""
    held = round(validation * total)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    if validation > 0 and not 1 <= held < total:
        raise UsageError(f"validation={validation!r} holds out {held} of {total} images; pass another fraction")
    return order[held:].sort().values, order[:held].sort().values


def _order(train: Tensor, settings: Settings, epoch: int, engine: Engine) -> Tensor:
    """This process's indices of one epoch, from seed and epoch alone; as many for every process."""
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    order = train[torch.randperm(len(train), generator=generator)]
    return order[: len(order) // engine.processes * engine.processes][engine.rank :: engine.processes]


def _watch(model: nn.Module, data: Any, held_out: Tensor, objective: Objective, s: Settings) -> dict[str, float]:
    """Accuracies after an epoch, on all held-out images, or on ``watch`` test images."""
    attacks = [] if objective.attack is None else [objective.attack]
    if len(held_out):
        name, score = "validation", evaluate(model, Subset(data.train, held_out.tolist()), attacks)
    elif s.watch:
        name, score = "test", evaluate(model, data.test, attacks, num_samples=s.watch)
    else:
        return {}
    return {
        f"{name}_clean": float(score.clean),
        **{f"{name}_robust": float(a) for a in score.robust.values()},
    }


def _channel_statistics(data: Any, train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over (at most 10,000 of) the training images."""
    chosen = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:IMAGES_FOR_STATISTICS]]
    sums = squares = 0.0
    for x, _ in batches(data.train, 1000, order=chosen):
        sums = sums + x.double().mean((2, 3)).sum(0)
        squares = squares + x.double().square().mean((2, 3)).sum(0)
    mean = sums / len(chosen)
    return mean, (squares / len(chosen) - mean.square()).clamp_min(1e-8).sqrt()


def _check_fits(model: nn.Module, data: Any) -> None:
    """One image through the model: shapes and the number of classes agree."""
    device = device_of(model)
    logits = probe(model, torch.zeros(1, *data.shape, device=device), f"data {data.name!r} images")
    if logits.ndim != 2 or logits.shape[1] != data.num_classes:
        raise UsageError(
            f"model gives outputs {tuple(logits.shape)} for one image, but data {data.name!r} has "
            f"{data.num_classes} classes; build the model with num_classes={data.num_classes}"
        )
