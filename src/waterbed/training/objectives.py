"""What training minimises, by its name; Standard, AdversarialTraining (eq. 1), TRADES (eq. 2), MART, GaussianNoise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waterbed.attacks.attack import Attack, CheckedAttack, Maximiser, check_attack
from waterbed.attacks.pgd import PGD
from waterbed.attacks.radius import parse_eps
from waterbed.errors import check_choice, check_number
from waterbed.models.states import evaluating
from waterbed.own_code import OWN_CODE, call_function, names_own_code
from waterbed.training.fast_objectives import NFGSM, FreeTraining
from waterbed.training.feature_matching import FARE
from waterbed.training.objective import Forward, Objective, check_ascends, check_objective, label_loss, with_attack
from waterbed.training.objective_config import OBJECTIVES, ObjectiveConfig
from waterbed.training.warm_start import ATTA
from waterbed.training.weight_perturbation import AWP

WATCHED_STEPS = 10  # of PGD, under which objectives with cheaper attacks are watched


@dataclass(frozen=True)
class Standard:
    """Cross-entropy on the images as they are."""

    soft_labels = True
    attack: Attack | None = field(default=None, init=False)

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(x)
        return label_loss(logits, y), logits

    def config(self) -> dict[str, Any]:
        return {"name": "standard"}


class _AttackThenLoss:
    """An objective in two steps, which :class:`~waterbed.training.weight_perturbation.AWP` takes apart."""

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.loss(forward, x, self.adversarial(model, x, y), y)


@dataclass(frozen=True)
class AdversarialTraining(_AttackThenLoss):
    """Cross-entropy on adversarial images: eq. 1, min_w E max_{|delta| <= eps} loss(x + delta, y; w).

    Args:
        attack: :class:`waterbed.PGD`, or a user's own (:class:`~waterbed.attacks.attack.Attack`). Labels mixed or
            smoothed by the training reach PGD as they are: it ascends the loss that is minimised. An attack on a class
            (one of your own without ``soft_labels = True``, or PGD with a margin) gets the one of largest weight.

    Raises:
        UsageError: in training, images from the attack that are not like those that went in.

    >>> from waterbed.attacks.pgd import PGD
    >>> AdversarialTraining(PGD(eps=0.5)).config()["eps"]
    0.5
    """

    soft_labels = True
    attack: Attack

    def __post_init__(self) -> None:
        check_attack(self.attack, "attack")
        object.__setattr__(self, "_attack", CheckedAttack(self.attack))

    def adversarial(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self._attack(model, x, y)

    def loss(self, forward: Forward, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(x_adv)
        return label_loss(logits, y), logits

    def config(self) -> dict[str, Any]:
        return with_attack({"name": "adversarial"}, self.attack)


@dataclass(frozen=True)
class TRADES(_AttackThenLoss):
    """Cross-entropy plus beta max_{|delta| <= eps} KL: eq. 2; the attack ascends the KL itself.

    Args:
        attack: must start at random: at delta = 0 the KL and its gradient are 0. A user's own needs ``maximise``
            (:class:`~waterbed.attacks.attack.Maximiser`).
        beta: weight of the KL, in units of the loss (nats).
        direction: "clean-adversarial" is KL(p(y|x) || p(y|x + delta)), what Zhang et al. (2019, "Theoretically
            principled trade-off between robustness and accuracy") train with; "adversarial-clean" is the order
            printed in eq. 2. The two agree to second order in delta.

    The KL works on log-probabilities throughout, so its gradient stays finite when the softmax saturates.
    """

    soft_labels = True
    attack: Maximiser
    beta: float = ObjectiveConfig.beta
    direction: str = "clean-adversarial"

    def __post_init__(self) -> None:
        check_ascends(self.attack, "TRADES", "the KL")
        check_number("beta", self.beta, at_least=0)
        check_choice("direction", self.direction, ("clean-adversarial", "adversarial-clean"))
        object.__setattr__(self, "_attack", CheckedAttack(self.attack))

    def adversarial(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with evaluating(model), torch.no_grad():
            target = F.log_softmax(model(x), dim=1)
        return self._attack.maximise(model, x, lambda logits: self.kl(target, F.log_softmax(logits, dim=1)))

    def loss(self, forward: Forward, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # One pass over both halves, so that BatchNorm sees them together and gradients are averaged once.
        clean, adversarial = forward(torch.cat([x, x_adv])).chunk(2)
        kl = self.kl(F.log_softmax(clean, dim=1), F.log_softmax(adversarial, dim=1)).mean()
        return label_loss(clean, y) + self.beta * kl, clean

    def kl(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """KL of each example in nats, from two (N, K) log-probabilities, in the chosen direction."""
        p, q = (clean, adversarial) if self.direction == "clean-adversarial" else (adversarial, clean)
        return F.kl_div(q, p, log_target=True, reduction="none").sum(1)

    def config(self) -> dict[str, Any]:
        own = {"name": "trades", "beta": float(self.beta), "direction": self.direction}
        return with_attack(own, self.attack)


@dataclass(frozen=True)
class MART(_AttackThenLoss):
    """Adversarial training that weighs the images which the network gets wrong as they are: the mean of

        -log p(y|x') - log(1 - max_{k != y} p(k|x')) + beta (1 - p(y|x)) KL(p(.|x) || p(.|x')),   x' = attack(x).

    Wang et al. (2020), "Improving adversarial robustness requires revisiting misclassified examples". The second
    logarithm is that of 1.0001 - max p, as in the authors' code, so that it stays finite.

    Args:
        attack: :class:`waterbed.PGD`, or a user's own (:class:`~waterbed.attacks.attack.Attack`).
        beta: weight of the KL, in units of the loss (nats).
    """

    attack: Attack
    beta: float = ObjectiveConfig.beta

    def __post_init__(self) -> None:
        check_attack(self.attack, "attack")
        check_number("beta", self.beta, at_least=0)
        object.__setattr__(self, "_attack", CheckedAttack(self.attack))

    def adversarial(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return self._attack(model, x, y)

    def loss(self, forward: Forward, x: Tensor, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # One pass over both halves, as in TRADES.
        logits, attacked_logits = forward(torch.cat([x, x_adv])).chunk(2)
        clean, adversarial = F.log_softmax(logits, dim=1), F.log_softmax(attacked_logits, dim=1)
        wrong = adversarial.scatter(1, y[:, None], -math.inf).amax(1).exp()
        missed = 1 - clean.gather(1, y[:, None]).squeeze(1).exp()
        kl = F.kl_div(adversarial, clean, log_target=True, reduction="none").sum(1)
        boosted = F.nll_loss(adversarial, y, reduction="none") - (1.0001 - wrong).log()
        return (boosted + self.beta * missed * kl).mean(), logits

    def config(self) -> dict[str, Any]:
        return with_attack({"name": "mart", "beta": float(self.beta)}, self.attack)


@dataclass(frozen=True)
class GaussianNoise:
    """Cross-entropy under noise N(0, eps^2/n I), n the pixels times channels: expected squared length eps^2.

    ``eps`` is a number or text such as "8/255", in pixel units.

    The random counterpart of adversarial training at the same eps (sec. 3, after Prop. 3.2). The noisy image is
    not clamped, as the theory has it.
    """

    soft_labels = True
    eps: float
    attack: Attack | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", parse_eps(self.eps))

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(x + self.eps / math.sqrt(math.prod(x.shape[1:])) * torch.randn_like(x))
        return label_loss(logits, y), logits

    def config(self) -> dict[str, Any]:
        return {"name": "gaussian-noise", "eps": float(self.eps)}


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective that a recipe names; of the config, each takes what it has a use for.

    Raises:
        UsageError: an unknown name, or a function of one's own that cannot be imported or called.
        UsageTypeError: one that returns no objective.

    >>> make_objective(ObjectiveConfig("gaussian-noise", eps=1.0))
    GaussianNoise(eps=1.0, attack=None)
    """
    own = names_own_code(config.objective)
    if not own:
        check_choice("objective", config.objective, (*OBJECTIVES, OWN_CODE))
    if config.objective == "standard":
        return Standard()
    if config.objective == "gaussian-noise":
        return GaussianNoise(config.eps)
    attack, watched = (PGD(config.eps, config.norm, steps) for steps in (config.attack_steps, WATCHED_STEPS))
    if own:
        offered = {"beta": config.beta, "gamma": config.gamma}
        objective = call_function("objective", config.objective, {"attack": attack}, offered)
        check_objective(objective)
        return objective
    made: dict[str, Callable[[], Objective]] = {
        "adversarial": lambda: AdversarialTraining(attack),
        "trades": lambda: TRADES(attack, config.beta),
        "mart": lambda: MART(attack, config.beta),
        "awp": lambda: AWP(AdversarialTraining(attack), config.gamma),
        "trades-awp": lambda: AWP(TRADES(attack, config.beta), config.gamma),
        "feature": lambda: FARE(attack),
        "n-fgsm": lambda: NFGSM(watched),
        "atta": lambda: ATTA(watched, config.attack_steps),
        "free": lambda: FreeTraining(watched, config.attack_steps),
    }
    return made[config.objective]()
