"""The projection onto the l1 ball, in float64, beside the threshold found by bisection."""

import pytest
import torch

from waterbed.attacks.balls import BALLS


def by_bisection(delta, eps):
    """The nearest point of the ball: entries shrink by one threshold, at which their sum is eps."""
    if float(delta.abs().sum()) <= eps:
        return delta
    low, high = 0.0, float(delta.abs().max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((delta.abs() - middle).clamp_min(0).sum()) > eps else (low, middle)
    return delta.sign() * (delta.abs() - high).clamp_min(0)


@pytest.mark.parametrize("eps", [0.0, 0.01, 1.0, 20.0, 1000.0])
def test_projection(eps):
    delta = (
        torch.randn(7, 3, 8, 5, dtype=torch.float64)
        * torch.logspace(-3, 2, 7, dtype=torch.float64)[:, None, None, None]
    )
    delta[0] = 0.25  # ties
    delta[1] = 0
    projected = BALLS["l1"].project(delta.contiguous(memory_format=torch.channels_last), eps)
    for one, given in zip(projected, delta, strict=True):
        assert torch.allclose(one, by_bisection(given, eps), rtol=0, atol=1e-10)
    assert torch.equal(BALLS["l1"].project(projected * (1 - 1e-12), eps), projected * (1 - 1e-12)), "inside, unchanged"
