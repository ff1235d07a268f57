"""Steps of descent on images that are independent problems: own step size, own moments, own line search."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

OPTIMIZERS = ("sgd", "normalized", "adam", "lbfgs")
PILOT_STEPS = 20
MEMORY = 10  # pairs that L-BFGS keeps
SUFFICIENT = 1e-4  # share of the predicted decrease that a step of L-BFGS must bring


class Step:
    """The next images from the present ones, their loss and its gradient, all kept in [0, 1].

    Every image has its own step size, and its own moments for "adam".
    """

    def __init__(self, optimizer: str, rates: Tensor) -> None:
        self.optimizer, self.rates = optimizer, _as_images(rates)
        self.count, self.mean, self.square = 0, 0.0, 0.0

    def __call__(self, images: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        return (images - self._update(gradient)).clamp(0, 1)

    def _update(self, gradient: Tensor) -> Tensor:
        if self.optimizer == "sgd":
            return self.rates * gradient
        if self.optimizer == "normalized":
            return self.rates * gradient / _as_images(_norm(gradient).clamp_min(torch.finfo(gradient.dtype).tiny))
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient.square()
        mean, square = self.mean / (1 - 0.9**self.count), self.square / (1 - 0.999**self.count)
        return self.rates * mean / (square.sqrt() + 1e-8)


class Lbfgs:
    """L-BFGS of each image, projected onto [0, 1]: one evaluation a call, accepted or shortened by backtracking.

    Liu and Nocedal (1989), "On the limited memory BFGS method". ``images`` of a call are the trial of the call before;
    an image whose loss did not fall enough goes back and takes a quarter of the step. Needs an objective that stays.
    """

    def __init__(self, rates: Tensor) -> None:
        self.rates = rates
        self.images: Tensor | None = None
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y (B, D) and 1 / s.y (B,), 0 where unused

    def __call__(self, images: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        if self.images is None:
            self.images, self.loss, self.gradient = images, loss, gradient
            self.length = torch.ones_like(loss)
        else:
            moved = images - self.images
            predicted = (self.gradient * moved).flatten(1).sum(1)
            accepted = loss <= self.loss + SUFFICIENT * predicted
            self._remember(moved.flatten(1), (gradient - self.gradient).flatten(1), accepted)
            self.images, self.gradient = (
                where(accepted, images, self.images),
                where(accepted, gradient, self.gradient),
            )
            self.loss = torch.where(accepted, loss, self.loss)
            self.length = torch.where(accepted, 1.0, 0.25 * self.length)
        direction = self._direction()
        return (self.images - _as_images(self.length) * direction.view_as(images)).clamp(0, 1)

    def _remember(self, s: Tensor, y: Tensor, accepted: Tensor) -> None:
        curvature = (s * y).sum(1)
        useful = accepted & (curvature > 1e-10 * _norm(s) * _norm(y))
        inverse = torch.where(useful, 1 / curvature.where(useful, torch.ones_like(curvature)), 0.0)
        self.pairs = [*self.pairs, (s, y, inverse)][-MEMORY:]

    def _direction(self) -> Tensor:
        """H g by the two-loop recursion, on the pixels that are free to move."""
        images, gradient = self.images.flatten(1), self.gradient.flatten(1)
        free = ~(((images <= 0) & (gradient > 0)) | ((images >= 1) & (gradient < 0)))
        q = gradient * free
        scale = self.rates.clone()
        alphas = []
        for s, y, inverse in reversed(self.pairs):
            alpha = inverse * (s * q).sum(1)
            q = q - alpha[:, None] * y
            alphas.append(alpha)
        for _, y, inverse in self.pairs:  # the newest useful pair has the last word
            scale = torch.where(inverse > 0, 1 / (inverse * y.square().sum(1)).clamp_min(1e-30), scale)
        q = scale[:, None] * q
        for (s, y, inverse), alpha in zip(self.pairs, reversed(alphas), strict=True):
            beta = inverse * (y * q).sum(1)
            q = q + (alpha - beta)[:, None] * s
        q = q * free
        downhill = (q * gradient).sum(1) > 0
        return torch.where(downhill[:, None], q, scale[:, None] * gradient * free)


def make_step(optimizer: str, rates: Tensor) -> Step | Lbfgs:
    """The optimiser by name."""
    return Lbfgs(rates) if optimizer == "lbfgs" else Step(optimizer, rates)


def gradient(function: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (B,) and its gradient (B, C, H, W)."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = function(images)
    (gradient,) = torch.autograd.grad(loss.sum(), images)
    return loss.detach(), gradient


def where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Images of ``a`` where ``chosen`` (B,), else of ``b``."""
    return torch.where(_as_images(chosen), a, b)


def natural_rates(loss_of: Callable[[Tensor, int], Tensor], start: Tensor) -> Tensor:
    """loss / |gradient|^2 of each image: the step of sgd that would reach loss 0 were the loss linear.

    Where the loss is quadratic with largest curvature c it is at least 1 / (2 c).
    """
    loss, slope = gradient(lambda r: loss_of(r, 1), start)
    return loss / slope.square().flatten(1).sum(1).clamp_min(torch.finfo(loss.dtype).tiny)


def stable_rates(loss_of: Callable[[Tensor, int], Tensor], start: Tensor, optimizer: str) -> Tensor:
    """A step size for each image: half the one that, of a grid, brings its loss lowest in 20 steps.

    For sgd the grid surrounds :func:`natural_rates`, so it holds stable steps. L-BFGS searches its own step: it gets
    half the natural one to begin with.

    Args:
        loss_of: (images, copies) -> loss of each; the images are ``copies`` times those of ``start``.
    """
    natural = natural_rates(loss_of, start)
    if optimizer == "lbfgs":
        return 0.5 * natural
    if optimizer == "sgd":
        scale, grid = natural, [4.0**k for k in range(-6, 2)]
    else:
        pixels = start[0].numel()
        scale = torch.full_like(natural, 1.0 if optimizer == "adam" else pixels**0.5)
        grid = [4.0**k for k in range(-8, 0)]
    rates = torch.cat([scale * factor for factor in grid])
    images = start.repeat(len(grid), 1, 1, 1)
    step_of = Step(optimizer, rates)
    for _ in range(PILOT_STEPS):
        images = step_of(images, *gradient(lambda r: loss_of(r, len(grid)), images))
    with torch.no_grad():
        reached = loss_of(images, len(grid)).nan_to_num(torch.inf, torch.inf).view(len(grid), -1)
    return 0.5 * rates.view(len(grid), -1).gather(0, reached.argmin(0, keepdim=True))[0]


def _as_images(values: Tensor) -> Tensor:
    """(B,) shaped to broadcast against (B, C, H, W)."""
    return values[:, None, None, None]


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)
