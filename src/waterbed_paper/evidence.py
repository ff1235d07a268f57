"""A piece of evidence on a claim: its quantity with an interval over seeds, images, starts or targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student

Ends = Callable[[float], tuple[float, float]]
LEVEL = 0.95


@dataclass(frozen=True)
class Evidence:
    """A claim's quantity with its intervals.

    Attributes:
        label: which networks, task or mode.
        value: the mean.
        ends: level, such as 0.95, -> the interval's ends; nan where there is none (one seed, or all the same).
        n: how many seeds (or what ``over`` says).
        over: "seed", "image", "start" or "target": what the interval is over.
        beside: on the page for comparison; the claim is not judged by it.
        weak: it can support the claim, but is too small an example to contradict it: below the mark it is undecided.
        note: the same in plain numbers, such as a ratio, or what it could not have seen.
    """

    label: str
    value: float
    ends: Ends
    n: int
    over: str = "seed"
    beside: bool = False
    weak: bool = False
    note: str = ""

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval."""
        return self.ends(LEVEL)[0]

    @property
    def high(self) -> float:
        """The upper end of the 95 % interval."""
        return self.ends(LEVEL)[1]

    @property
    def alone(self) -> bool:
        """Whether it has no interval because it is of one seed (or, over images and targets, of one seed's)."""
        return math.isnan(self.low) and (self.n < 2 or self.over != "seed")

    def minus(self, number: float) -> Evidence:
        """The same evidence with a number subtracted from the quantity."""
        ends = self.ends
        return replace(self, value=self.value - number, ends=lambda level: tuple(end - number for end in ends(level)))


def no_interval(level: float) -> tuple[float, float]:
    """The ends of an interval that does not exist: nan."""
    return math.nan, math.nan


def _around(value: float, half: Callable[[float], float]) -> Ends:
    """Ends at the same distance on both sides, that of a quantile's probability."""
    return lambda level: (value - half((1 + level) / 2), value + half((1 + level) / 2))


def over_seeds(label: str, values: Sequence[float], over: str = "seed", beside: bool = False) -> Evidence:
    """Mean and 95 % t interval; none of one value, and none of seeds with equal values (shares of few images or
    epochs), which do not say how much another seed would differ.

    >>> e = over_seeds("gap", [1.0, 2.0, 3.0])
    >>> e.value, round(e.low, 2), round(e.high, 2)
    (2.0, -0.48, 4.48)
    >>> over_seeds("share", [1.0, 1.0, 1.0]).low
    nan
    """
    n, mean = len(values), float(np.mean(values))
    same = max(values) - min(values) <= 1e-9 * max(1.0, abs(mean))  # differences of equal shares are not equal floats
    if n < 2 or (over == "seed" and same):
        return Evidence(label, mean, no_interval, n, over, beside)
    error = float(np.std(values, ddof=1) / math.sqrt(n))
    return Evidence(label, mean, _around(mean, lambda p: float(student.ppf(p, n - 1)) * error), n, over, beside)


def unpaired(label: str, first: Sequence[float], second: Sequence[float], beside: bool = False) -> Evidence:
    """First less second, of networks that have nothing in common: Welch's 95 % t interval; none where either has one
    value, or neither varies.

    >>> e = unpaired("gap, there less back", [3.0, 4.0, 5.0], [0.0, 1.0, 2.0])
    >>> e.value, round(e.low, 2), e.n
    (3.0, 0.73, 3)
    """
    means, n = [float(np.mean(values)) for values in (first, second)], min(len(first), len(second))
    value = means[0] - means[1]
    squares = [
        float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else math.nan for values in (first, second)
    ]
    if n < 2 or sum(squares) <= (1e-9 * max(1.0, *map(abs, means))) ** 2:
        return Evidence(label, value, no_interval, n, beside=beside)
    parts = zip(squares, (first, second), strict=True)
    freedom = sum(squares) ** 2 / sum(square**2 / (len(values) - 1) for square, values in parts)
    error = math.sqrt(sum(squares))
    return Evidence(label, value, _around(value, lambda p: float(student.ppf(p, freedom)) * error), n, beside=beside)


