"""What training minimises: Standard, AdversarialTraining (eq. 1), TRADES (eq. 2), GaussianNoise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waterbed.attacks.pgd import PGD
from waterbed.errors import UsageError, UsageTypeError, check_choice, check_number
from waterbed.models.states import evaluating

Forward = Callable[[Tensor], Tensor]


class Objective(Protocol):
    """Loss of a batch. ``model`` is the raw network, for attacks; ``forward`` the one that trains (the same
    network, wrapped where several processes share the gradient). Returns the mean loss and the logits (N, K)
    that the training accuracy is read from."""

    attack: PGD | None

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]: ...

    def config(self) -> dict[str, Any]:
        """What the run folder records of it."""


@dataclass(frozen=True)
class Standard:
    """Cross-entropy on the images as they are."""

    attack: PGD | None = field(default=None, init=False)

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(x)
        return F.cross_entropy(logits, y), logits

    def config(self) -> dict[str, Any]:
        return {"name": "standard"}


@dataclass(frozen=True)
class AdversarialTraining:
    """Cross-entropy on adversarial images: eq. 1, min_w E max_{|delta| <= eps} loss(x + delta, y; w).

    >>> AdversarialTraining(PGD(eps=0.5)).config()["eps"]
    0.5
    """

    attack: PGD

    def __post_init__(self) -> None:
        _check_attack(self.attack)

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(self.attack(model, x, y))
        return F.cross_entropy(logits, y), logits

    def config(self) -> dict[str, Any]:
        return {"name": "adversarial", **_attack_config(self.attack)}


@dataclass(frozen=True)
class TRADES:
    """Cross-entropy plus beta max_{|delta| <= eps} KL: eq. 2; the attack ascends the KL itself.

    Args:
        attack: must start at random: at delta = 0 the KL and its gradient are 0.
        beta: weight of the KL, in units of the loss (nats).
        direction: "clean-adversarial" is KL(p(y|x) || p(y|x + delta)), what Zhang et al. (2019, "Theoretically
            principled trade-off between robustness and accuracy") train with; "adversarial-clean" is the order
            printed in eq. 2. The two agree to second order in delta.

    The KL works on log-probabilities throughout, so its gradient stays finite when the softmax saturates.
    """

    attack: PGD
    beta: float = 6.0
    direction: str = "clean-adversarial"

    def __post_init__(self) -> None:
        _check_attack(self.attack)
        check_number("beta", self.beta, at_least=0)
        check_choice("direction", self.direction, ("clean-adversarial", "adversarial-clean"))
        if not self.attack.random_start:
            raise UsageError("attack.random_start=False leaves TRADES at a point of zero gradient; pass True")
        if self.attack.restarts > 1:
            raise UsageError(f"attack.restarts={self.attack.restarts}; TRADES makes one run: pass restarts=1")

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with evaluating(model), torch.no_grad():
            target = F.log_softmax(model(x), dim=1)
        x_adv = self.attack.maximise(model, x, lambda logits: self.kl(target, F.log_softmax(logits, dim=1)))
        # One pass over both halves, so that BatchNorm sees them together and gradients are averaged once.
        clean, adversarial = forward(torch.cat([x, x_adv])).chunk(2)
        kl = self.kl(F.log_softmax(clean, dim=1), F.log_softmax(adversarial, dim=1)).mean()
        return F.cross_entropy(clean, y) + self.beta * kl, clean

    def kl(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """KL of each example in nats, from two (N, K) log-probabilities, in the chosen direction."""
        p, q = (clean, adversarial) if self.direction == "clean-adversarial" else (adversarial, clean)
        return F.kl_div(q, p, log_target=True, reduction="none").sum(1)

    def config(self) -> dict[str, Any]:
        return {
            "name": "trades",
            "beta": float(self.beta),
            "direction": self.direction,
            **_attack_config(self.attack),
        }


@dataclass(frozen=True)
class GaussianNoise:
    """Cross-entropy under noise N(0, eps^2/n I), n the pixels times channels: expected squared length eps^2.

    The random counterpart of adversarial training at the same eps (sec. 3, after Prop. 3.2). The noisy image is
    not clamped, as the theory has it.
    """

    eps: float
    attack: PGD | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_number("eps", self.eps, at_least=0)

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(x + self.eps / math.sqrt(math.prod(x.shape[1:])) * torch.randn_like(x))
        return F.cross_entropy(logits, y), logits

    def config(self) -> dict[str, Any]:
        return {"name": "gaussian-noise", "eps": float(self.eps)}


def _check_attack(attack: Any) -> None:
    if not isinstance(attack, PGD):
        raise UsageTypeError(f"attack={attack!r} must be a PGD, such as PGD(eps=1.0)")


def _attack_config(attack: PGD) -> dict[str, Any]:
    return {
        "eps": float(attack.eps),
        "norm": attack.norm,
        "steps": attack.steps,
        "step_size": float(2.5 * attack.eps / attack.steps if attack.step_size is None else attack.step_size),
        "random_start": attack.random_start,
        "restarts": attack.restarts,
    }
