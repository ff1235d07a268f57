"""p-values of claims, and verdicts corrected for how many there are."""

import math
from dataclasses import replace

import pytest
from scipy.stats import t as student
from scipy.stats import ttest_ind

from waterbed_paper.corrections import METHODS, adjusted, claim_p_value, corrected_counts, corrected_verdicts, p_value
from waterbed_paper.evidence import best_of, exactly, over_seeds, power, share_of_images, unpaired
from waterbed_paper.register import CLAIMS
from waterbed_paper.verdicts import Judged

CLAIM = CLAIMS["far-tasks"]
UP, DOWN = [1.0, 1.2, 1.4], [-3.0, -3.1, -3.2]


def two_sided(values):
    mean, n = sum(values) / len(values), len(values)
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
    return 2 * float(student.sf(abs(mean) / error, n - 1))


def test_the_p_value_is_that_of_the_interval():
    assert p_value(over_seeds("", UP), 0.0, above=True) == pytest.approx(two_sided(UP), rel=1e-4)
    assert p_value(over_seeds("", DOWN), 0.0, above=False) == pytest.approx(two_sided(DOWN), rel=1e-4)
    assert p_value(over_seeds("", UP), 2.0, above=True) == 1.0, "below the mark"
    assert p_value(over_seeds("", [1.0]), 0.0, above=True) == 1.0, "no interval"
    assert p_value(exactly("", 3.0), 0.0, above=True) < 1e-15
    assert p_value(share_of_images("", 300, 300).minus(0.5), 0.0, above=True) < 1e-9
    best = best_of({"a": UP, "b": DOWN}, "{}")
    assert p_value(best, 0.0, above=True) == pytest.approx(2 * two_sided(UP), rel=1e-4)


def test_a_claim_s_p_value_agrees_with_its_verdict():
    both = Judged(CLAIM, [over_seeds("", UP), over_seeds("", [5.0, 5.1, 5.2])])
    assert (both.verdict, claim_p_value(both)) == ("holds", pytest.approx(two_sided(UP), rel=1e-4))
    against = Judged(CLAIM, [over_seeds("", UP), over_seeds("", DOWN)])
    assert (against.verdict, claim_p_value(against)) == ("does not hold", pytest.approx(2 * two_sided(DOWN), rel=1e-4))
    weak = Judged(CLAIM, [over_seeds("", UP), replace(over_seeds("", DOWN), weak=True)])
    assert (weak.verdict, claim_p_value(weak)) == ("undecided", 1.0)
    beside = Judged(CLAIM, [replace(over_seeds("", DOWN), beside=True)])
    assert (beside.verdict, claim_p_value(beside)) == ("undecided", 1.0)


def test_holm_and_benjamini_hochberg_by_hand():
    p = [0.02, 0.005, 0.9, 0.011]
    assert adjusted(p, "holm") == pytest.approx([0.04, 0.02, 0.9, 0.033])
    assert adjusted(p, "benjamini-hochberg") == pytest.approx([0.02 * 4 / 3, 0.02, 0.9, 0.022])
    assert adjusted([], "holm") == adjusted([], "benjamini-hochberg") == []
    assert all(value <= 1 for value in adjusted([0.9, 0.8, 0.7], "holm"))


def test_a_verdict_that_many_claims_make_likely_is_taken_back():
    """One claim among forty with p of 0.03 is undecided; one with p of 1e-6 is not, nor is what cannot fail."""
    weakly = [-1.0, -1.26, -0.74]
    assert 0.01 < two_sided(weakly) < 0.05
    ids = [id for id, claim in CLAIMS.items() if not claim.identity and claim.holds_above == 0]
    judged = [Judged(CLAIMS[id], [over_seeds("", [-1.0, 0.0, 1.0])]) for id in ids[2:]]
    judged += [Judged(CLAIMS[ids[0]], [over_seeds("", weakly)])]
    judged += [Judged(CLAIMS[ids[1]], [over_seeds("", [100.0, 100.01, 100.02])])]
    judged += [Judged(CLAIMS["example-3.3"], [exactly("", 1.0)])]
    corrected = corrected_verdicts(judged)
    assert {method: corrected[ids[0]][method][1] for method in METHODS} == dict.fromkeys(METHODS, "undecided")
    assert {method: corrected[ids[1]][method][1] for method in METHODS} == dict.fromkeys(METHODS, "holds")
    assert "example-3.3" not in corrected
    counts = corrected_counts(judged)["holm"]
    assert (counts["holds"], counts["does not hold"], counts.total()) == (2, 0, len(judged))


def test_unpaired_is_welch_s_interval():
    first, second = [3.0, 4.5, 5.0, 4.0], [0.0, 1.0, 2.6]
    e, expected = unpaired("", first, second), ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
    assert e.ends(0.9) == pytest.approx((expected.low, expected.high))
    assert (e.value, e.n) == (pytest.approx(4.125 - 1.2), 3)
    assert math.isnan(unpaired("", [1.0], second).low)
    assert math.isnan(unpaired("", [1.0, 1.0], [0.0, 0.0]).low), "equal seeds do not say how much another would differ"


def test_three_targets_have_no_power():
    assert power(3, 0.99) == 0.0
    assert power(5, 0.7) < power(12, 0.7) < power(30, 0.7)
    assert power(30, 0.7) > 0.95
