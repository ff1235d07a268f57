"""Sums over the spectrum of a Fisher matrix without each of its examples, from the Gram matrix of all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogAndRatio:
    """f(s) = log * log(1 + s / c) + ratio * s / (s + c), c the ``damping``: log-determinant and information."""

    damping: float
    log: float = 0.0
    ratio: float = 0.0

    def sums_left_out(self, values: Tensor, vectors: Tensor, n: int) -> Tensor:
        """sum_i f(lambda_i) of the mean over the other n - 1 examples, for each example, (n,); nan for n = 1.

        Args:
            values, vectors: eigenpairs of the Gram matrix U U^T of A = U^T U, (N m,) and (N m, N m).

        A without the example of rows u (m, k) is A' = n / (n - 1) (A - u^T u), whose s / c are those of A - u^T u at
        c' = c (n - 1) / n. With B = u (A + c' I)^-1 u^T and C = u (A + c' I)^-2 u^T (Woodbury),

            log det(A - u^T u + c' I) = log det(A + c' I) + log det(I - B),
            tr (A - u^T u + c' I)^-1  = tr (A + c' I)^-1 + tr (I - B)^-1 C.

        >>> u = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
        >>> values, vectors = torch.linalg.eigh(u @ u.T / 2)
        >>> [round(float(v.exp()), 6) for v in LogAndRatio(damping=1.0, log=1.0).sums_left_out(values, vectors, 2)]
        [5.0, 2.0]
        """
        if n == 1:
            return values.new_full((1,), math.nan)
        c = self.damping * (n - 1) / n
        rows = vectors.reshape(n, -1, len(values))
        remaining = (rows * (c / (values + c))) @ rows.mT  # I - B, without the cancellation of a difference
        total = self.log * (torch.log1p(values / c).sum() + torch.linalg.slogdet(remaining).logabsdet)
        if self.ratio:
            squared = (rows * (values / (values + c).square())) @ rows.mT
            change = torch.linalg.solve(remaining, squared).diagonal(dim1=1, dim2=2).sum(1)
            total = total + self.ratio * ((values / (values + c)).sum() - c * change)
        return total
