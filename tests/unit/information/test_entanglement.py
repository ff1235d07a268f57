"""Entanglement of classes: the loss beside a slow sum, and what it must not depend on."""

import math

import pytest
import torch

import waterbed as wb
from waterbed.information.entanglement import entanglement, soft_nearest_neighbour_loss


def slow(x, y):
    """Frosst et al.'s eq. 1 by loops, distances relative to their mean square."""
    n = len(x)
    d = [[float((x[i] - x[j]).square().sum()) for j in range(n)] for i in range(n)]
    mean = sum(map(sum, d)) / n**2
    losses = []
    for i in range(n):
        near = {j: math.exp(-d[i][j] / mean) for j in range(n) if j != i}
        losses.append(-math.log(sum(v for j, v in near.items() if y[j] == y[i]) / sum(near.values())))
    return losses


@pytest.fixture
def points():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat(6)
    return torch.randn(18, 5, generator=generator, dtype=torch.float64) + y[:, None], y


def test_against_the_slow_sum(points):
    x, y = points
    assert soft_nearest_neighbour_loss(x, y).tolist() == pytest.approx(slow(x, y.tolist()), rel=1e-12)


def test_it_does_not_depend_on_scale_place_or_order(points):
    x, y = points
    loss = soft_nearest_neighbour_loss(x, y)
    assert torch.allclose(soft_nearest_neighbour_loss(7 * x - 3, y), loss, rtol=1e-9)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(soft_nearest_neighbour_loss(x[order], y[order]), loss[order], rtol=1e-9)


def test_classes_that_lie_apart_are_less_entangled(points):
    x, y = points
    apart = soft_nearest_neighbour_loss(x + 20 * y[:, None], y).mean()
    assert apart < soft_nearest_neighbour_loss(x, y).mean()


def test_of_a_network():
    data = wb.load_dataset("digits")
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    found = entanglement(model, data, num_samples=60)
    assert len(found["t_sne"]) == len(found["labels"]) == found["n"] == 60
    assert found["soft_nearest_neighbour_loss"]["value"] > 0
    assert -1 <= found["silhouette"] <= 1
    assert 0 <= found["neighbours"] <= 100
