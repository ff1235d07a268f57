"""k-NN and the combined rule against slow computations in float64."""

import math

import numpy as np
import pytest
import torch

import waterbed as wb
from waterbed.transfer_learning.cross_validation import CrossValidated
from waterbed.transfer_learning.ranking import Rule, log_odds


@pytest.mark.parametrize("neighbours", [1, 5, 100])
def test_knn_by_its_definition(neighbours):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (60,), generator=generator)
    x[:, 0] += y
    right = 0
    for i in range(60):
        cosines = {j: float(x[i] @ x[j] / x[i].norm() / x[j].norm()) for j in range(60) if j != i}
        votes = [0.0, 0.0, 0.0]
        for j in sorted(cosines, key=lambda j: -cosines[j])[:neighbours]:
            votes[int(y[j])] += math.exp(cosines[j] / 0.2)
        right += votes.index(max(votes)) == int(y[i])
    assert 20 < right < 60
    assert wb.knn_accuracy(x, y, neighbours, 0.2) == pytest.approx(100 * right / 60)
    assert wb.knn_accuracy(7 * x, y + 3, neighbours, 0.2) == pytest.approx(100 * right / 60), "neither length nor names"


def test_knn_errors():
    with pytest.raises(wb.UsageError, match="neighbours=0"):
        wb.knn_accuracy(torch.randn(4, 2), torch.arange(4) % 2, 0)
    with pytest.raises(wb.UsageError, match="temperature"):
        wb.knn_accuracy(torch.randn(4, 2), torch.arange(4) % 2, temperature=0)


def score(value, *parts):
    return CrossValidated(value, np.array(parts))


def test_the_corrected_resampled_variance():
    """Nadeau and Bengio's eq. 7 by hand, and Student's t quantile for 3 degrees of freedom, 3.18245."""
    s = CrossValidated(3.0, np.array([2.0, 4.0, 2.0, 4.0]), folds=2)
    assert s.stderr() == pytest.approx(math.sqrt((1 / 4 + 1 / 1) * 4 / 3))
    assert s.interval() == pytest.approx((3 - 3.18245 * s.stderr(), 3 + 3.18245 * s.stderr()), abs=1e-4)
    assert CrossValidated(3.0, s.parts, folds=5).stderr() == pytest.approx(math.sqrt((1 / 4 + 1 / 4) * 4 / 3))


@pytest.mark.parametrize("name", ["probe", "knn", "h_score", "logme"])
def test_log_odds_by_their_definition(name):
    counts = np.array([10, 0, 30, 20])

    def direct(value):
        if name == "logme":
            chance = sum(math.log(2 * math.pi * math.e * p * (1 - p)) / -2 for p in (1 / 6, 1 / 2, 1 / 3)) / 3
            share = 1 - math.exp(-2 * (value - chance))
        else:
            share = value / 2 if name == "h_score" else value / 100
        return math.log(share / (1 - share))

    value = {"probe": 80.0, "knn": 30.0, "h_score": 1.2, "logme": -0.3}[name]
    odds = log_odds(name, score(value, value, value + 1e-6), counts)
    assert odds.value == pytest.approx(direct(value), abs=1e-12)
    assert odds.parts[0] == pytest.approx(direct(value), abs=1e-12)
    assert odds.parts[1] - odds.value == pytest.approx(direct(value + 1e-6) - direct(value), rel=1e-4)


def test_log_odds_stay_finite():
    counts = np.array([5, 5])
    for value in (0.0, 100.0):
        assert abs(log_odds("probe", score(value, value), counts).value) == pytest.approx(math.log(19))
    assert log_odds("logme", score(-5.0, -5.0), counts).value == pytest.approx(-math.log(19))


def test_the_probability_by_simulation():
    """The leader's true margin plus noise of one unit plus what the images and their split add."""
    rule = Rule({"probe": 2.0, "h_score": 1.0})
    counts = np.array([50, 50])
    rng = np.random.default_rng(0)
    first = {"probe": score(80.0, *(80 + rng.normal(0, 2, 10))), "h_score": score(0.6, *(0.6 + rng.normal(0, 0.1, 10)))}
    second = {
        "probe": score(75.0, *(75 + rng.normal(0, 2, 10))),
        "h_score": score(0.5, *(0.5 + rng.normal(0, 0.1, 10))),
    }
    a, b = rule.combined(first, counts), rule.combined(second, counts)
    assert a.value == pytest.approx(2 * math.log(0.8 / 0.2) + math.log(0.6 / 0.4))
    slopes = {"probe": (2 / 0.16 / 100, 2 / 0.1875 / 100), "h_score": (1 / 0.24, 1 / 0.25)}
    gaps = sum(
        slopes[name][0] * (first[name].parts - first[name].value)
        - slopes[name][1] * (second[name].parts - second[name].value)
        for name in slopes
    )
    gap, error = a.value - b.value, math.sqrt((1 / 10 + 1 / 4) * gaps.var(ddof=1))
    draws = gap + rng.normal(0, 1, 400_000) + rng.normal(0, error, 400_000)
    assert 0.6 < rule.probability_better(a, b) < 0.9
    assert rule.probability_better(a, b) == pytest.approx((draws > 0).mean(), abs=3e-3)
    assert rule.probability_better(b, a) == pytest.approx(1 - rule.probability_better(a, b))
    assert rule.probability_better(a, a) == 0.5
