"""Scores that predict how well a backbone transfers, from its features on the target alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from waterbed.errors import UsageError, check_count


def logme(features: Tensor, labels: Tensor, max_iterations: int = 500) -> float:
    """Logarithm of the maximum evidence of a Bayesian linear model from features to labels, in nats an example.

    You, Liu, Wang and Long (2021), "LogME: practical assessment of pre-trained models for transfer learning": for each
    class, y = F w + noise with w ~ N(0, I / alpha) and noise N(0, 1 / beta), the evidence at its maximum over alpha and
    beta; the mean over classes, divided by N. Higher is better; compare backbones on one target.

    Args:
        features: (N, d) of the target's training images.
        labels: (N,), at least two classes.
        max_iterations: of the fixed point for alpha and beta.

    Raises:
        UsageError: shapes that do not belong together, values that are not finite, one class.

    >>> x = torch.randn(100, 4)
    >>> y = (x[:, 0] > 0).long()
    >>> logme(x, y) > logme(torch.randn(100, 4), y)
    True
    """
    check_count("max_iterations", max_iterations)
    x = torch.as_tensor(features).detach().double().cpu().numpy()
    y = torch.as_tensor(labels).detach().cpu().numpy()
    if x.ndim != 2 or y.shape != (len(x),):
        raise UsageError(f"features has shape {x.shape} and labels {y.shape}; pass (N, d) and (N,)")
    if not np.isfinite(x).all():
        raise UsageError("features has values that are NaN or infinite; remove them")
    classes = np.unique(y)
    if len(classes) < 2:
        raise UsageError(f"labels has {len(classes)} class(es); LogME needs two or more")
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    evidence = [_evidence(u, s**2, (y == c).astype(float), x.shape, max_iterations) for c in classes]
    return float(np.mean(evidence))


def _evidence(
    u: np.ndarray, sigma: np.ndarray, target: np.ndarray, shape: tuple[int, int], max_iterations: int
) -> float:
    """Largest log evidence of one target over alpha and beta, divided by N; sigma are the eigenvalues of F^T F."""
    n, d = shape
    along = (u.T @ target) ** 2  # squared components of the target in the span of the features
    beyond = max(float(target @ target - along.sum()), 0.0)
    alpha = beta = 1.0
    for _ in range(max_iterations):
        damped = alpha + beta * sigma
        gamma = float((beta * sigma / damped).sum())
        weight = float((beta**2 * sigma * along / damped**2).sum())  # |m|^2 of the posterior mean
        residual = float(((alpha / damped) ** 2 * along).sum()) + beyond
        new_alpha, new_beta = gamma / max(weight, 1e-300), (n - gamma) / max(residual, 1e-300)
        done = abs(new_alpha - alpha) <= 1e-9 * alpha and abs(new_beta - beta) <= 1e-9 * beta
        alpha, beta = min(new_alpha, 1e12), min(new_beta, 1e12)
        if done:
            break
    damped = alpha + beta * sigma
    weight = float((beta**2 * sigma * along / damped**2).sum())
    residual = float(((alpha / damped) ** 2 * along).sum()) + beyond
    value = d / 2 * np.log(alpha) + n / 2 * np.log(beta) - n / 2 * np.log(2 * np.pi)
    value -= beta / 2 * residual + alpha / 2 * weight
    value -= 0.5 * (np.log(damped).sum() + (d - len(sigma)) * np.log(alpha))
    return value / n
