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
        return self.direction(torch.randn_like(x)) * radius.reshape(-1, *[1] * (x.ndim - 1)) * eps


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


BALLS: dict[str, Ball] = {ball.name: ball for ball in (L2(), Linf())}


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


def _l2_norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)
