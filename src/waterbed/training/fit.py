"""fit: the training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from waterbed.data.augment import Augmentation, augmentation
from waterbed.data.images import check_data
from waterbed.data.loading import Loader
from waterbed.data.map_style import names_of
from waterbed.data.mixing import mixing
from waterbed.data.task import as_task
from waterbed.devices import channels_last, device_of, seeded, seeded_generator
from waterbed.distributed import Engine
from waterbed.environment import recorded_threads
from waterbed.errors import UsageError, UsageTypeError
from waterbed.evaluation.accuracy import evaluate
from waterbed.files import expanded
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.folding import folded
from waterbed.models.states import check_module, probe, unchanged
from waterbed.progress import Progress, announce
from waterbed.threads import check_threads, free_cores, limited, threads_beside
from waterbed.training.callbacks import Callback, MeasuresOverTraining, call_back, check_callbacks
from waterbed.training.checkpointing import Checkpointing
from waterbed.training.compiling import check_compiles, compiled
from waterbed.training.config import TrainConfig, documented
from waterbed.training.joint_batch_norm import batch_norms
from waterbed.training.objective import Objective, check_loss, check_objective, started
from waterbed.training.objectives import Standard
from waterbed.training.run_folder import ENVIRONMENT, Run, open_run
from waterbed.training.soft_labels import check_takes_labels
from waterbed.training.state import Job
from waterbed.training.trackers import tracking
from waterbed.training.warm_start import check_followed, followed

IMAGES_FOR_STATISTICS = 10_000
LONG = 100_000  # images in all, of a training for which a second's look at the load is little


@documented
def fit(
    model: nn.Module,
    data: Any,
    objective: Objective | None = None,
    out: str | Path | None = None,
    *,
    config: TrainConfig | None = None,
    trained: Iterable[nn.Module] | None = None,
    notes: Mapping[str, Any] | None = None,
    callbacks: Iterable[Callback] = (),
    **settings: Any,
) -> Run:
    """Train ``model`` in place and return the :class:`Run`.

    A run killed at any moment goes on as if nothing had happened when the same call is made again. The caller's random
    state is left alone, and the test set never chooses anything.

    Args:
        model: a :class:`FeatureClassifier` (its mean and std are set from the training images if it has
            none and all of it is trained) or any module from images in [0, 1] to logits.
        data: what ``load_dataset`` returns, any object with train, test, classes, num_classes, shape, name, or a pair
            (train, test) of your own data sets or loaders (:func:`waterbed.as_task`).
        objective: ``Standard()`` (default), ``AdversarialTraining(attack)``, ``TRADES(attack)``,
            ``GaussianNoise(eps)``, or your own (:class:`~waterbed.training.objective.Objective`).
        out: the run folder; None writes nothing.
        config: a :class:`waterbed.TrainConfig`; by default ``TrainConfig()``.
        trained: the modules to train; all by default. The others keep weights and running statistics.
        notes: more to record in the run's config.
        callbacks: called after each epoch (:class:`~waterbed.training.callbacks.Callback`).
        settings: any field of :class:`waterbed.TrainConfig`, in place of the config's own:

        {settings}

    Raises:
        UsageError: a wrong argument, data or folder; nothing already written is touched.
        DivergenceError: the loss is not finite; the state is in ``out``/diverged.pt.
        StoppedError: SIGTERM came; the state is saved.

    >>> import waterbed as wb
    >>> data = wb.load_dataset("digits")
    >>> run = wb.fit(wb.create_model("resnet10", 10, width=4, in_channels=1), data, epochs=1, watch=0, progress=False)
    >>> [record["epoch"] for record in run.history]
    [1]
    """
    c = TrainConfig.of(config, settings)
    objective = Standard() if objective is None else objective
    check_objective(objective)
    check_takes_labels(objective, c)
    check_threads(c.threads)
    if c.compile:
        check_compiles(objective)
    if hasattr(objective, "begin_batch"):
        check_followed(c)
    check_module(model)
    data = as_task(data)
    check_data(data)
    engine = Engine(c.precision)
    if engine.processes > 1 and hasattr(objective, "state"):
        raise UsageError(f"objective={objective.config()['name']!r} keeps a state and trains in one process; start one")
    with limited(_threads(c, len(data.train), out, engine)):
        return _fit(model, data, objective, out, c, engine, trained, notes or {}, callbacks)


def _fit(
    model: nn.Module,
    data: Any,
    objective: Objective,
    out: str | Path | None,
    c: TrainConfig,
    engine: Engine,
    trained: Iterable[nn.Module] | None,
    notes: Mapping[str, Any],
    callbacks: Iterable[Callback],
) -> Run:
    """:func:`fit` with arguments that were checked, in the threads that were chosen."""
    after_epoch = [*check_callbacks(callbacks), MeasuresOverTraining(data, c.measures, c.measure_every, c.workers)]
    train, held_out = _split(len(data.train), c.validation, c.seed)
    augmented, mixed = augmentation(c, data), mixing(c, data.num_classes)
    loading = {"num_classes": data.num_classes, "workers": c.workers, "device": engine.device, "resident": True}
    loader = Loader(augmented.images, **loading)
    model.to(engine.device)
    if isinstance(model, FeatureClassifier) and model.mean is None and trained is None:
        as_they_are = loader if augmented.images is data.train else Loader(data.train, **loading)
        model.set_normalisation(*_channel_statistics(as_they_are, train))
        del as_they_are  # and any workers of its own
    _check_fits(model, data)
    objective = started(objective, model)
    recorded = {**run_config(model, data, objective, c, engine), **notes}
    joint = batch_norms(c, model, engine.processes)
    batches = math.ceil(len(train) / (c.batch_size * engine.processes))
    replays = getattr(objective, "replays", 1)
    steps = batches * replays
    job = Job(model, trained, c, steps, objective)
    attacked = attacked_network(model, objective, data, engine)
    attacked = compiled(attacked) if c.compile else attacked
    with (
        loader,
        open_run(out, recorded, c.resume, engine.is_main) as (folder, saved),
        Checkpointing(folder, engine, c.checkpoint_minutes) as checkpointing,
        tracking(c.trackers, folder.path if folder else None, recorded, engine.is_main) as track,
        seeded(c.seed + engine.rank, engine.device),
        channels_last(model),
        channels_last(job.result),
        Progress("training", c.epochs * steps, c.progress and engine.is_main) as progress,
    ):
        checkpointing.check_room(job)
        forward = engine.wrap(model)
        forward = torch.compile(forward) if c.compile else forward
        if saved is not None:
            checkpointing.restore(job, saved)
            progress.skip(job.epoch * steps + job.meter.batches)
        for epoch in range(job.epoch, c.epochs):
            job.train_mode()
            order = _order(train, c, epoch, engine)
            skip = job.meter.batches // replays
            draws = {"parts": batches, "skip": skip, "seed": c.seed * 1_000_003 + epoch}
            drawn = loader.batches(c.batch_size, order=order, **draws)
            for (x, y), indices in zip(drawn, order.tensor_split(batches)[skip:], strict=True):
                x = _augmented(x, augmented, objective, epoch, indices, len(data.train))
                x, y = mixed(x, y.to(engine.device, non_blocking=True))
                x = engine.place(x, model)
                for _ in range(replays):
                    with joint:
                        step(job, objective, attacked(), forward, x, y, engine)
                checkpointing.after_batch(job)
                progress.advance(replays, message=f"epoch {epoch + 1}/{c.epochs}, {job.meter}")
            checkpointing.check_finite(job)
            if job.averaged is not None:
                engine.broadcast_buffers(job.averaged)
            watched = _watch(job.result, data, held_out, objective, c)
            improved = job.end_epoch({**job.meter.record(engine.sum), **watched})
            try:
                call_back(after_epoch, job)
            finally:
                checkpointing.after_epoch(job, job.result if improved else None)
                track(job.history[-1])
    job.finish()
    return Run(model, job.history, folder.path if folder else None, recorded)


def _augmented(
    x: Tensor, augmented: Augmentation, objective: Objective, epoch: int, indices: Tensor, total: int
) -> Tensor:
    """The augmented images; an objective that follows them is told where their pixels came from."""
    begin = getattr(objective, "begin_batch", None)
    if begin is None:
        return augmented(x)
    x, sources = followed(augmented, x)
    begin(epoch, indices, sources, total)
    return x


def _threads(c: TrainConfig, images: int, out: str | Path | None, engine: Engine) -> int:
    """The number of CPU threads: as asked for, else as the run was started with, else what the load leaves.

    Sums in another number of threads differ in their last digits, so a run keeps the number that it began with.
    """
    most = torch.get_num_threads()
    if c.threads or most == 1 or engine.device.type != "cpu" or engine.processes > 1:
        return c.threads or most
    begun = None if out is None else recorded_threads(expanded(out) / ENVIRONMENT)
    if begun is not None:
        return min(begun, most)
    free = free_cores(1.0 if images * c.epochs > LONG else 0.1)
    threads = threads_beside(free, most)
    if threads < most:
        announce(
            f"training on {threads} of {most} CPU threads, since other processes leave {free:.1f} cores free; "
            f"threads={most} takes all (the last digits depend on the number)",
            c.progress,
        )
    return threads


def step(
    job: Job, objective: Objective, attacked: nn.Module, forward: nn.Module, x: Tensor, y: Tensor, engine: Engine
) -> None:
    """One step on a batch that lies on the device. Nothing in it reads a value back, so a GPU never waits for us."""
    with engine.autocast():
        loss, logits = check_loss(objective(attacked, forward, x, y), y)
    job.step(engine.accelerator.backward, loss, logits, y)


def attacked_network(model: nn.Module, objective: Objective, data: Any, engine: Engine) -> Callable[[], nn.Module]:
    """What the objective attacks, with the network's current weights: the folded copy, unless it asks for the model."""
    if getattr(objective, "attack", None) is None or not getattr(objective, "attacks_copy", True):
        return lambda: model
    images = torch.rand(2, *data.shape, generator=torch.Generator().manual_seed(0))
    return folded(model, images.to(engine.device, next(model.parameters()).dtype), engine.dtype)


