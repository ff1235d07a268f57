"""The balls an attack stays in: one small class per norm, and the protocol that a user's own follows."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from waterbed.errors import UsageTypeError, check_choice


class Ball(Protocol):
    """The set ``{delta: |delta| <= eps}`` of one norm, as an attack needs it; ``name`` stands in results.

    All three act on each example of a batch (N, ...) by itself, in pixel units.
    """

    name: str

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """The point of the ball nearest to ``delta`` (N, ...)."""

    def direction(self, gradient: Tensor) -> Tensor:
        """The step of length 1 that climbs most along ``gradient`` (N, ...)."""

    def random_start(self, x: Tensor, eps: float) -> Tensor:
        """A random point of the ball, in the shape of the images ``x`` (N, ...)."""


class L1:
    """Sum of the changes of all pixels.

    Steps go along few coordinates, as in SLIDE (Tramer and Boneh 2019, "Adversarial training and robustness for
    multiple perturbations"): steepest ascent of one coordinate alone needs many more steps. Pixels that [0, 1] stops
    still count among those coordinates; the projection onto ball and box together, and the sparsity that changes over
    the steps, of APGD-l1 (Croce and Hein 2021) are not done here, so the attack is weaker than that one.
    """

    name = "l1"
    moved = 0.01  # fraction of the coordinates that one step changes, at least one coordinate

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """The nearest point in Euclidean length, by sorting (Duchi et al. 2008, "Efficient projections onto the
        l1-ball for learning in high dimensions", Fig. 1)."""
        size = delta.abs().flatten(1)
        ordered = size.sort(dim=1, descending=True).values
        ranks = torch.arange(1, size.shape[1] + 1, device=delta.device, dtype=delta.dtype)
        thresholds = (ordered.cumsum(1) - eps) / ranks
        last = (ordered > thresholds).sum(1, keepdim=True).clamp_min(1) - 1
        shrunk = delta.sign() * (size - thresholds.gather(1, last)).clamp_min(0).reshape(delta.shape)
        return torch.where(as_images(size.sum(1) <= eps, delta), delta, shrunk)

    def direction(self, gradient: Tensor) -> Tensor:
        """The signs of the largest entries, of equal size and sum 1; zero where the gradient is."""
        flat = gradient.flatten(1)
        largest = flat.abs().topk(math.ceil(self.moved * flat.shape[1]), dim=1).indices
        signs = torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest).sign())
        return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).reshape(gradient.shape)

    def random_start(self, x: Tensor, eps: float) -> Tensor:
        """Uniform in the ball: n of n + 1 exponential numbers over the sum of all, with random signs."""
        flat = x.flatten(1)
        draws = torch.empty(len(flat), flat.shape[1] + 1, device=x.device, dtype=x.dtype).exponential_()
        signs = torch.randn_like(flat).sign()
        return eps * (signs * draws[:, :-1] / draws.sum(1, keepdim=True)).reshape(x.shape)


class L2:
    """Euclidean length of the perturbation of one image."""

    name = "l2"

    def project(self, delta: Tensor, eps: float) -> Tensor:
        return delta * (eps / _l2_norm(delta).clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1)

    def direction(self, gradient: Tensor) -> Tensor:
        """Unit vectors; zero where the gradient is. Dividing by the largest entry first keeps tiny ones exact."""
        tiny = torch.finfo(gradient.dtype).tiny
        gradient = gradient / gradient.abs().amax(tuple(range(1, gradient.ndim)), keepdim=True).clamp_min(tiny)
        return gradient / _l2_norm(gradient).clamp_min(tiny)

    def random_start(self, x: Tensor, eps: float) -> Tensor:
        """Uniform in the ball."""
        radius = torch.rand(len(x), device=x.device, dtype=x.dtype) ** (1 / math.prod(x.shape[1:]))
        return self.direction(torch.randn_like(x)) * as_images(radius, x) * eps


class Linf:
    """The largest change of any pixel."""

    name = "linf"

    def project(self, delta: Tensor, eps: float) -> Tensor:
        return delta.clamp(-eps, eps)

    def direction(self, gradient: Tensor) -> Tensor:
        return torch.sign(gradient)

    def random_start(self, x: Tensor, eps: float) -> Tensor:
        """Uniform in the ball."""
        return (2 * torch.rand_like(x) - 1) * eps


BALLS: dict[str, Ball] = {ball.name: ball for ball in (L1(), L2(), Linf())}


def as_ball(norm: Any) -> Ball:
    """The ball of a norm's name; a user's own :class:`Ball` comes back as it is.

    Raises:
        UsageError: an unknown name.
        UsageTypeError: an object that lacks a method of a ball.

    >>> as_ball("linf").direction(torch.tensor([[-2.0, 3.0]]))
    tensor([[-1.,  1.]])
    """
    if isinstance(norm, str):
        check_choice("norm", norm, BALLS)
        return BALLS[norm]
    if isinstance(norm, type):
        raise UsageTypeError(f"norm={norm.__name__} is a class; write {norm.__name__}()")
    missing = [] if isinstance(getattr(norm, "name", None), str) else ["name"]
    missing += [m for m in ("project", "direction", "random_start") if not callable(getattr(norm, m, None))]
    if missing:
        known = ", ".join(map(repr, BALLS))
        raise UsageTypeError(f"norm={norm!r} lacks {', '.join(missing)}; pass {known} or an object with them")
    return norm


def outside(ball: Ball, eps: float, x_adv: Tensor, x: Tensor) -> Tensor:
    """(N,) which images (N, ...) are further than ``eps`` from ``x``: projecting them would move a pixel.

    Up to one part in 10^4 of the radius, and to the rounding of the pixels.

    >>> outside(BALLS["linf"], 0.1, torch.tensor([[0.6, 0.5], [0.61, 0.5]]), torch.full((2, 2), 0.5))
    tensor([False,  True])
    """
    delta = x_adv - x
    moved = (ball.project(delta, eps * (1 + 1e-4)) - delta).abs().flatten(1).amax(1)
    return ~(moved <= 4 * torch.finfo(x.dtype).eps)  # NaN is outside


def as_images(values: Tensor, x: Tensor) -> Tensor:
    """(N,) shaped to broadcast against (N, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def _l2_norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)
