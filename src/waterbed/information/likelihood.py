"""The softmax likelihood: roots of its Fisher matrix, on which every exact measure here rests."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax_root(logits: Tensor) -> Tensor:
    """R (N, K, K - 1) with R R^T = diag(p) - p p^T, the Fisher matrix of the label about the logits (N, K).

    That matrix has rank K - 1. R = diag(s) Q, s = sqrt p, Q an orthonormal basis of the complement of s: the
    reflection that takes s to -e_1, without its first column. It divides by nothing small, so saturated softmaxes are
    no special case.

    >>> p = torch.tensor([[0.25, 0.75]])
    >>> r = softmax_root(p.log())
    >>> torch.allclose(r @ r.mT, torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    True
    """
    s = F.softmax(logits.detach(), dim=1).sqrt()
    normal = torch.cat([s[:, :1] + 1, s[:, 1:]], dim=1)
    identity = torch.eye(s.shape[1], dtype=s.dtype, device=s.device)[:, 1:]
    return s[:, :, None] * (identity - normal[:, :, None] * (s[:, 1:] / (1 + s[:, :1]))[:, None, :])


def label_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradients of log p(y|x) with respect to the logits: e_y - p, for labels (N, m), as (N, K, m)."""
    p = F.softmax(logits.detach(), dim=1)
    return F.one_hot(labels, logits.shape[1]).mT.to(p.dtype) - p[:, :, None]


def sample_labels(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Labels (N, m) drawn from softmax(logits) by inverting its distribution function at ``uniforms`` (N, m).

    The uniforms belong to the examples, so the draw does not depend on how examples are batched.
    """
    cumulative = F.softmax(logits.detach().double(), dim=1).cumsum(1)
    labels = torch.searchsorted(cumulative, uniforms.double() * cumulative[:, -1:], right=True)
    return labels.clamp_max(logits.shape[1] - 1)
