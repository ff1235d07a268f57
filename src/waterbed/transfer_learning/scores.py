"""Scores that predict how well a backbone transfers from its outputs on the target, without training."""

from __future__ import annotations

import numpy as np
from sklearn.covariance import LedoitWolf
from torch import Tensor

from waterbed.errors import UsageError, check_count
from waterbed.information.neighbours import check_labelled


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
        UsageError: shapes that do not match, values that are not finite, one class.

    >>> import torch
    >>> x = torch.randn(100, 4)
    >>> y = (x[:, 0] > 0).long()
    >>> logme(x, y) > logme(torch.randn(100, 4), y)
    True
    """
    check_count("max_iterations", max_iterations)
    x, y, classes = check_labelled(features, labels, "features")
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


def h_score(features: Tensor, labels: Tensor) -> float:
    """tr(cov(f)^-1 cov(E[f | y])): how much of the features' variance lies between the classes; higher is better.

    Bao et al. (2019), "An information-theoretic approach to transferability in task transfer learning", with the
    Ledoit-Wolf shrinkage estimate of the features' covariance (scikit-learn), since the sample covariance cannot be
    inverted when d approaches N (Ibrahim et al. 2022). At most the number of classes minus one.

    Args:
        features: (N, d); labels: (N,).

    >>> import torch
    >>> x = torch.cat([torch.randn(50, 3), torch.randn(50, 3) + 9])
    >>> h_score(x, torch.arange(100) // 50) > h_score(x, torch.arange(100) % 2)
    True
    """
    x, y, classes = check_labelled(features, labels, "features")
    x = x - x.mean(0)
    means = np.stack([x[y == c].mean(0) for c in classes])
    weights = np.array([(y == c).mean() for c in classes])
    between = (means * weights[:, None]).T @ means
    covariance = LedoitWolf(assume_centered=True).fit(x).covariance_
    return float(np.trace(np.linalg.lstsq(covariance, between, rcond=None)[0]))


def leep(probabilities: Tensor, labels: Tensor) -> float:
    """Mean log-likelihood, in nats, of the labels by the source classifier's classes; higher is better, at most 0.

    Nguyen et al. (2020), "LEEP: a new measure to evaluate transferability": with theta(x) the probabilities (N, Z) of
    the source network's own classes, p(y | x) = sum_z p(y | z) theta_z(x), p(y | z) from their joint counts.

    >>> import torch
    >>> p = torch.eye(3)[torch.arange(90) % 3]
    >>> round(leep(p, torch.arange(90) % 3), 6)
    0.0
    """
    p, y, classes = check_labelled(probabilities, labels, "probabilities")
    if (p < 0).any() or not np.allclose(p.sum(1), 1, atol=1e-3):
        raise UsageError("probabilities has rows that are not distributions; pass the softmax of the source's logits")
    joint = np.stack([p[y == c].sum(0) for c in classes])  # (classes, Z), N times the joint distribution
    given = joint / np.maximum(joint.sum(0), 1e-300)
    expected = p @ given.T
    index = np.searchsorted(classes, y)
    return float(np.log(np.maximum(expected[np.arange(len(y)), index], 1e-300)).mean())
