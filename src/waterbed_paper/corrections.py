"""Verdicts corrected for the number of claims: of many true claims chance contradicts some, and of many false ones it
supports some."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from scipy.stats import false_discovery_control

from waterbed_paper.evidence import LEVEL, Evidence
from waterbed_paper.verdicts import Judged

METHODS = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}


def p_value(e: Evidence, mark: float, above: bool) -> float:
    """1 less the highest level at which the interval of a piece of evidence lies above (or below) the mark; 1 without
    an interval.

    >>> from waterbed_paper.evidence import over_seeds
    >>> round(p_value(over_seeds("", [1.0, 2.0, 3.0]), 0.0, above=True), 4)  # t = 3.46, two degrees of freedom
    0.0742
    >>> p_value(over_seeds("", [1.0, 2.0, 3.0]), 0.0, above=False)
    1.0
    """

    def beyond(level: float) -> bool:
        low, high = e.ends(level)
        return low > mark if above else high < mark

    if math.isnan(e.low) or not beyond(1e-9):
        return 1.0
    lowest, highest = 0.0, 36.0  # of -log of 1 - level, up to the last level below 1 that a float has
    while highest - lowest > 1e-6:
        middle = (lowest + highest) / 2
        lowest, highest = (middle, highest) if beyond(-math.expm1(-middle)) else (lowest, middle)
    return math.exp(-lowest)


def claim_p_value(judged: Judged) -> float:
    """Of the verdict on a claim, whichever way it goes.

    To hold, all that decides must lie above the mark: the largest of its p-values. To fail, one of m must lie below: m
    times the smallest, of those that can contradict.
    """
    mark = judged.claim.holds_above
    deciding = [e for e, counts in zip(judged.evidence, judged.counted, strict=True) if counts]
    if not deciding:
        return 1.0
    holds = max(p_value(e, mark, above=True) for e in deciding)
    fails = min((p_value(e, mark, above=False) for e in deciding if not e.weak), default=1.0)
    return min(holds, len(deciding) * fails, 1.0)


def adjusted(p_values: Sequence[float], method: str) -> list[float]:
    """p-values corrected for their number, in their order.

    Args:
        method: "holm": the chance of a single wrong verdict among all, however the claims depend on each other;
            "benjamini-hochberg": the share of wrong ones among the verdicts, for claims that do not oppose each other.

    >>> [round(p, 3) for p in adjusted([0.01, 0.04, 0.03], "holm")]
    [0.03, 0.06, 0.06]
    >>> [round(p, 3) for p in adjusted([0.01, 0.04, 0.03], "benjamini-hochberg")]
    [0.03, 0.04, 0.04]
    """
    if method == "benjamini-hochberg":
        return [float(p) for p in false_discovery_control(p_values)] if p_values else []
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    largest, result = 0.0, [1.0] * len(p_values)
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        result[i] = largest
    return result


def corrected_counts(judged: Sequence[Judged]) -> dict[str, Counter[str]]:
    """Method -> how many claims have each verdict after it; what it leaves out keeps its own."""
    corrected = corrected_verdicts(judged)
    return {
        method: Counter(corrected[j.claim.id][method][1] if j.claim.id in corrected else j.verdict for j in judged)
        for method in METHODS
    }


def corrected_verdicts(judged: Sequence[Judged]) -> dict[str, dict[str, tuple[float, str]]]:
    """Claim -> method -> its corrected p-value and verdict, of all claims with evidence that could have failed.

    What follows from the definitions is left out: it cannot be wrong by chance, and would only soften the correction.
    """
    family = [j for j in judged if j.evidence and not j.claim.identity]
    raw = [claim_p_value(j) for j in family]
    by_method = {method: adjusted(raw, method) for method in METHODS}
    return {
        j.claim.id: {
            method: (values[i], j.verdict if values[i] <= 1 - LEVEL else "undecided")
            for method, values in by_method.items()
        }
        for i, j in enumerate(family)
    }
