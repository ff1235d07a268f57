"""What a reproduction has found so far, and intervals over its seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student

from waterbed_paper.graph import Graph
from waterbed_paper.nodes import of
from waterbed_paper.scale import Network, Scale, Source

Value = Callable[[Network], float | None]
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
        beside: shown for comparison; the claim is not judged by it.
    """

    label: str
    value: float
    ends: Ends
    n: int
    over: str = "seed"
    beside: bool = False

    @property
    def low(self) -> float:
        """Of the 95 % interval."""
        return self.ends(LEVEL)[0]

    @property
    def high(self) -> float:
        """Of the 95 % interval."""
        return self.ends(LEVEL)[1]

    @property
    def alone(self) -> bool:
        """Whether it has no interval because it is of one seed (or, over images and targets, of one seed's)."""
        return math.isnan(self.low) and (self.n < 2 or self.over != "seed")

    def minus(self, number: float) -> Evidence:
        """The same about the quantity less a number."""
        ends = self.ends
        return replace(self, value=self.value - number, ends=lambda level: tuple(end - number for end in ends(level)))


def no_interval(level: float) -> tuple[float, float]:
    """The ends where there is none."""
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


class Found:
    """Results of a graph by what they are about; None for what was not run."""

    def __init__(self, scale: Scale, graph: Graph) -> None:
        self.scale, self.graph = scale, graph

    def of(self, kind: str, network: Network, *rest: str) -> dict[str, Any] | None:
        """One network's result."""
        id = of(kind, network, *rest)
        return self.graph.result(id) if id in self.graph.nodes else None

    def reader(self, kind: str, read: Callable[[dict[str, Any]], Any], *rest: str) -> Value:
        """A number of a kind of result, for any network."""

        def value(network: Network) -> float | None:
            result = self.of(kind, network, *rest)
            return None if result is None else read(result)

        return value

    def measure(self, name: str) -> Value:
        """The value of a measure."""
        return self.reader("measures", lambda r: r[name]["value"])

    def accuracy(self, target: str, mode: str) -> Value:
        """Test accuracy [%] after fine-tuning."""
        return self.reader("transfer", lambda r: r["accuracy"], target, f"mode-{mode}")

    def pairs(self, source: Source, value: Value, eps: float | None = None) -> Pairs:
        """Seed -> (standard, robust), of the seeds that have both; robust at that eps, else at that of the tables."""
        kinds, found = (("standard", 0.0), ("adversarial", source.robust if eps is None else eps)), {}
        for seed in range(source.seeds_at(0.0)):
            both = [value(Network(source.name, kind, eps, seed)) for kind, eps in kinds]
            if all(v is not None for v in both):
                found[seed] = (both[0], both[1])
        return found

    def difference(self, label: str, source: Source, value: Value, robust_less_standard: bool = True) -> list[Evidence]:
        """Robust less standard, or the other way round, paired by seed; nothing where nothing was run."""
        sign = 1 if robust_less_standard else -1
        values = [sign * (robust - standard) for standard, robust in self.pairs(source, value).values()]
        return [over_seeds(f"{source.name}: {label}", values)] if values else []

    def by_eps(self, source: Source, value: Value, seed: int) -> dict[float, float]:
        """eps -> value of the adversarially trained networks (0: standard) of one seed."""
        found = {}
        for eps in source.eps:
            if seed < source.seeds_at(eps):
                got = value(Network(source.name, "adversarial" if eps > 0 else "standard", eps, seed))
                if got is not None:
                    found[eps] = got
        return found

    def steps(
        self,
        label: str,
        source: Source,
        value: Value,
        sign: float = 1.0,
        among: Callable[[float], bool] = lambda eps: True,
    ) -> list[Evidence]:
        """Value at each eps less that at the one before, paired by seed, for the eps that all seeds with two or more
        share; and for the finer steps that only some seeds have."""
        points = []
        for seed in range(max(source.seeds.values())):
            found = {e: v for e, v in self.by_eps(source, value, seed).items() if among(e)}
            if len(found) > 1:
                points.append(found)
        if not points:
            return []
        shared = sorted(set.intersection(*(set(p) for p in points)))
        finest = sorted(max(points, key=len))
        steps = list(dict.fromkeys([*pairwise(shared), *pairwise(finest)]))
        return [
            over_seeds(
                f"{source.name}: {label}, from eps {a:g} to {b:g}",
                [sign * (p[b] - p[a]) for p in points if a in p and b in p],
            )
            for a, b in steps
        ]

    def targets(self, source: Source) -> list[str]:
        """The targets of the source."""
        return [t for t in self.scale.transfers.targets if t != source.data]

    def gaps(self, source: Source, target: str, mode: str, eps: float | None = None) -> dict[int, float]:
        """Seed -> accuracy [points] of the robust backbone less that of the standard one."""
        pairs = self.pairs(source, self.accuracy(target, mode), eps)
        return {seed: robust - standard for seed, (standard, robust) in pairs.items()}


Pairs = dict[int, tuple[float, float]]


def shared_seeds(results: Sequence[Mapping[int, Any]]) -> list[int]:
    """The seeds that all of several results have."""
    return sorted(set.intersection(*(set(r) for r in results))) if results else []
