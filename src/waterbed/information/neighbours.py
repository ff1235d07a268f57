"""Accuracy of the nearest neighbours in a representation: nothing is trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from waterbed.errors import UsageError, check_count, check_number
from waterbed.information.estimate import SAMPLE_SIZE, Estimate, mean_estimate


def knn_accuracy(features: Tensor, labels: Tensor, neighbours: int = 20, temperature: float = 0.07) -> float:
    """Accuracy [%] with which each example is classified by its nearest neighbours among the others.

    Neighbours are those of largest cosine similarity and vote with exp(similarity / temperature), as in Wu et al.
    (2018), "Unsupervised feature learning via non-parametric instance discrimination". Nothing is trained.

    Args:
        features: (N, d); labels: (N,), at least two classes.
        neighbours: k; all other examples if there are fewer.

    Raises:
        UsageError: shapes that do not match, values that are not finite, one class.

    >>> x = torch.cat([torch.randn(50, 3) + 9, torch.randn(50, 3) - 9])
    >>> knn_accuracy(x, torch.arange(100) // 50)
    100.0
    """
    return 100 * float(knn_hits(features, labels, neighbours, temperature).double().mean())


def knn_hits(features: Tensor, labels: Tensor, neighbours: int = 20, temperature: float = 0.07) -> Tensor:
    """(N,) whether each example gets its class, as in :func:`knn_accuracy`."""
    check_count("neighbours", neighbours)
    check_number("temperature", temperature, above=0)
    x, y, classes = check_labelled(features, labels, "features")
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    index = np.searchsorted(classes, y)
    # On the unit sphere the nearest by Euclidean distance are those of largest cosine.
    distances, nearest = NearestNeighbors(n_neighbors=min(neighbours, len(x) - 1)).fit(unit).kneighbors()
    weights = np.exp(-(distances**2) / 2 / temperature)  # cos = 1 - distance^2 / 2, up to a factor that all share
    votes = np.zeros((len(x), len(classes)))
    np.add.at(votes, (np.arange(len(x))[:, None], index[nearest]), weights)
    return torch.from_numpy(votes.argmax(1) == index)


def knn_estimate(features: Tensor, labels: Tensor, neighbours: int = 20, temperature: float = 0.07) -> Estimate:
    """:func:`knn_accuracy` with its standard error over examples. It grows with N: compare at one N.

    >>> x = torch.cat([torch.randn(50, 3) + 9, torch.randn(50, 3) - 9])
    >>> print(knn_estimate(x, torch.arange(100) // 50))
    100 ± 0 % (at n = 100, 20 nearest neighbours by cosine)
    """
    hits = 100 * knn_hits(features, labels, neighbours, temperature).double()
    method = f"{min(neighbours, len(hits) - 1)} nearest neighbours by cosine"
    return replace(mean_estimate(hits, "%", method), target=SAMPLE_SIZE)


def check_labelled(values: Tensor, labels: Tensor, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values (N, d) in float64, the labels (N,) and the two or more classes that occur."""
    x = torch.as_tensor(values).detach().double().cpu().numpy()
    y = torch.as_tensor(labels).detach().cpu().numpy()
    if x.ndim != 2 or y.shape != (len(x),):
        raise UsageError(f"{name} has shape {x.shape} and labels {y.shape}; pass (N, d) and (N,)")
    if not np.isfinite(x).all():
        raise UsageError(f"{name} has values that are NaN or infinite; remove them")
    classes = np.unique(y)
    if len(classes) < 2:
        raise UsageError(f"labels has {len(classes)} class(es); pass two or more")
    return x, y, classes
