"""Optimisers of a batch of independent images: each has its own step size, moments and line search."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

OPTIMIZERS = ("sgd", "normalized", "adam", "lbfgs")
PILOT_STEPS = 20
MEMORY = 10  # pairs that L-BFGS remembers
SUFFICIENT = 1e-4  # fraction of the predicted decrease that L-BFGS requires of a step (Armijo)


class Step:
    """A step of "sgd", "normalized" or "adam", projected onto [0, 1].

    Args:
        optimizer: its name.
        rates: (B,), the step size of each image.

    >>> step = Step("sgd", torch.tensor([0.5]))
    >>> step(torch.zeros(1, 1, 1, 1), torch.zeros(1), torch.tensor(-1.0).view(1, 1, 1, 1)).item()
    0.5
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
    """L-BFGS for each image, projected onto [0, 1]: each call evaluates one trial, which is accepted or shortened.

    Liu and Nocedal (1989), "On the limited memory BFGS method". The ``images`` of a call are the trial
    of the previous call; an image whose loss did not fall enough goes back and takes a quarter of the step. The
    objective must not change between calls.

    Args:
        rates: (B,), scale of the first step of each image.
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
        """The inverse-Hessian approximation times the gradient by two-loop recursion, on pixels not held at a bound."""
        images, gradient = self.images.flatten(1), self.gradient.flatten(1)
        free = ~(((images <= 0) & (gradient > 0)) | ((images >= 1) & (gradient < 0)))
        q = gradient * free
        scale = self.rates.clone()
        alphas = []
        for s, y, inverse in reversed(self.pairs):
            alpha = inverse * (s * q).sum(1)
            q = q - alpha[:, None] * y
            alphas.append(alpha)
        for _, y, inverse in self.pairs:  # the newest useful pair determines the scale
            scale = torch.where(inverse > 0, 1 / (inverse * y.square().sum(1)).clamp_min(1e-30), scale)
        q = scale[:, None] * q
        for (s, y, inverse), alpha in zip(self.pairs, reversed(alphas), strict=True):
            beta = inverse * (y * q).sum(1)
            q = q + (alpha - beta)[:, None] * s
        q = q * free
        downhill = (q * gradient).sum(1) > 0
        return torch.where(downhill[:, None], q, scale[:, None] * gradient * free)


def make_step(optimizer: str, rates: Tensor) -> Step | Lbfgs:
    """The optimiser of that name, one of :data:`OPTIMIZERS`, with step sizes (B,)."""
    return Lbfgs(rates) if optimizer == "lbfgs" else Step(optimizer, rates)


def loss_and_gradient(function: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """The losses (B,) that ``function`` gives for images (B, C, H, W), and their gradients (B, C, H, W).

    >>> loss, gradient = loss_and_gradient(lambda x: x.square().flatten(1).sum(1), torch.ones(1, 1, 1, 2))
    >>> loss.tolist(), gradient.flatten().tolist()
    ([2.0], [2.0, 2.0])
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = function(images)
    (gradient,) = torch.autograd.grad(loss.sum(), images)
    return loss.detach(), gradient


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The images of ``a`` where ``condition`` (B,) is true, else those of ``b``; (B, C, H, W).

    >>> where(torch.tensor([True, False]), torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)).flatten().tolist()
    [1.0, 0.0]
    """
    return torch.where(_as_images(condition), a, b)


def natural_rates(loss_of: Callable[[Tensor, int], Tensor], start: Tensor) -> Tensor:
    """loss / |gradient|^2 (B,): the step of sgd that would bring each image to loss 0 if the loss were linear.

    For a quadratic loss with largest curvature c it is at least 1 / (2 c).
    """
    loss, gradient = loss_and_gradient(lambda r: loss_of(r, 1), start)
    return loss / gradient.square().flatten(1).sum(1).clamp_min(torch.finfo(loss.dtype).tiny)


def stable_rates(loss_of: Callable[[Tensor, int], Tensor], start: Tensor, optimizer: str) -> Tensor:
    """A step size (B,) per image: half of that on a grid which gives the lowest loss after :data:`PILOT_STEPS` steps.

    For "sgd" the grid surrounds :func:`natural_rates`, so it contains stable steps. L-BFGS has a line search and starts
    from half the natural rate.

    Args:
        loss_of: (images, copies) -> loss of each image; ``images`` are ``copies`` times those of ``start``.
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
        images = step_of(images, *loss_and_gradient(lambda r: loss_of(r, len(grid)), images))
    with torch.no_grad():
        final = loss_of(images, len(grid)).nan_to_num(torch.inf, torch.inf).view(len(grid), -1)
    return 0.5 * rates.view(len(grid), -1).gather(0, final.argmin(0, keepdim=True))[0]


def _as_images(values: Tensor) -> Tensor:
    """(B,) shaped to broadcast against (B, C, H, W)."""
    return values[:, None, None, None]


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)
