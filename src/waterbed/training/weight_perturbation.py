"""AWP: adversarial perturbation of the weights on top of that of the images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from waterbed.attacks.attack import Attack
from waterbed.distributed import summed, unwrapped
from waterbed.errors import UsageTypeError, check_number
from waterbed.training.objective import Forward, Objective, check_objective
from waterbed.training.objective_config import ObjectiveConfig


class RobustLoss(Objective, Protocol):
    """An objective in two steps, first the attack and then the loss: ``AdversarialTraining``, ``TRADES``, ``MART``."""

    def adversarial(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The images x' that the attack makes of ``x`` (N, C, H, W)."""

    def loss(self, forward: Forward, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of the images and their attacked forms, and logits (N, K) for the accuracy."""


@dataclass(frozen=True)
class AWP:
    """The robust loss at weights that are perturbed to raise it: min_w max_{v in V} loss(x', y; w + v).

    Wu et al. (2020), "Adversarial weight perturbation helps robust generalization". V bounds each layer,
    ||v_l|| <= gamma ||w_l||. As in the paper x' is the attack on the network at w, and one ascent step, to the boundary
    of V, gives

        v_l = gamma ||w_l|| g_l / ||g_l||,   g = gradient of loss(x', y; w) with respect to w,

    for every weight of two dimensions or more that requires a gradient: normalisation layers and biases stay. The
    gradient that trains is that at w + v, and it is applied to w, which itself never moves to w + v. A step costs one
    more forward and backward pass, which leaves the running statistics of batch norms alone.

    Args:
        objective: ``AdversarialTraining(attack)``, ``TRADES(attack)``, ``MART(attack)``, or your own in two steps
            (:class:`RobustLoss`).
        gamma: size of the perturbation of a layer relative to that of its weights; 0 leaves ``objective`` as it is.

    Raises:
        UsageTypeError: ``objective`` is not of this form.

    >>> import waterbed as wb
    >>> AWP(wb.TRADES(wb.PGD(eps=0.5))).config()["objective"]
    'trades'
    """

    compiles = False
    objective: RobustLoss
    gamma: float = ObjectiveConfig.gamma

    def __post_init__(self) -> None:
        check_objective(self.objective)
        missing = [m for m in ("adversarial", "loss") if not callable(getattr(self.objective, m, None))]
        if missing:
            raise UsageTypeError(
                f"objective={self.objective!r} lacks {', '.join(missing)}, in which AWP takes it apart; pass "
                "AdversarialTraining(attack), TRADES(attack) or MART(attack), or add the methods"
            )
        check_number("gamma", self.gamma, at_least=0)

    @property
    def attack(self) -> Attack | None:
        """That of the objective."""
        return getattr(self.objective, "attack", None)

    @property
    def attacks_copy(self) -> bool:
        """Whether the attack may run on the folded copy of the network."""
        return getattr(self.objective, "attacks_copy", True)

    @property
    def soft_labels(self) -> bool:
        """Whether the objective takes labels that are probabilities."""
        return getattr(self.objective, "soft_labels", False)

    def __call__(self, model: nn.Module, forward: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x_adv = self.objective.adversarial(model, x, y)
        network = unwrapped(forward)
        shift = self.perturbation(network, lambda run: self.objective.loss(run, x, x_adv, y)[0])
        shifted = {name: p + shift[p] if p in shift else p for name, p in forward.named_parameters()}
        return self.objective.loss(partial(functional_call, forward, shifted), x, x_adv, y)

    def perturbation(self, network: nn.Module, loss: Callable[[Forward], Tensor]) -> dict[nn.Parameter, Tensor]:
        """v of each weight that moves; the gradient is that of the mean over all processes.

        Args:
            loss: the robust loss, from a function that runs the network.
        """
        weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        with torch.enable_grad():
            value = loss(partial(functional_call, network, buffers))
            gradients = torch.autograd.grad(value, weights, allow_unused=True)
        return {
            w: self.gamma * w.detach().norm() * _direction(summed(g))
            for w, g in zip(weights, gradients, strict=True)
            if g is not None
        }

    def config(self) -> dict[str, Any]:
        inner = self.objective.config()
        return {**inner, "name": "awp", "objective": inner["name"], "gamma": float(self.gamma)}


def _direction(gradient: Tensor) -> Tensor:
    """The gradient at length 1; 0 stays 0."""
    return gradient / gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny)
