"""Effects against scipy and dense least squares, and Holm's correction against its definition."""

import math

import numpy as np
import pytest
from scipy import stats

from waterbed_paper.effects import Effect, difference_at_equal, holm, mean_over_strata


def test_one_stratum_is_a_t_test():
    values = [1.0, 2.5, 0.5, 3.0]
    e = mean_over_strata({"a": values})
    expected = stats.ttest_1samp(values, 0.25)
    low, high = expected.confidence_interval()
    assert e.p(0.25) == pytest.approx(expected.pvalue)
    assert e.interval() == pytest.approx((low, high))


def test_two_strata_are_welchs_test_of_the_second_with_its_sign_changed():
    a, b = [1.0, 2.0, 4.0], [0.5, 3.0, 2.0, 2.5]
    e = mean_over_strata({"a": a, "b": b})
    expected = stats.ttest_ind(a, [-x for x in b], equal_var=False)
    assert (e.p(), e.df) == (pytest.approx(expected.pvalue), pytest.approx(expected.df))


def test_equal_values_and_single_ones_are_not_tested():
    for strata in ({"a": [1.0, 1.0], "b": [2.0, 2.0]}, {"a": [1.0, 2.0], "b": [5.0]}):
        e = mean_over_strata(strata)
        assert e.p() == 1.0
        assert all(map(math.isnan, e.interval()))
    assert mean_over_strata({"a": []}) is None


def test_difference_at_equal_is_the_t_test_of_a_least_squares_coefficient():
    rng = np.random.default_rng(0)
    covariate, group = rng.standard_normal(9), np.array([True] * 5 + [False] * 4)
    outcome = 3 + 2 * covariate - 1.5 * group + 0.1 * rng.standard_normal(9)
    e = difference_at_equal(covariate, group, outcome)
    # Frisch, Waugh and Lovell: the slope between what the covariate leaves of group and of the outcome
    residuals = [v - np.polyval(np.polyfit(covariate, v, 1), covariate) for v in (group.astype(float), outcome)]
    slope = stats.linregress(*residuals)
    assert e.value == pytest.approx(slope.slope)
    assert e.error == pytest.approx(slope.stderr * math.sqrt(7 / 6))
    assert e.df == 6


def test_difference_at_equal_needs_both_groups_and_enough_of_them():
    assert difference_at_equal([1, 2, 3, 4], [True] * 4, [1, 2, 3, 4]) is None
    assert difference_at_equal([1, 2, 3], [True, True, False], [1, 2, 3]) is None


def test_holm_rejects_step_by_step():
    p, alpha = [0.2, 0.001, 0.02, 0.012, 0.9], 0.05
    rejected, left = set(), sorted(range(len(p)), key=p.__getitem__)
    for rank, i in enumerate(left):
        if p[i] > alpha / (len(p) - rank):
            break
        rejected.add(i)
    assert {i for i, q in enumerate(holm(p)) if q <= alpha} == rejected == {1, 3}
    assert holm([]) == []
    assert Effect(1.0, math.nan, 3).p() == 1.0
