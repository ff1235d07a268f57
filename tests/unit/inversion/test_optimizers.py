"""The update rules of inversion against torch's, and at the bounds of the pixels."""

import pytest
import torch

from waterbed.inversion.optimizers import Lbfgs, Step


def rows(*values):
    return torch.tensor(values, dtype=torch.float64).view(len(values), 1, 1, -1)


def test_adam_is_torch_s():
    """Three steps on |x - t|^2 with a rate for each image, inside [0, 1]."""
    start, target, rates = rows([0.4, 0.6], [0.5, 0.5]), rows([0.7, 0.2], [0.3, 0.9]), torch.tensor([0.01, 0.02])
    step, images = Step("adam", rates), start.clone()
    parameters = [one.clone().requires_grad_() for one in start]
    theirs = torch.optim.Adam([{"params": [p], "lr": float(rate)} for p, rate in zip(parameters, rates, strict=True)])
    for _ in range(3):
        images = step(images, torch.zeros(2), 2 * (images - target))
        theirs.zero_grad()
        sum((p - t).square().sum() for p, t in zip(parameters, target, strict=True)).backward()
        theirs.step()
    assert torch.allclose(images, torch.stack([p.detach() for p in parameters]), atol=1e-7)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_normalised_step_has_the_length_of_its_rate(scale):
    gradient = scale * rows([3.0, 4.0], [0.0, -2.0])
    images = Step("normalized", torch.tensor([0.1, 0.2]))(rows([0.5, 0.5], [0.5, 0.5]), torch.zeros(2), gradient)
    assert torch.allclose(images, rows([0.44, 0.42], [0.5, 0.7]), atol=1e-7)
    still = Step("normalized", torch.tensor([0.1]))(rows([0.5, 0.5]), torch.zeros(1), rows([0.0, 0.0]))
    assert torch.equal(still, rows([0.5, 0.5]))


def test_pixels_at_a_bound_move_where_the_loss_falls_inside():
    """At 1 with a gradient above 0 and at 0 with one below 0; the other two are held."""
    images, gradient = rows([1.0, 0.0, 1.0, 0.0]), rows([0.5, -0.5, -0.5, 0.5])
    moved = Lbfgs(torch.tensor([0.1], dtype=torch.float64))(images, torch.zeros(1), gradient)
    assert torch.allclose(moved, rows([0.95, 0.05, 1.0, 0.0]))
    again = Lbfgs(torch.tensor([0.1], dtype=torch.float64))
    again(images, torch.zeros(1), gradient)
    assert torch.equal(again._direction()[:, 2:], torch.zeros(1, 2, dtype=torch.float64))
