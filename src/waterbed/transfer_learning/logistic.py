"""Linear probes: l2-regularised logistic regression on standardised features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from waterbed.errors import UsageError

STRENGTHS = tuple(10.0**k for k in range(-4, 3))


@dataclass(frozen=True)
class LogisticProbe:
    """A linear classifier of raw features: logits = features @ weight.T + bias.

    Attributes:
        weight, bias: (K, d) and (K,), float64. A class without a training image never wins.
        strength: the inverse strength C of the regularisation.
    """

    weight: Tensor
    bias: Tensor
    strength: float

    def predict(self, features: Tensor) -> Tensor:
        """Classes (N,) of features (N, d)."""
        return (features.double() @ self.weight.T + self.bias).argmax(1)


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    seed: int = 0,
    validation: float = 0.1,
    strengths: Sequence[float] = STRENGTHS,
) -> LogisticProbe:
    """Logistic regression from features (N, d) to labels (N,).

    Features are standardised first, so that the strength means the same for every backbone; the weights returned are
    those for raw features. The strength is chosen on held-out examples, and the regression then fitted again on all.

    Args:
        num_classes: K, of which some may have no example.
        seed: of the choice of held-out examples.
        validation: the fraction held out.
        strengths: the candidates, inverse strengths C of scikit-learn's LogisticRegression (200 iterations); with one
            nothing is held out.

    Raises:
        UsageError: a fraction that holds out none or all of the examples.

    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> bool((fit_logistic(x, y, 2).predict(x) == y).double().mean() > 0.95)
    True
    """
    x, y = features.double(), labels.numpy()
    mean, std = x.mean(0), x.std(0, correction=0).clamp_min(1e-8)
    scaled = ((x - mean) / std).numpy()
    best = strengths[0]
    if len(strengths) > 1:
        train, held = (indices.numpy() for indices in held_out(len(x), validation, seed))
        scores = {c: _fit(scaled[train], y[train], c).score(scaled[held], y[held]) for c in strengths}
        best = max(scores, key=lambda c: (scores[c], -c))
    regression = _fit(scaled, y, best)
    slopes, offsets = torch.from_numpy(regression.coef_), torch.from_numpy(regression.intercept_)
    if len(regression.classes_) == 2:  # scikit-learn keeps the difference of the two
        slopes, offsets = torch.cat([-slopes, slopes]) / 2, torch.cat([-offsets, offsets]) / 2
    weight = torch.zeros(num_classes, x.shape[1], dtype=torch.float64)
    bias = torch.full((num_classes,), -1e6, dtype=torch.float64)
    weight[regression.classes_] = slopes / std
    bias[regression.classes_] = offsets - (slopes * (mean / std)).sum(1)
    return LogisticProbe(weight, bias, best)


def _fit(x: object, y: object, strength: float) -> LogisticRegression:
    with warnings.catch_warnings():  # after 200 iterations the accuracy no longer changes, though the weights still may
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=200).fit(x, y)


def held_out(total: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices to train on and to hold out, each in increasing order."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    count = round(fraction * total)
    if not 1 <= count < total:
        raise UsageError(f"validation={fraction!r} holds out {count} of {total} images; pass another fraction")
    return order[count:].sort().values, order[:count].sort().values
