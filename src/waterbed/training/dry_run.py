"""What a training would cost: shapes, parameters, memory and time, from three steps on real images."""

from __future__ import annotations

import math
import resource
import sys
import time
from typing import Any

import torch
from torch import nn

from waterbed.data.augment import augmentation
from waterbed.data.images import check_data
from waterbed.data.loading import batches
from waterbed.data.mixing import mixing
from waterbed.data.task import as_task
from waterbed.devices import channels_last, seeded
from waterbed.distributed import Engine
from waterbed.models.classifier import FeatureClassifier
from waterbed.training.config import TrainConfig
from waterbed.training.fit import attacked_network
from waterbed.training.objective import Objective, check_loss, check_objective, started
from waterbed.training.optimizers import make_optimizer
from waterbed.training.soft_labels import check_takes_labels

STEPS = 3


def dry_run(model: nn.Module, data: Any, objective: Objective, config: TrainConfig) -> list[list[Any]]:
    """Rows (what, how much) for a table. The model is trained for three steps: use one made for this.

    The time is that of the median step times the number of steps; evaluations after epochs come on top.
    """
    data = as_task(data)
    check_data(data)
    check_objective(objective)
    check_takes_labels(objective, config)
    engine = Engine(config.precision)
    model.to(engine.device)
    steps = math.ceil(len(data.train) / (config.batch_size * engine.processes))
    objective = started(objective, model)
    attacked = attacked_network(model, objective, data, engine)
    augmented, mixed = augmentation(config, data), mixing(config, data.num_classes)
    optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad], config)
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(engine.device)
    seconds: list[float] = []
    size = math.ceil(len(data.train) / (steps * engine.processes))  # as fit divides an epoch
    order = torch.arange(len(data.train)).repeat(STEPS)[: STEPS * size]
    with seeded(0, engine.device), channels_last(model):
        model.train()
        for x, y in batches(
            augmented.images,
            size,
            order=order,
            num_classes=data.num_classes,
            workers=config.workers,
            device=engine.device,
        ):
            began = time.perf_counter()
            x, y = mixed(augmented(x), y.to(engine.device))
            x = engine.place(x, model)
            with engine.autocast():
                loss, logits = check_loss(objective(attacked(), model, x, y), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if engine.device.type == "cuda":
                torch.cuda.synchronize(engine.device)
            seconds.append(time.perf_counter() - began)
    step = sorted(seconds)[len(seconds) // 2]
    parameters = sum(p.numel() for p in model.parameters())
    rows: list[list[Any]] = [
        ["images", f"{len(data.train):,} of {tuple(data.shape)}, {data.num_classes} classes"],
        ["logits of a batch", str(tuple(logits.shape))],
        ["parameters", f"{parameters:,}"],
        ["steps", f"{steps:,} an epoch, {steps * config.epochs:,} in all"],
        ["device, precision", f"{engine.device}, {engine.precision}, {engine.processes} process(es)"],
        ["peak memory", f"{_peak(engine.device) / 2**30:.2f} GiB"],
        ["one step", f"{1000 * step:.0f} ms, {size / step:.0f} images/s"],
        ["training", f"{_duration(step * steps)} an epoch, {_duration(step * steps * config.epochs)} in all"],
    ]
    if isinstance(model, FeatureClassifier):
        rows.insert(3, ["features", str(getattr(model.head, "in_features", "into a head that is not linear"))])
    return rows


def _peak(device: torch.device) -> int:
    """Bytes: of the device's allocator, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _duration(seconds: float) -> str:
    """In the unit that reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
