"""Logistic probes: l2-regularised logistic regression on standardised features, solved to a gradient of zero."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from waterbed.devices import seeded_generator
from waterbed.errors import UsageError

STRENGTHS = tuple(10.0**k for k in range(-4, 3))
MOST_WIDENINGS = 3
GRADIENT = 1e-6  # where the final regression stops
ROUGH_GRADIENT = 1e-4  # enough to compare strengths by their accuracy
MOST_ITERATIONS = 20_000


@dataclass(frozen=True)
class LogisticProbe:
    """A linear classifier of raw features: logits = features @ weight.T + bias.

    Attributes:
        weight, bias: (K, d) and (K,), float64. A class without a training image never wins.
        strength: the inverse strength C of the regularisation.
        edge: at which end of the strengths tried it lies, in words; "" for none.
        gradient: the largest absolute slope of the objective, divided by the number of examples, at the solution.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    edge: str = ""
    gradient: float = 0.0

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
    standardise: bool = True,
    gradient: float = GRADIENT,
) -> LogisticProbe:
    """Logistic regression from features (N, d) to labels (N,), in float64.

    It minimises sum_n -log p(y_n | x_n) + |W|^2 / 2C over weights W and unpenalised offsets (of two classes W is the
    difference), by L-BFGS until no slope of the mean exceeds ``gradient``. The strength C is chosen on held-out
    examples, and the regression then fitted again on all; of strengths that reach the same accuracy, the smallest. If
    the best of the default strengths is the first or the last, up to three more decades are tried.

    Args:
        num_classes: K, of which some may have no example.
        seed: of the choice of held-out examples.
        validation: the fraction held out.
        strengths: the candidates, in increasing order; with one nothing is held out.
        standardise: bring each feature to mean 0 and standard deviation 1, so that the strength means the same for
            every backbone; the weights returned are those for raw features.
        gradient: where the final regression stops: the largest slope of the mean loss.

    Raises:
        UsageError: a fraction that holds out none or all of the examples.

    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> bool((fit_logistic(x, y, 2).predict(x) == y).double().mean() > 0.95)
    True
    """
    x, y = features.double(), labels.numpy()
    best, edge = strengths[0], ""
    if len(strengths) > 1:
        train, held = held_out(len(x), validation, seed)
        mean, std = _moments(x[train], standardise)
        scaled = ((x - mean) / std).numpy()
        parts = [(scaled[part], y[part]) for part in (train.numpy(), held.numpy())]
        best, edge = _chosen(*parts, list(strengths), widen=strengths is STRENGTHS)
    mean, std = _moments(x, standardise)
    scaled = ((x - mean) / std).numpy()
    regression = _regression(gradient)
    _fit(regression, scaled, y, best)
    slopes, offsets = torch.from_numpy(regression.coef_), torch.from_numpy(regression.intercept_)
    if len(regression.classes_) == 2:  # scikit-learn keeps the difference of the two
        slopes, offsets = torch.cat([-slopes, slopes]) / 2, torch.cat([-offsets, offsets]) / 2
    weight = torch.zeros(num_classes, x.shape[1], dtype=torch.float64)
    bias = torch.full((num_classes,), -1e6, dtype=torch.float64)
    weight[regression.classes_] = slopes / std
    bias[regression.classes_] = offsets - (slopes * (mean / std)).sum(1)
    return LogisticProbe(weight, bias, best, edge, _gradient(regression, scaled, y, best))


def _moments(x: Tensor, standardise: bool) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (d,) of each feature; 0 and 1 where they stay as they are."""
    if not standardise:
        return x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
    return x.mean(0), x.std(0, correction=0).clamp_min(1e-8)


Examples = tuple[np.ndarray, np.ndarray]


def _chosen(train: Examples, held: Examples, strengths: list[float], widen: bool) -> tuple[float, str]:
    """The strength with the highest accuracy on ``held``, of equals the smallest, and at which end it lies."""
    regression = _regression(ROUGH_GRADIENT)
    scores: dict[float, float] = {}

    def best_of(more: Sequence[float]) -> float:
        for strength in more:  # in increasing order each starts near its solution
            _fit(regression, *train, strength)
            scores[strength] = regression.score(*held)
        return max(scores, key=lambda c: (scores[c], -c))

    best = best_of(strengths)
    for _ in range(MOST_WIDENINGS if widen else 0):
        if best == max(scores):
            best = best_of([10 * best])
        elif best == min(scores):
            best = best_of([best / 10])
    side = "largest" if best == max(scores) else "smallest" if best == min(scores) else ""
    return best, f"{side} strength {best:g}" if side else ""


def _regression(gradient: float) -> LogisticRegression:
    return LogisticRegression(tol=gradient, max_iter=MOST_ITERATIONS, warm_start=True)


def _fit(regression: LogisticRegression, x: np.ndarray, y: np.ndarray, strength: float) -> None:
    with warnings.catch_warnings():  # the probe says how far from zero its gradient is
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.set_params(C=strength).fit(x, y)


def _gradient(regression: LogisticRegression, x: np.ndarray, y: np.ndarray, strength: float) -> float:
    """The largest absolute slope of the objective over the number of examples."""
    classes = regression.classes_
    excess = regression.predict_proba(x) - (y[:, None] == classes)
    if len(classes) == 2:
        excess = excess[:, 1:]
    slopes = [excess.T @ x + regression.coef_ / strength, excess.sum(0)]
    return float(max(abs(s).max() for s in slopes)) / len(x)


def held_out(total: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices to train on and to hold out, each in increasing order."""
    order = torch.randperm(total, generator=seeded_generator(seed))
    count = round(fraction * total)
    if not 1 <= count < total:
        raise UsageError(f"validation={fraction!r} holds out {count} of {total} images; pass another fraction")
    return order[count:].sort().values, order[:count].sort().values
