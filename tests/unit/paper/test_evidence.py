"""Intervals over seeds, images and targets."""

import math

import pytest

from waterbed_paper.evidence import best_of, over_images, over_seeds, over_targets, share_of_images


def test_intervals():
    assert over_seeds("", [2.0]).value == 2.0
    e = over_images("", {"value": 1.0, "stderr": 0.5, "n": 9}).minus(0.5)
    assert (e.value, e.low, e.high, e.n) == pytest.approx((0.5, -0.479982, 1.479982, 9))
    assert e.ends(0.99) == pytest.approx((0.5 - 0.5 * 2.575829, 0.5 + 0.5 * 2.575829))
    assert over_seeds("", [1.0, 2.0, 3.0]).ends(0.99)[1] == pytest.approx(2 + 9.924843 / math.sqrt(3))
    wide, narrow = share_of_images("", 40, 50).ends(0.99), share_of_images("", 40, 50).ends(0.95)
    assert wide[0] < narrow[0] < 0.8 < narrow[1] < wide[1]


def test_the_best_of_several_needs_more_to_hold():
    """Of k candidates without any effect one looks as if it had one."""
    tried = {"a": [1.0, 1.2, 1.1], "b": [0.0, 0.2, 0.1], "c": [-1.0, 0.0, 1.0]}
    best, alone = best_of(tried, "gain of {}"), over_seeds("", tried["a"])
    assert (best.label, best.value, best.high) == ("gain of a", alone.value, alone.high)
    assert best.low == pytest.approx(alone.ends(1 - 0.05 / 3)[0])
    assert best_of({"a": tried["a"]}, "").low == alone.low


def test_correlations_over_few_targets():
    sure = (0.001, 0.001)
    assert over_targets("", 1.0, 3, sure).low == -1
    assert over_targets("", 0.63, 5, sure).low < 0 < over_targets("", 0.95, 5, sure).low


def test_a_ranking_of_four_targets_is_too_short_to_decide():
    assert over_targets("", 1.0, 4, (1 / 24, 1.0)).low == 0.0
    assert over_targets("", 1.0, 5, (1 / 120, 1.0)).low > 0.9
    assert over_targets("", -1.0, 5, (1.0, 1 / 120)).high < -0.9
    assert over_targets("", -1.0, 4, (1.0, 1 / 24)).high == 0.0
