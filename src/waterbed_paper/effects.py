"""Effects with t tests: means over strata, a difference at equal values of a covariate, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True)
class Effect:
    """An estimate that is normal around its truth.

    Attributes:
        value: the estimate.
        error: its standard error; 0 or nan says nothing of its chance, and gives no interval.
        df: degrees of freedom of the error.
    """

    value: float
    error: float
    df: float

    @property
    def tested(self) -> bool:
        """Whether there is an error to test by."""
        return math.isfinite(self.error) and self.error > 0 and self.df > 0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The ends of the t interval; nan where there is none."""
        if not self.tested:
            return math.nan, math.nan
        half = float(student.ppf((1 + level) / 2, self.df)) * self.error
        return self.value - half, self.value + half

    def p(self, threshold: float = 0.0) -> float:
        """Two-sided p of the value being ``threshold``; 1 where it cannot be tested.

        >>> round(Effect(2.0, 1.0, 5).p(), 3), Effect(2.0, 0.0, 5).p()
        (0.102, 1.0)
        """
        if not self.tested:
            return 1.0
        return float(2 * student.sf(abs(self.value - threshold) / self.error, self.df))


def mean_over_strata(strata: Mapping[str, Sequence[float]]) -> Effect | None:
    """The mean of the strata's means, each of two values or more; None without strata.

    The error is of other values from the same strata, its degrees of freedom those of Welch and Satterthwaite.

    >>> e = mean_over_strata({"a": [1.0, 2.0, 3.0], "b": [5.0, 6.0, 7.0]})
    >>> e.value, round(e.error, 4), round(e.df, 6)
    (4.0, 0.4082, 4.0)
    """
    groups = [np.asarray(values, float) for values in strata.values() if len(values)]
    if not groups:
        return None
    value = float(np.mean([g.mean() for g in groups]))
    if any(len(g) < 2 for g in groups):
        return Effect(value, math.nan, 0.0)
    parts = [float(g.var(ddof=1)) / len(g) / len(groups) ** 2 for g in groups]
    total = sum(parts)
    if total <= 1e-18 * max(1.0, value**2):  # equal values, such as shares, do not say how far another would differ
        return Effect(value, 0.0, 0.0)
    df = total**2 / sum(part**2 / (len(g) - 1) for part, g in zip(parts, groups, strict=True))
    return Effect(value, math.sqrt(total), df)


def difference_at_equal(covariate: Sequence[float], group: Sequence[bool], outcome: Sequence[float]) -> Effect | None:
    """How much higher the outcome of the group is than that of the others at an equal value of the covariate.

    Ordinary least squares: outcome = a + b covariate + c group; the effect is c. None where c is not determined.

    >>> e = difference_at_equal([1, 2, 3, 4, 5], [True, True, True, False, False], [4.1, 5.0, 5.9, 5.1, 5.9])
    >>> round(e.value, 3), e.df
    (1.7, 2)
    """
    x = np.column_stack([np.ones(len(outcome)), np.asarray(covariate, float), np.asarray(group, float)])
    y = np.asarray(outcome, float)
    df = len(y) - x.shape[1]
    if df < 1 or np.linalg.matrix_rank(x) < x.shape[1]:
        return None
    inverse = np.linalg.inv(x.T @ x)
    fitted = inverse @ x.T @ y
    variance = float(np.square(y - x @ fitted).sum()) / df
    return Effect(float(fitted[2]), math.sqrt(variance * inverse[2, 2]), df)


def holm(p: Sequence[float], tests: int | None = None) -> list[float]:
    """p values adjusted for their number (Holm 1979, A simple sequentially rejective multiple test procedure).

    Args:
        p: of the tests that were made.
        tests: how many were planned; those that were not made count as p = 1.

    >>> holm([0.01, 0.04, 0.03]), holm([0.01], tests=5)
    ([0.03, 0.06, 0.06], [0.05])
    """
    count = len(p) if tests is None else tests
    adjusted, highest = [1.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (count - rank) * p[i]))
        adjusted[i] = highest
    return adjusted
