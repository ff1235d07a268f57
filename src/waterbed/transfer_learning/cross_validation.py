"""Scores of a backbone on a target by repeated cross-validation over all images, and their sampling errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student
from sklearn.model_selection import RepeatedStratifiedKFold
from torch import Tensor

from waterbed.errors import UsageError
from waterbed.information.neighbours import knn_hits
from waterbed.transfer_learning.logistic import ROUGH_GRADIENT, fit_logistic
from waterbed.transfer_learning.scores import h_score, leep, logme

FOLDS, REPEATS = 5, 2
TUNED = 2  # folds on which the strength of the probe is chosen
STRENGTHS = tuple(10.0**k for k in range(-4, 0))


@dataclass(frozen=True)
class CrossValidated:
    """One score of one backbone.

    Attributes:
        value: over all images.
        parts: (J,), one value per fold and repeat, J = folds x repeats. An accuracy is that on the images of the fold;
            for a score of the whole sample, the fold's jackknife pseudo-value. Backbones that are compared have the
            same folds.
        folds: of each repeat.
    """

    value: float
    parts: np.ndarray
    folds: int = FOLDS

    def __sub__(self, other: CrossValidated) -> CrossValidated:
        return CrossValidated(self.value - other.value, self.parts - other.parts, self.folds)

    def scaled(self, factor: float) -> CrossValidated:
        """Times a number."""
        return CrossValidated(factor * self.value, factor * self.parts, self.folds)

    def stderr(self) -> float:
        """Standard error by the corrected resampled variance, which covers the choice of images and of the split.

        Folds share their training images, so the plain variance of their mean, S^2 / J, is too small. Nadeau and
        Bengio (2003), "Inference for the generalization error", eq. 7: (1 / J + n_held / n_train) S^2, here with
        n_held / n_train = 1 / (folds - 1).
        """
        return float(np.sqrt((1 / len(self.parts) + 1 / (self.folds - 1)) * self.parts.var(ddof=1)))

    def interval(self) -> tuple[float, float]:
        """95 % interval, Student's t with J - 1 degrees of freedom (Bouckaert and Frank 2004)."""
        half = float(student.ppf(0.975, len(self.parts) - 1)) * self.stderr()
        return self.value - half, self.value + half

    def text(self, digits: int = 1) -> str:
        """Such as "81.2 [79.0, 83.4]"."""
        low, high = self.interval()
        return f"{self.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def cross_validate(
    features: Tensor, labels: Tensor, probabilities: Tensor, folds: int = FOLDS, repeats: int = REPEATS, seed: int = 0
) -> dict[str, CrossValidated]:
    """The scores "probe" and "knn" [%], "logme" [nats], "h_score" and "leep" [nats] of features (N, d).

    The probe's strength is the one with the best accuracy on the first two folds.

    Args:
        labels: (N,).
        probabilities: (N, Z), by the source network's own head.
        folds, repeats: of the stratified cross-validation; fewer folds where no two classes have an image for each.
        seed: of the splits.

    Raises:
        UsageError: fewer than two classes have two images.

    >>> import torch
    >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> scores = cross_validate(x, (x[:, 0] > 0).long(), x.softmax(1))
    >>> scores["probe"].value > 90, len(scores["probe"].parts)
    (True, 10)
    """
    folds = _possible(labels, folds)
    splits = list(_splits(labels, folds, repeats, seed))
    accuracies = {c: [_probe(features, labels, c, *split) for split in splits[:TUNED]] for c in STRENGTHS}
    best = max(STRENGTHS, key=lambda c: (np.mean(accuracies[c]), -c))
    probe = np.array(accuracies[best] + [_probe(features, labels, best, *split) for split in splits[TUNED:]])
    hits = 100 * knn_hits(features, labels).numpy()
    knn = np.array([hits[held].mean() for _, held in splits])
    scores = {
        "probe": CrossValidated(float(probe.mean()), probe, folds),
        "knn": CrossValidated(float(hits.mean()), knn, folds),
    }
    for name, score, values in (
        ("logme", logme, features),
        ("h_score", h_score, features),
        ("leep", leep, probabilities),
    ):
        whole = score(values, labels)
        without = np.array([score(values[train], labels[train]) for train, _ in splits])
        scores[name] = CrossValidated(whole, folds * whole - (folds - 1) * without, folds)
    return scores


def _probe(features: Tensor, labels: Tensor, strength: float, train: np.ndarray, held: np.ndarray) -> float:
    """Accuracy [%] on the held-out images of a logistic probe fitted on the others."""
    classes = int(labels.max()) + 1
    probe = fit_logistic(features[train], labels[train], classes, strengths=[strength], gradient=ROUGH_GRADIENT)
    return 100 * float((probe.predict(features[held]) == labels[held]).double().mean())


def _possible(labels: Tensor, folds: int) -> int:
    """As many folds as leave two classes to train on in each."""
    counts = labels.bincount().sort(descending=True).values
    second = int(counts[1]) if len(counts) > 1 else 0
    if second < 2:
        raise UsageError(f"target has {int((counts > 1).sum())} class(es) with two or more images; pass more images")
    return min(folds, second)


def _splits(labels: Tensor, folds: int, repeats: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices to train on and to hold out, folds x repeats times."""
    with warnings.catch_warnings():  # a rare class is absent from some folds: its images count as any other's
        warnings.filterwarnings("ignore", message="The least populated class")
        drawn = RepeatedStratifiedKFold(n_splits=folds, n_repeats=repeats, random_state=seed)
        yield from drawn.split(np.zeros(len(labels)), labels.numpy())
