"""Information in the weights, KL(Q* || P) of eq. 6, over information levels and prior variances from one spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from waterbed.errors import UsageError, check_choice, check_number
from waterbed.information.estimate import Estimate
from waterbed.information.left_out import LogAndRatio
from waterbed.information.operators import Operator
from waterbed.information.spectrum import (
    choose,
    diagonal_sum,
    estimate_of,
    gram_eigenpairs,
    gram_sum,
    spectral_sum,
)
from waterbed.plots import curves_with_intervals
from waterbed.tables import html_table

Point = tuple[float, float]


class InformationCurve(dict[Point, Estimate]):
    """(beta, prior variance) -> KL(Q* || P) in nats: a dict that is shown as a table and draws itself."""

    def __repr__(self) -> str:
        return "\n".join(f"beta {b:g}, prior variance {v:g}: {e}" for (b, v), e in self.items())

    def plot(self) -> Figure:
        """A line over beta for each prior variance, with 95 % intervals."""
        lines: dict[str, list[tuple[float, float, float, float]]] = {}
        for (beta, variance), e in self.items():
            low, high = e.interval() if e.stderr == e.stderr else (e.value, e.value)
            lines.setdefault(f"prior variance {variance:g}", []).append((beta, e.value, low, high))
        figure = curves_with_intervals(lines, "beta", "information in the weights [nats]", log=True)
        figure.axes[0].set_xscale("log")
        return figure

    def _repr_html_(self) -> str:
        rows = [(f"{b:g}", f"{v:g}", e.short(), e.n, e.method) for (b, v), e in self.items()]
        return html_table(["beta", "prior variance", "nats ± standard error", "n", "method"], rows, "Information")


def information_curve(
    operator: Operator,
    squared_norm: float,
    betas: Sequence[float],
    prior_variances: Sequence[float],
    convention: str = "exact",
    method: str = "auto",
    seed: int = 0,
) -> InformationCurve:
    """KL(Q* || P) at every beta and prior variance, with the operator for the Hessian.

    Q*, P and the formula are those of :meth:`waterbed.WeightFisher.information`. The Gram matrix, or the diagonal, is
    computed once for all points; Lanczos runs for each.

    Args:
        operator: (k, k), anything with shape and ``@``.
        squared_norm: |w|^2 of the weights it belongs to.
        betas, prior_variances: each with each.
        convention: "exact" or "paper".
        method: of :func:`waterbed.logdet`; "diagonal" is the KL of the best Q with independent weights, from the
            diagonal of the operator alone.
        seed: of Lanczos's probes.

    Raises:
        UsageError: no beta or prior variance, one that is not positive, an unknown convention or method.

    >>> F = torch.diag(torch.tensor([3.0, 0.0]))
    >>> curve = information_curve(F, squared_norm=2.0, betas=[1e-2, 1e-1], prior_variances=[1.0])
    >>> curve[0.1, 1.0].value < curve[0.01, 1.0].value  # a smaller beta pays more for the weights
    True
    """
    for name, values in (("beta", betas), ("prior_variance", prior_variances)):
        if len(values) == 0:
            raise UsageError(f"{name}s is empty; pass one or more")
        for value in values:
            check_number(name, value, above=0)
    check_choice("convention", convention, ("exact", "paper"))
    chosen = method if method == "diagonal" else choose(operator, method, also=("diagonal",))
    pairs = gram_eigenpairs(operator) if chosen == "gram" else None
    curve = InformationCurve()
    for beta in betas:
        for prior_variance in prior_variances:
            scale = prior_variance / (beta if convention == "exact" else beta / 2)

            def kl(values: Tensor, scale: float = scale) -> Tensor:
                s = scale * values
                return 0.5 * (torch.log1p(s) - s / (1 + s))

            terms = LogAndRatio(1 / scale, log=0.5, ratio=-0.5)
            if pairs is not None:
                result = gram_sum(kl, terms, *pairs, operator.num_examples)
            elif chosen == "diagonal":
                result = diagonal_sum(operator, kl, "diagonal, independent weights")
            else:
                result = spectral_sum(operator, kl, terms, chosen, seed=seed)
            total = result.value + squared_norm / (2 * prior_variance)
            what = f"KL, {convention} convention, {result.method}"
            curve[beta, prior_variance] = estimate_of(operator, total, result, what, seed)
    return curve


def information(
    operator: Operator,
    squared_norm: float,
    beta: float,
    prior_variance: float,
    convention: str = "exact",
    method: str = "auto",
    seed: int = 0,
) -> Estimate:
    """One point of :func:`information_curve`."""
    curve = information_curve(operator, squared_norm, [beta], [prior_variance], convention, method, seed)
    return curve[beta, prior_variance]
