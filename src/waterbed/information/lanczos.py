"""Stochastic estimators for symmetric operators that are known only by their products."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from waterbed.devices import seeded_generator

Product = Callable[[Tensor], Tensor]  # (k,) -> (k,)


def lanczos(product: Product, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Diagonal and off-diagonal of the tridiagonal matrix of ``steps`` Lanczos iterations from a unit vector.

    Full reorthogonalisation, float64. Stops early on an invariant subspace.
    """
    basis = [start]
    diagonal, off = [], []
    for _ in range(min(steps, len(start))):
        w = product(basis[-1])
        diagonal.append(float(w @ basis[-1]))
        for _ in range(2):  # twice is enough (Kahan and Parlett)
            q = torch.stack(basis)
            w = w - q.T @ (q @ w)
        norm = float(w.norm())
        if norm <= 1e-12 * max(1.0, abs(diagonal[0])):
            break
        off.append(norm)
        basis.append(w / norm)
    return torch.tensor(diagonal, dtype=torch.float64), torch.tensor(off[: len(diagonal) - 1], dtype=torch.float64)


def trace_of_function(
    product: Product,
    size: int,
    function: Callable[[Tensor], Tensor],
    *,
    num_probes: int = 10,
    steps: int = 60,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[float, float]:
    """tr f(A) of a symmetric positive semidefinite A, by stochastic Lanczos quadrature.

    Ubaru, Chen and Saad (2017), "Fast estimation of tr f(A) via stochastic Lanczos quadrature".

    Args:
        product: A v for v (size,), float64.
        function: f, elementwise; f(0) = 0 makes null directions cost nothing.
        num_probes: Rademacher vectors, 2 or more.
        steps: Lanczos iterations for each.

    Returns:
        The estimate and its standard error over the probes.

    >>> value, error = trace_of_function(lambda v: 3 * v, 50, torch.log1p)
    >>> abs(value - 50 * math.log(4)) < 1e-8
    True
    """
    generator = seeded_generator(seed)
    values = []
    for _ in range(num_probes):
        probe = torch.randint(0, 2, (size,), generator=generator).to(device, torch.float64) * 2 - 1
        diagonal, off = lanczos(product, probe / math.sqrt(size), steps)
        matrix = torch.diag(diagonal) + torch.diag(off, 1) + torch.diag(off, -1)
        nodes, vectors = torch.linalg.eigh(matrix)
        values.append(size * float((vectors[0].square() * function(nodes.clamp_min(0))).sum()))
    draws = torch.tensor(values, dtype=torch.float64)
    return float(draws.mean()), float(draws.std()) / math.sqrt(num_probes)


def batched_lambda_max(product: Product, like: Tensor, steps: int = 30, seed: int = 0) -> Tensor:
    """Largest eigenvalue of one symmetric positive semidefinite operator for each example, (N,), float64, by
    Lanczos.

    Args:
        product: applies each example's own operator to a batch of the shape of ``like``.
        like: (N, ...): shape, device and dtype.
        steps: iterations, fully reorthogonalised.
    """
    n, size = len(like), like[0].numel()
    steps = min(steps, size)
    start = torch.randn(1, size, generator=seeded_generator(seed), dtype=torch.float64).to(like.device)
    q = (start / start.norm()).expand(n, size)
    basis, diagonal, off = [q], [], []
    for _ in range(steps):
        w = product(basis[-1].view_as(like)).double().flatten(1)
        diagonal.append((w * basis[-1]).sum(1))
        stacked = torch.stack(basis, dim=1)
        for _ in range(2):
            w = w - ((stacked @ w[:, :, None]) * stacked).sum(1)
        norm = w.norm(dim=1)
        # An exhausted example goes on with the zero vector, which adds zero rows to its tridiagonal matrix.
        alive = norm > 1e-9 * torch.stack(diagonal).amax(0).clamp_min(1e-300)
        norm = torch.where(alive, norm, 0.0)
        off.append(norm)
        basis.append(torch.where(alive[:, None], w / norm.clamp_min(1e-300)[:, None], 0.0))
    matrix = torch.diag_embed(torch.stack(diagonal, dim=1))
    side = torch.stack(off[: len(diagonal) - 1], dim=1) if len(diagonal) > 1 else matrix.new_zeros(n, 0)
    matrix = matrix + torch.diag_embed(side, 1) + torch.diag_embed(side, -1)
    return torch.linalg.eigvalsh(matrix)[:, -1]
