"""Distance between tasks: the earth mover's distance between class means (sec. 5, after Cui et al. 2018)."""

from __future__ import annotations

import numpy as np
import ot
import torch
from torch import Tensor

from waterbed.errors import UsageError, check_count


def class_emd(
    features_a: Tensor, labels_a: Tensor, features_b: Tensor, labels_b: Tensor, min_source_count: int = 0
) -> float:
    """Earth mover's distance between two labelled sets of features, in units of the features.

    Each class is its mean feature with weight n_c / N; the ground distance is Euclidean, not squared and not
    normalised; solved exactly in float64. It is symmetric, while accuracy gaps between tasks are not; it scales with
    the features, so only distances by one extractor compare; two halves of one data set are not at 0.

    Args:
        features_a, labels_a: (N, d) and (N,) of the source, from one fixed extractor and the training set.
        features_b, labels_b: the same of the target.
        min_source_count: drop source classes with fewer images (Cui et al. use 200).

    Raises:
        UsageError: shapes that do not belong together, values that are not finite, no class left.

    >>> a, y = torch.randn(20, 3), torch.arange(20) % 2
    >>> round(class_emd(a, y, a + torch.tensor([3.0, 4.0, 0.0]), y), 5)
    5.0
    """
    check_count("min_source_count", min_source_count, at_least=0)
    means_a, weights_a = _class_means(features_a, labels_a, "features_a", min_source_count)
    means_b, weights_b = _class_means(features_b, labels_b, "features_b", 0)
    if means_a.shape[1] != means_b.shape[1]:
        raise UsageError(
            f"features_a has {means_a.shape[1]} features and features_b {means_b.shape[1]}; use one extractor for both"
        )
    cost = np.linalg.norm(means_a[:, None] - means_b[None], axis=2)
    return float(ot.emd2(weights_a, weights_b, cost))


def _class_means(features: Tensor, labels: Tensor, name: str, least: int) -> tuple[np.ndarray, np.ndarray]:
    x = torch.as_tensor(features).detach().double().cpu().numpy()
    y = torch.as_tensor(labels).detach().cpu().numpy()
    if x.ndim != 2 or y.shape != (len(x),) or len(x) == 0:
        raise UsageError(f"{name} has shape {x.shape} and its labels {y.shape}; pass (N, d) and (N,), N >= 1")
    if not np.isfinite(x).all():
        raise UsageError(f"{name} has values that are NaN or infinite; remove them")
    classes, counts = np.unique(y, return_counts=True)
    kept = counts >= least
    if not kept.any():
        raise UsageError(f"min_source_count={least} leaves no class of {name}; the largest has {counts.max()} images")
    means = np.stack([x[y == c].mean(0) for c in classes[kept]])
    return means, counts[kept] / counts[kept].sum()
