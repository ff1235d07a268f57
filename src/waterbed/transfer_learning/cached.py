"""Training on a cached trunk: the tail by SGD."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waterbed.devices import device_of, seeded
from waterbed.models.states import evaluating
from waterbed.training.checkpointing import diverged
from waterbed.training.config import TrainConfig
from waterbed.training.state import Job
from waterbed.transfer_learning.trunk import Cache


@dataclass(frozen=True)
class Caches:
    """The trunk of one network on one task: training and test images."""

    train: Cache
    test: Cache


def fit_tail(
    model: nn.Module,
    tail: nn.Module,
    trained: list[nn.Module],
    caches: Caches,
    settings: TrainConfig,
    keep: Tensor | None = None,
    watched: Tensor | None = None,
) -> list[dict[str, Any]]:
    """SGD on the trained modules of ``model``, whose ``tail`` takes the cached values; returns the history.

    Args:
        keep: indices of the training images to use; all by default.
        watched: training images on which accuracy is recorded after each epoch as "validation_clean"; without them it
            is that on the test images ("test_clean").
    """
    device = device_of(model)
    keep = torch.arange(len(caches.train)) if keep is None else keep
    steps = math.ceil(len(keep) / settings.batch_size)
    job = Job(model, trained, settings, steps)
    with seeded(settings.seed, device):
        for epoch in range(settings.epochs):
            job.train_mode()
            generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
            order = keep[torch.randperm(len(keep), generator=generator)]
            for indices in order.tensor_split(steps):
                values, y = caches.train.batch(indices, epoch % caches.train.views, device)
                logits = tail(*values)
                loss = F.cross_entropy(logits, y)
                job.step(Tensor.backward, loss, logits, y)
            bad = job.meter.read()
            if bad is not None:
                raise diverged(epoch, bad)
            record = job.meter.record()
            if watched is not None:
                record["validation_clean"] = accuracy(model, tail, caches.train, watched)
            elif settings.watch:
                record["test_clean"] = accuracy(model, tail, caches.test)
            job.end_epoch(record)
    model.eval()
    return job.history


@torch.no_grad()
def accuracy(model: nn.Module, tail: nn.Module, cache: Cache, indices: Tensor | None = None) -> float:
    """Percent of the cached images (all by default) that the tail gets right, in eval mode."""
    return 100 * float((predictions(model, tail, cache, indices) == _labels(cache, indices)).double().mean())


@torch.no_grad()
def predictions(model: nn.Module, tail: nn.Module, cache: Cache, indices: Tensor | None = None) -> Tensor:
    """The tail's classes (N,) for the cached images, on the CPU."""
    device = device_of(model)
    indices = torch.arange(len(cache)) if indices is None else indices
    with evaluating(model):
        parts = [tail(*cache.batch(part, 0, device)[0]).argmax(1).cpu() for part in indices.split(1024)]
    return torch.cat(parts)


def _labels(cache: Cache, indices: Tensor | None) -> Tensor:
    return cache.labels if indices is None else cache.labels[indices]
