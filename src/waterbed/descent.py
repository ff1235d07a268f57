"""Steps of descent on images that are independent problems: own step size, own moments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

OPTIMIZERS = ("sgd", "normalized", "adam")
PILOT_STEPS = 20


class Step:
    """The update of each image for its gradient; every image has its own step size and its own moments."""

    def __init__(self, optimizer: str, rates: Tensor) -> None:
        self.optimizer, self.rates = optimizer, rates[:, None, None, None]
        self.count, self.mean, self.square = 0, 0.0, 0.0

    def __call__(self, gradient: Tensor) -> Tensor:
        if self.optimizer == "sgd":
            return self.rates * gradient
        if self.optimizer == "normalized":
            norm = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
            return self.rates * gradient / norm[:, None, None, None]
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient.square()
        mean, square = self.mean / (1 - 0.9**self.count), self.square / (1 - 0.999**self.count)
        return self.rates * mean / (square.sqrt() + 1e-8)


def gradient(function: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (B,) and its gradient (B, C, H, W)."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = function(images)
    (gradient,) = torch.autograd.grad(loss.sum(), images)
    return loss.detach(), gradient


def where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Images of ``a`` where ``chosen`` (B,), else of ``b``."""
    return torch.where(chosen[:, None, None, None], a, b)


def stable_rates(loss_of: Callable[[Tensor, int], Tensor], start: Tensor, optimizer: str) -> Tensor:
    """A step size for each image: half the one that, of a grid, brings its loss lowest in 20 steps.

    For sgd the grid surrounds loss / |gradient|^2, the step that would reach loss 0 were the loss linear; where the
    loss is quadratic with largest curvature c it is at least 1 / (2 c), so the grid holds stable steps.

    Args:
        loss_of: (images, copies) -> loss of each; the images are ``copies`` times those of ``start``.
    """
    loss, slope = gradient(lambda r: loss_of(r, 1), start)
    if optimizer == "sgd":
        scale = loss / slope.square().flatten(1).sum(1).clamp_min(torch.finfo(loss.dtype).tiny)
        grid = [4.0**k for k in range(-6, 2)]
    else:
        scale = torch.ones_like(loss) if optimizer == "adam" else loss.new_full(loss.shape, start[0].numel() ** 0.5)
        grid = [4.0**k for k in range(-8, 0)]
    rates = torch.cat([scale * factor for factor in grid])
    images = start.repeat(len(grid), 1, 1, 1)
    step_of = Step(optimizer, rates)
    for _ in range(PILOT_STEPS):
        _, slope = gradient(lambda r: loss_of(r, len(grid)), images)
        images = (images - step_of(slope)).clamp(0, 1)
    with torch.no_grad():
        reached = loss_of(images, len(grid)).nan_to_num(torch.inf, torch.inf).view(len(grid), -1)
    return 0.5 * rates.view(len(grid), -1).gather(0, reached.argmin(0, keepdim=True))[0]
