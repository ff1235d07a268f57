"""Draws of the weights from the Gaussian of eq. 6, whose precision is a Fisher matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from waterbed.devices import seeded_generator
from waterbed.errors import check_choice, check_count, check_number
from waterbed.information.operators import GramOperator, Operator, check_operator, dense, device_of_operator
from waterbed.information.spectrum import choose, diagonal_of, not_negative


def sample(
    operator: Operator, beta: float, prior_variance: float, num_samples: int = 1, seed: int = 0, method: str = "exact"
) -> Tensor:
    """Draws (num_samples, k) from N(0, Sigma*), Sigma* = beta (A + (beta / prior_variance) I)^-1, float64.

    "exact" goes through the Gram dual (Woodbury) where the operator has one, else through the dense matrix (k up to
    4096); "diagonal" keeps the diagonal of A.
    """
    check_number("beta", beta, above=0)
    check_number("prior_variance", prior_variance, above=0)
    check_count("num_samples", num_samples)
    check_choice("method", method, ("exact", "diagonal"))
    size, device = check_operator(operator), device_of_operator(operator)
    generator = seeded_generator(seed)
    damping = beta / prior_variance
    second = torch.randn(size, num_samples, generator=generator, dtype=torch.float64).to(device)
    if method == "diagonal":
        return (second * (beta / (diagonal_of(operator) + damping)).sqrt()[:, None]).T
    if not isinstance(operator, GramOperator):
        values, vectors = torch.linalg.eigh(dense(operator))
        return (vectors @ ((beta / (not_negative(values) + damping)).sqrt()[:, None] * second)).T
    choose(operator, "gram")
    first = torch.randn(operator.num_rows, num_samples, generator=generator, dtype=torch.float64).to(device)
    g = operator.gram()
    rhs = math.sqrt(beta) * (operator.combine(first) + math.sqrt(damping) * second)
    projected = math.sqrt(beta) * (g @ first + math.sqrt(damping) * operator.project(second))
    solved = torch.linalg.solve(g + damping * torch.eye(len(g), dtype=g.dtype, device=device), projected)
    return ((rhs - operator.combine(solved)) / damping).T