def as_ratio(e: Evidence) -> Evidence:
    """The same evidence of a logarithm, with the ratio itself in the note.

    >>> as_ratio(over_seeds("log ratio", [0.1])).note
    'ratio 1.11'
    >>> as_ratio(over_seeds("log ratio", [0.0, 0.1, 0.2])).note
    'ratio 1.11, 0.862 to 1.42'
    """
    interval = "" if math.isnan(e.low) else f", {math.exp(e.low):.3g} to {math.exp(e.high):.3g}"
    return replace(e, note=f"ratio {math.exp(e.value):.3g}{interval}")


def power(n: int, correlation: float) -> float:
    """How often n targets would show a true correlation as above 0 at 97.5 %, by Fisher's approximation.

    >>> round(power(5, 0.7), 2), round(power(12, 0.7), 2)
    (0.23, 0.74)
    """
    if n <= 3:
        return 0.0
    return NormalDist().cdf(math.atanh(correlation) * math.sqrt(n - 3) - NormalDist().inv_cdf(0.975))


def best_of(
    candidates: Mapping[str, Sequence[float]], label: str, over: str = "seed", beside: bool = False
) -> Evidence:
    """The candidate of the largest mean, chosen afterwards: as k were tried, the lower end is that at 1 - 5 %/k.

    Args:
        candidates: name -> its values.
        label: with {} for the name of the best.

    >>> several = {"small": [1.0, 2.0, 3.0], "large": [0.0, 1.0, 2.0]}
    >>> e = best_of(several, "gain, {} noise")
    >>> e.label, e.value, round(e.low, 2), round(e.high, 2)
    ('gain, small noise', 2.0, -1.58, 4.48)
    """
    best = max(candidates, key=lambda name: float(np.mean(candidates[name])))
    e, k = over_seeds(label.format(best), candidates[best], over, beside), len(candidates)
    return replace(e, ends=lambda level: (e.ends(1 - (1 - level) / k)[0], e.ends(level)[1]))


def over_images(label: str, estimate: dict[str, Any], beside: bool = False) -> Evidence:
    """Mean and normal 95 % interval of an estimate."""
    value, error = estimate["value"], estimate["stderr"]
    ends = _around(value, lambda p: NormalDist().inv_cdf(p) * error)
    return Evidence(label, value, ends, estimate["n"], "image", beside)


def share_of_images(label: str, hits: int, n: int) -> Evidence:
    """A share with its Wilson interval, which has a width when all or none are hits.

    >>> e = share_of_images("all", 50, 50)
    >>> e.value, round(e.low, 3), e.high
    (1.0, 0.929, 1.0)
    """

    def wilson(level: float) -> tuple[float, float]:
        return tuple(map(float, binomtest(hits, n).proportion_ci(level, "wilson")))

    return Evidence(label, hits / n, wilson, n, "image")


def over_targets(label: str, correlation: float, n: int, p: tuple[float, float]) -> Evidence:
    """A correlation over n targets, with Fisher's 95 % interval (the whole of -1 to 1 for three or fewer), which
    reaches 0 unless permutations agree that it does not.

    Args:
        p: one-sided, that it is at least, or at most, as large by chance.

    >>> e = over_targets("r", 0.6, 5, (0.15, 0.9))
    >>> round(e.low, 2), round(e.high, 2)
    (-0.6, 0.97)
    >>> over_targets("r", 1.0, 4, (1 / 24, 1.0)).low
    0.0
    """
    middle = math.atanh(min(max(correlation, -1 + 1e-12), 1 - 1e-12))
    error = 1 / math.sqrt(n - 3) if n > 3 else math.inf
    around = _around(middle, lambda p: NormalDist().inv_cdf(p) * error)

    def ends(level: float) -> tuple[float, float]:
        low, high = map(math.tanh, around(level))
        chance = (1 - level) / 2
        return (low if p[0] <= chance else min(low, 0.0)), (high if p[1] <= chance else max(high, 0.0))

    return Evidence(label, correlation, ends, n, "target")


def exactly(label: str, value: float) -> Evidence:
    """A number without chance: an interval of no width.

    >>> e = exactly("digits", 6.7)
    >>> e.low, e.high, e.n
    (6.7, 6.7, 1)
    """
    return Evidence(label, value, lambda level: (value, value), 1)
