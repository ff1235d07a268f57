"""The bootstrap of the distance: what its interval covers, and what is corrected."""

import numpy as np
import pytest
import torch

import waterbed as wb
from waterbed.transfer_learning.distance import bootstrap

CLASSES, WIDTH, COUNT = 5, 16, 100  # 20 images a class


def drawn(means, generator):
    labels = torch.randint(len(means), (COUNT,), generator=generator)
    noise = torch.randn(COUNT, WIDTH, generator=generator, dtype=torch.float64)
    return means[labels] + noise, labels


def test_intervals_cover_the_populations_distance_where_the_distance_itself_is_too_large():
    """30 pairs of samples of two populations whose distance is known. An interval that only repeats the resamples'
    quantiles has the bias twice, and covers it seldom."""
    generator = torch.Generator().manual_seed(0)
    means = [torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2)]
    truth = wb.class_emd(means[0], torch.arange(CLASSES), means[1], torch.arange(CLASSES))
    covered, as_drawn, values, corrected = 0, 0, [], []
    for _ in range(30):
        value, draws = bootstrap([drawn(m, generator) for m in means], 60, generator)
        low, high = 2 * value - np.quantile(draws, [0.975, 0.025])
        covered += low <= truth <= high
        as_drawn += np.quantile(draws, 0.025) <= truth
        values.append(value)
        corrected.append(2 * value - draws.mean())
        assert low <= corrected[-1] <= high
    assert 26 <= covered <= 30
    assert as_drawn < 15
    bias = np.mean(values) - truth
    assert bias > 3 * np.std(values) / np.sqrt(30)
    assert abs(np.mean(corrected) - truth) < 0.4 * bias


def test_the_distance_of_data_sets_has_this_bootstrap(tiny):
    digits, clothes = (wb.load_dataset(name, size=8).take(80, 10) for name in ("digits", "fashion-mini"))
    d = wb.dataset_distance(digits, clothes, tiny, num_resamples=30, seed=4)
    sets = [(x.double(), y) for x, y in (wb.extract_features(tiny, data) for data in (digits, clothes))]
    value, draws = bootstrap(sets, 30, torch.Generator().manual_seed(4))
    assert d.value == pytest.approx(value)
    assert d.corrected == pytest.approx(2 * value - draws.mean())
    assert d.low == pytest.approx(2 * value - np.quantile(draws, 0.975))
    assert d.high == pytest.approx(2 * value - np.quantile(draws, 0.025))
    assert d.stderr == pytest.approx(draws.std(ddof=1))
    assert d.low <= d.corrected <= d.high
    assert f"{d.corrected:.4g} [{d.low:.4g}, {d.high:.4g}]" in str(d)
