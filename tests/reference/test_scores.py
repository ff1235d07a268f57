import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

import waterbed as wb


def best_evidence(x, target):
    """Maximise the log density of the target under N(0, I / beta + F F^T / alpha) by brute force."""

    def negative(logs):
        alpha, beta = np.exp(logs)
        covariance = np.eye(len(x)) / beta + x @ x.T / alpha
        return -multivariate_normal(np.zeros(len(x)), covariance).logpdf(target)

    found = [
        minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000})
        for start in ([0.0, 0.0], [2.0, 2.0])
    ]
    return -min(f.fun for f in found)


@pytest.mark.parametrize("shape", [(40, 5), (12, 20)])
def test_logme_is_the_maximum_evidence(shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    y = (x[:, 0] + 0.5 * rng.standard_normal(shape[0]) > 0).astype(int) + (x[:, 1] > 1)
    expected = np.mean([best_evidence(x, (y == c).astype(float)) for c in np.unique(y)]) / shape[0]
    assert wb.logme(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_logme_prefers_features_that_tell_the_classes():
    torch.manual_seed(0)
    y = torch.arange(90) % 3
    good = torch.nn.functional.one_hot(y).double() + 0.1 * torch.randn(90, 3)
    assert wb.logme(good, y) > wb.logme(torch.randn(90, 3), y)


def test_logme_errors():
    for features, labels, match in (
        (torch.zeros(3, 2), torch.zeros(3), "two or more"),
        (torch.zeros(3, 2), torch.zeros(4), r"\(3, 2\)"),
        (torch.full((2, 2), float("nan")), torch.arange(2), "NaN"),
    ):
        with pytest.raises(wb.UsageError, match=match):
            wb.logme(features, labels)


def test_dataset_distance(tiny):
    digits = wb.load_dataset("digits").take(400, 100)
    clothes = wb.load_dataset("fashion-mini", size=8).take(400, 100)
    d = wb.dataset_distance(digits, clothes, tiny, num_resamples=30)
    xa, ya = wb.extract_features(tiny, digits)
    xb, yb = wb.extract_features(tiny, clothes)
    assert float(d) == pytest.approx(wb.class_emd(xa, ya, xb, yb), rel=1e-6)
    assert d.low <= d.value <= d.high
    assert 0 < d.floor < d.value
    assert d.n == (400, 400)
    assert "resnet10" in d.method
    same = wb.dataset_distance(digits, digits, tiny, num_samples=100, num_resamples=20)
    assert same.value == pytest.approx(0, abs=1e-9)
    assert same.n == (100, 100)
