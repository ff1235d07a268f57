"""Training on a cached trunk: the tail by SGD, or the head as regularised logistic regression."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from waterbed.engine import device_of, seeded
from waterbed.errors import UsageError
from waterbed.models import evaluating
from waterbed.training_state import Job, Meter, Settings
from waterbed.transfer_learning.trunk import Cache

STRENGTHS = tuple(10.0**k for k in range(-4, 3))


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
    settings: Settings,
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
    job = Job(model, trained, settings, steps, best=-math.inf)
    with seeded(settings.seed, device):
        for epoch in range(settings.epochs):
            meter = Meter()
            job.train_mode()
            generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
            order = keep[torch.randperm(len(keep), generator=generator)]
            for indices in order.tensor_split(steps):
                values, y = caches.train.batch(indices, epoch % caches.train.views, device)
                logits = tail(*values)
                loss = F.cross_entropy(logits, y)
                meter.add(loss, logits, y, epoch)
                job.optimizer.zero_grad()
                loss.backward()
                job.optimizer.step()
                job.scheduler.step()
            record = meter.record()
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


def fit_logistic(
    head: nn.Linear, cache: Cache, seed: int, validation: float, strengths: Sequence[float] = STRENGTHS
) -> float:
    """Set ``head`` to the l2-regularised logistic regression on the cached features; returns the strength chosen.

    Features are standardised first, so that the strength means the same for every backbone; the head undoes it. The
    inverse strength C of scikit-learn's LogisticRegression is chosen on a held-out fraction ``validation`` of the
    images, and the regression fitted again on all.
    """
    features, labels = cache.values[0][0].float().flatten(1).double().numpy(), cache.labels.numpy()
    keep, held = held_out(len(cache), validation, seed)
    mean, std = features.mean(0), features.std(0).clip(min=1e-8)
    x = (features - mean) / std
    if len(strengths) > 1:
        scores = {c: _logistic(x[keep], labels[keep], c).score(x[held], labels[held]) for c in strengths}
        best = max(scores, key=lambda c: (scores[c], -c))
    else:
        best = strengths[0]
    found = _logistic(x, labels, best)
    weight, bias = torch.zeros(head.weight.shape).double(), torch.full((len(head.weight),), -1e3).double()
    coefficients = torch.from_numpy(found.coef_)
    intercept = torch.from_numpy(found.intercept_)
    if len(found.classes_) == 2:  # scikit-learn keeps the difference of the two
        coefficients, intercept = torch.cat([-coefficients, coefficients]) / 2, torch.cat([-intercept, intercept]) / 2
    weight[found.classes_] = coefficients / torch.from_numpy(std)
    bias[found.classes_] = intercept - (coefficients * torch.from_numpy(mean / std)).sum(1)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return best


def _logistic(x: Any, y: Any, strength: float) -> LogisticRegression:
    with warnings.catch_warnings():  # 200 iterations settle the accuracy, if not the last digit of the weights
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=200).fit(x, y)


def held_out(total: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices to keep and to hold out."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    count = round(fraction * total)
    if not 1 <= count < total:
        raise UsageError(f"validation={fraction!r} holds out {count} of {total} images; pass another fraction")
    return order[count:].sort().values, order[:count].sort().values
