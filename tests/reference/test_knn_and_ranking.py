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
    """The true margin is the observed one less the noise and what the images and their split add."""
    rule = Rule(("probe", "h_score"), noise=0.5)
    counts = np.array([50, 50])
    rng = np.random.default_rng(0)
    a, b = (
        {name: score(value, *(value + rng.normal(0, width, 10))) for name, value, width in rows}
        for rows in ([("probe", 80.0, 2), ("h_score", 0.6, 0.1)], [("probe", 75.0, 2), ("h_score", 0.5, 0.1)])
    )
    first, second = rule.combined(a, counts), rule.combined(b, counts)
    assert first.value == pytest.approx((math.log(0.8 / 0.2) + math.log(0.6 / 0.4)) / 2)
    slopes = {"probe": (1 / 0.16 / 100, 1 / 0.1875 / 100), "h_score": (1 / 0.24, 1 / 0.25)}
    parts = sum(s * (a[n].parts - a[n].value) - r * (b[n].parts - b[n].value) for n, (s, r) in slopes.items()) / 2
    gap, error = first.value - second.value, math.sqrt((1 / 10 + 1 / 4) * parts.var(ddof=1))
    draws = gap + rng.normal(0, 0.5, 400_000) + rng.normal(0, error, 400_000)
    assert 0.6 < rule.probability_better(first, second) < 0.9
    assert rule.probability_better(first, second) == pytest.approx((draws > 0).mean(), abs=3e-3)
    assert rule.probability_better(second, first) == pytest.approx(1 - rule.probability_better(first, second))
    assert rule.probability_better(first, first) == 0.5
