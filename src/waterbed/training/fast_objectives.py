"""Adversarial training at the price of a step or two: N-FGSM and "free" training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from waterbed.attacks.attack import Attack, check_attack
from waterbed.attacks.balls import Ball, as_ball
from waterbed.attacks.losses import cross_entropy
from waterbed.errors import UsageTypeError, check_count, check_number
from waterbed.models.states import frozen
from waterbed.training.objective import Forward, label_loss


class InBall(Attack, Protocol):
    """An attack with a ball, such as :class:`waterbed.PGD`: the ball is trained in, and the attack is what the network
    is evaluated under after each epoch. With more steps than the training makes it shows catastrophic overfitting: the
    accuracy under it falls to 0 within an epoch while that of the training rises."""

    eps: float
    norm: str | Ball


@dataclass(frozen=True)
class NFGSM:
    """Cross-entropy after one gradient step from noise that is larger than the ball, without projection:

        x' = x + eta + step eps d(grad loss(x + eta)),   eta uniform in the ball of radius noise eps.

    de Jorge et al. (2022), "Make some noise: reliable and efficient single-step adversarial training". A training step
    costs two passes more than one without an attack. Noise and step are cut off at [0, 1], as in the authors' code; the
    step is taken on the network in eval mode, as all attacks are here, where theirs is in train mode.

    Args:
        attack: gives eps and norm, and is what the network is watched under (:class:`InBall`).
        noise: radius of the noise in units of eps; None is the paper's 2 in linf, and 1 elsewhere, where uniform noise
            lies at the surface.
        step: length of the step in units of eps.

    >>> import waterbed as wb
    >>> NFGSM(wb.PGD("8/255", "linf", steps=10)).config()["noise"]
    2.0
    """

    soft_labels = True
    attack: InBall
    noise: float | None = None
    step: float = 1.0

    def __post_init__(self) -> None:
        check_in_ball(self.attack)
        check_number("step", self.step, above=0)
        if self.noise is not None:
            check_number("noise", self.noise, at_least=0)

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(forward, x, self.adversarial(model, x, y), y)

    def adversarial(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        ball, eps = as_ball(self.attack.norm), self.attack.eps
        start = (x + ball.random_start(x, self._noise * eps)).clamp(0, 1).requires_grad_()
        with frozen(model), torch.enable_grad():
            (gradient,) = torch.autograd.grad(cross_entropy(model(start), y).sum(), start)
        return (start + self.step * eps * ball.direction(gradient)).clamp(0, 1).detach()

    def loss(self, forward: Forward, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(x_adv)
        return label_loss(logits, y), logits

    @property
    def _noise(self) -> float:
        if self.noise is not None:
            return self.noise
        return 2.0 if as_ball(self.attack.norm).name == "linf" else 1.0

    def config(self) -> dict[str, Any]:
        return {"name": "n-fgsm", **ball_of(self.attack), "noise": float(self._noise), "step": float(self.step)}


@dataclass(frozen=True)
class FreeTraining:
    """Cross-entropy on images whose perturbation follows the gradient that also trains the weights: no pass is spent on
    an attack. Every batch is trained on ``replays`` times, and the perturbation goes over to the next batch.

    Shafahi et al. (2019), "Adversarial training for free!". An epoch costs ``replays`` times one without an attack, so
    divide the epochs by that number.

    Args:
        attack: gives eps and norm, and is what the network is watched under (:class:`InBall`).
        replays: m, how often each batch is trained on in succession.
        step: length of the step of the perturbation after each pass, in units of eps.
    """

    soft_labels = True
    attacks_copy = False
    attack: InBall
    replays: int = 8
    step: float = 1.0
    memory: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """The perturbation (B, C, H, W) in force."""

    def __post_init__(self) -> None:
        check_in_ball(self.attack)
        check_count("replays", self.replays)
        check_number("step", self.step, above=0)

    def started_from(self, model: nn.Module) -> FreeTraining:
        """This objective with no perturbation yet, for a training that starts."""
        return replace(self, memory={})

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        delta = self.memory.get("delta", torch.zeros_like(x))
        if len(delta) < len(x):  # batches of an epoch differ by one image
            delta = torch.cat([delta, torch.zeros_like(x[len(delta) :])])
        perturbed = (x + delta[: len(x)]).clamp(0, 1).requires_grad_()
        perturbed.register_hook(lambda gradient: self._follow(x, perturbed.detach(), gradient))
        logits = forward(perturbed)
        return label_loss(logits, y), logits

    @torch.no_grad()
    def _follow(self, x: Tensor, perturbed: Tensor, gradient: Tensor) -> None:
        ball, eps = as_ball(self.attack.norm), self.attack.eps
        moved = perturbed - x + self.step * eps * ball.direction(gradient)
        self.memory["delta"] = ball.project(moved, eps)

    def state(self) -> dict[str, Tensor]:
        """What a run that is resumed needs of this objective."""
        return dict(self.memory)

    def restore(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Undo of :meth:`state`."""
        self.memory.update({name: tensor.to(device) for name, tensor in state.items()})

    def config(self) -> dict[str, Any]:
        return {"name": "free", **ball_of(self.attack), "replays": self.replays, "step": float(self.step)}


def check_in_ball(attack: Any) -> None:
    """Raise :class:`UsageTypeError` unless ``attack`` is :class:`InBall`."""
    check_attack(attack, "attack")
    if getattr(attack, "norm", None) is None or getattr(attack, "eps", None) is None:
        raise UsageTypeError(f"attack={attack!r} has no eps and norm to train in; pass PGD(eps=0.5, steps=10)")


def ball_of(attack: InBall) -> dict[str, Any]:
    """What a record says of the ball, and of what the network is watched under."""
    return {"eps": float(attack.eps), "norm": as_ball(attack.norm).name, "watched": attack.name}