def run_config(
    model: nn.Module, data: Any, objective: Objective, config: TrainConfig, engine: Engine
) -> dict[str, Any]:
    """What the run folder records, and a resumed run must agree with."""
    if isinstance(model, FeatureClassifier):
        model.input_shape = tuple(int(v) for v in data.shape)
        model.class_names = names_of(data.train) or tuple(str(c) for c in data.classes)
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
        **config.record(),
        "precision": engine.precision,
        "processes": engine.processes,
    }


def _split(total: int, validation: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices to train on and to hold out."""
    held = round(validation * total)
    order = torch.randperm(total, generator=seeded_generator(seed))
    if validation > 0 and not 1 <= held < total:
        raise UsageError(f"validation={validation!r} holds out {held} of {total} images; pass another fraction")
    return order[held:].sort().values, order[:held].sort().values


def _order(train: Tensor, config: TrainConfig, epoch: int, engine: Engine) -> Tensor:
    """This process's indices of one epoch, from seed and epoch alone; as many for every process."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = train[torch.randperm(len(train), generator=generator)]
    return order[: len(order) // engine.processes * engine.processes][engine.rank :: engine.processes]


def _watch(
    model: nn.Module, data: Any, held_out: Tensor, objective: Objective, config: TrainConfig
) -> dict[str, float]:
    """Accuracies after an epoch, on all held-out images, or on ``watch`` test images."""
    attacks = [] if getattr(objective, "attack", None) is None else [objective.attack]
    options = {"workers": config.workers}
    if len(held_out):
        name, score = "validation", evaluate(model, Subset(data.train, held_out.tolist()), attacks, **options)
    elif config.watch:
        name, score = "test", evaluate(model, data.test, attacks, num_samples=config.watch, **options)
    else:
        return {}
    return {
        f"{name}_clean": float(score.clean),
        **{f"{name}_robust": float(a) for a in score.robust.values()},
    }


def _channel_statistics(loader: Loader, train: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over (at most 10,000 of) the training images."""
    chosen = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:IMAGES_FOR_STATISTICS]]
    sums = squares = 0.0
    for x, _ in loader.batches(1000, order=chosen):
        sums = sums + x.double().mean((2, 3)).sum(0)
        squares = squares + x.double().square().mean((2, 3)).sum(0)
    mean = sums / len(chosen)
    return mean, (squares / len(chosen) - mean.square()).clamp_min(1e-8).sqrt()


def _check_fits(model: nn.Module, data: Any) -> None:
    """Images through the model: shapes and the number of classes agree, and it returns logits in train mode, too."""
    device = device_of(model)
    blank = torch.zeros(2, *data.shape, device=device)
    logits = probe(model, blank, f"data {data.name!r} images")
    if logits.ndim != 2 or logits.shape[1] != data.num_classes:
        raise UsageError(
            f"model gives outputs {tuple(logits.shape)} for one image, but data {data.name!r} has "
            f"{data.num_classes} classes; build the model with num_classes={data.num_classes}"
        )
    network = model.backbone if isinstance(model, FeatureClassifier) else getattr(model, "_orig_mod", model)
    with unchanged(model), seeded(0, device), torch.no_grad():
        outputs = network.train()(blank)
    if not isinstance(outputs, Tensor):
        raise UsageTypeError(
            f"model={type(network).__name__} gives {type(outputs).__name__} in train mode, not one tensor; build it "
            "without auxiliary outputs (torchvision: aux_logits=False)"
        )
