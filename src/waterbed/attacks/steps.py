"""How an attack moves its images along their gradient: steepest ascent, a torch optimiser, or a user's own rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from waterbed.attacks.balls import Ball
from waterbed.errors import UsageError, UsageTypeError


class StepRule(Protocol):
    """Moves tensors along the gradients in their ``.grad``; every ``torch.optim.Optimizer`` does."""

    def step(self) -> Any:
        """Change the tensors in place."""


# Makes the rule of one run from the images it is to move, a list of one leaf tensor (N, C, H, W). The attack
# projects after every step. With torch.optim: lambda images: torch.optim.Adam(images, lr=0.01, maximize=True).
StepRuleFactory = Callable[[Sequence[Tensor]], StepRule]


class SteepestAscent:
    """Steps of fixed length along the direction of steepest ascent in the norm of ``ball``."""

    def __init__(self, images: Sequence[Tensor], ball: Ball, step_size: float) -> None:
        self.images, self.ball, self.step_size = images, ball, step_size

    @torch.no_grad()
    def step(self) -> None:
        for images in self.images:
            images.add_(self.step_size * self.ball.direction(images.grad))


def describe(optimizer: StepRuleFactory) -> dict[str, Any]:
    """Name and settings of the rule that a factory makes: its class and, of a torch optimiser, its numbers.

    Raises:
        UsageTypeError: the factory is no callable, or what it makes has no ``step``.
        UsageError: a torch optimiser that would descend.

    >>> describe(lambda images: torch.optim.SGD(images, lr=0.1, momentum=0.9, maximize=True))["momentum"]
    0.9
    """
    if not callable(optimizer):
        raise UsageTypeError(
            f"optimizer={optimizer!r} must make a step rule from the images; write "
            "optimizer=lambda images: torch.optim.Adam(images, lr=0.01, maximize=True)"
        )
    rule = optimizer([torch.zeros(1, 1, 1, 1, requires_grad=True)])
    if not callable(getattr(rule, "step", None)):
        raise UsageTypeError(f"optimizer made {rule!r}, which has no step(); return an object that has")
    settings = getattr(rule, "defaults", {})
    if settings.get("maximize") is False:
        raise UsageError(f"optimizer made {type(rule).__name__} which descends; pass it maximize=True")
    plain = {key: value for key, value in settings.items() if isinstance(value, bool | int | float | str)}
    # TOML has no tuples: a recorded config compares as a list.
    plain |= {key: list(value) for key, value in settings.items() if isinstance(value, tuple)}
    return {"name": type(rule).__name__, **plain}
