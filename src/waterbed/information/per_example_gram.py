"""Inner products of weight gradients, R diag(v) R^T of each example, without holding the rows R."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from waterbed.information.per_example import Directions, WeightRows, named_rows, positions

BLOCK = 2**15  # weights whose rows are held in float64 at once


def weighted_gram(rows: WeightRows, x: Tensor, directions: Directions, variance: dict[str, Tensor]) -> Tensor:
    """sum_k R_ak v_k R_bk of each example, (n, m, m) float64, over all weights k of ``rows``.

    For each example, R has one row per output direction a: the gradient along it. For a layer y_op = sum_i w_oi x_ip
    with few positions p the rows are never formed: sum_oi v_oi (sum_p g_aop x_ip) (sum_q g_boq x_iq) goes through
    K_opq = sum_i v_oi x_ip x_iq, which costs less as soon as there are fewer positions than inputs and rows.

    Args:
        rows: of the model.
        x: (n, ...).
        directions: V (n, K, m) from the outputs (n, K).
        variance: by name, of each weight's shape: the v_k.
    """
    total: Tensor | float = 0.0
    if rows.method == "vmap":
        for name, value in rows(x, directions):
            total = total + _of_rows(value, variance[name])
        return total
    for module, own, calls in rows.taped(x, directions):
        left = dict(own)
        if "weight" in own and len(calls) == 1 and _by_positions(module, calls[0]):
            total = total + _of_positions(module, calls[0], variance[left.pop("weight")])
        if left:
            for name, value in named_rows(module, left, calls).items():
                total = total + _of_rows(value, variance[name])
    return total


def _of_rows(rows: Tensor, variance: Tensor) -> Tensor:
    """R diag(v) R^T for rows (n, m, *shape)."""
    rows, root = rows.flatten(2), variance.double().flatten().sqrt()
    total = torch.zeros(len(rows), rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for part, scale in zip(rows.split(BLOCK, 2), root.split(BLOCK), strict=True):
        scaled = part.double() * scale
        total.baddbmm_(scaled, scaled.mT)
    return total


def _by_positions(module: nn.Module, call: tuple[Tensor, tuple[Tensor, ...]]) -> bool:
    """Whether K_opq costs fewer multiplications than the rows."""
    if not isinstance(module, (nn.Linear, nn.Conv2d)) or getattr(module, "groups", 1) > 1:
        return False
    m, count = len(call[1]), call[1][0][0].numel() // len(module.weight)
    inputs = module.weight[0].numel()
    return count * count * inputs + m * count * count + m * m * count < m * count * inputs + m * m * inputs


def _of_positions(module: nn.Module, call: tuple[Tensor, tuple[Tensor, ...]], variance: Tensor) -> Tensor:
    """R diag(v) R^T of a layer's weight by K_opq, one example at a time."""
    grams = []
    for one in range(len(call[0])):
        a, g = positions(module, call[0][one : one + 1], torch.stack([g[one : one + 1] for g in call[1]], dim=1))
        a, g = a[0].double(), g[0].double().transpose(0, 1)  # (I, P), (O, m, P)
        scaled = variance.double().flatten(1)[:, None, :] * a.mT  # (O, P, I)
        across = g @ (scaled @ a)  # (O, m, P)
        grams.append(across.transpose(0, 1).flatten(1) @ g.transpose(0, 1).flatten(1).mT)
    return torch.stack(grams)
