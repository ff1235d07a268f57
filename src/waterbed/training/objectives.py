"""What training minimises: Standard, AdversarialTraining (eq. 1), TRADES (eq. 2), MART, GaussianNoise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waterbed.attacks.attack import Attack, CheckedAttack, Maximiser, check_attack
from waterbed.attacks.pgd import PGD
from waterbed.attacks.radius import parse_eps
from waterbed.errors import UsageError, UsageTypeError, check_choice, check_number
from waterbed.models.states import evaluating
from waterbed.training.objective_config import OBJECTIVES, ObjectiveConfig

Forward = Callable[[Tensor], Tensor]


class Objective(Protocol):
    """The loss of a batch; ``fit`` takes any object of this form.

    ``attack`` is what the network is also evaluated under after each epoch; None, or no such attribute, for clean
    accuracy alone. An objective that has one is handed a fast copy of the network to attack, batch norms folded into
    convolutions; one with ``attacks_copy = False`` is handed the network itself, whose layers it may call.
    """

    attack: Attack | None

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of images ``x`` (N, C, H, W) with labels ``y`` (N,), and logits (N, K) for the accuracy.

        ``model`` has the weights of the network, for attacks. ``forward`` is the one that trains: the network itself,
        wrapped where several processes average the gradient, so the loss must come from its output.
        """

    def config(self) -> dict[str, Any]:
        """What the run folder records of it, in values that TOML has; ``name`` among them."""


def check_objective(objective: Any) -> None:
    """Raise :class:`UsageTypeError` unless ``objective`` is an :class:`Objective`.

    >>> check_objective(Standard)
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageTypeError: objective=Standard is a class; write Standard(...)
    """
    if isinstance(objective, type):
        raise UsageTypeError(f"objective={objective.__name__} is a class; write {objective.__name__}(...)")
    missing = [method for method in ("__call__", "config") if not callable(getattr(objective, method, None))]
    if missing:
        raise UsageTypeError(
            f"objective={objective!r} lacks {', '.join(missing)}; it must be an objective, such as Standard() or "
            "TRADES(PGD(eps=1.0))"
        )
    config = objective.config()
    if not isinstance(config, dict) or not isinstance(config.get("name"), str):
        raise UsageTypeError(f"objective.config() returned {config!r}; return a dict with its name: {{'name': 'mine'}}")
    if getattr(objective, "attack", None) is not None:
        check_attack(objective.attack, "objective.attack")


def check_loss(returned: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the logits that an objective returned for labels ``y`` (N,); raise unless they can be trained on.

    No value is read, so a GPU does not wait.

    Raises:
        UsageTypeError: not two tensors.
        UsageError: shapes other than () and (N, K), or a loss without a gradient.
    """
    pair = isinstance(returned, tuple | list) and len(returned) == 2 and all(isinstance(t, Tensor) for t in returned)
    if not pair:
        raise UsageTypeError(f"the objective returned {type(returned).__name__}; return (loss, logits), two tensors")
    loss, logits = returned
    if loss.ndim != 0 or logits.ndim != 2 or len(logits) != len(y):
        raise UsageError(
            f"the objective returned tensors of shapes {tuple(loss.shape)} and {tuple(logits.shape)} for {len(y)} "
            f"images; return the mean loss () and logits ({len(y)}, K)"
        )
    if not loss.requires_grad:
        raise UsageError("the objective's loss has no gradient; compute it from forward(x), since model is for attacks")
    return loss, logits


@dataclass(frozen=True)
class Standard:
    """Cross-entropy on the images as they are."""

    attack: Attack | None = field(default=None, init=False)

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(x)
        return F.cross_entropy(logits, y), logits

    def config(self) -> dict[str, Any]:
        return {"name": "standard"}


@dataclass(frozen=True)
class AdversarialTraining:
    """Cross-entropy on adversarial images: eq. 1, min_w E max_{|delta| <= eps} loss(x + delta, y; w).

    Args:
        attack: :class:`waterbed.PGD`, or a user's own (:class:`~waterbed.attacks.attack.Attack`).

    Raises:
        UsageError: in training, images from the attack that are not like those that went in.

    >>> from waterbed.attacks.pgd import PGD
    >>> AdversarialTraining(PGD(eps=0.5)).config()["eps"]
    0.5
    """

    attack: Attack

    def __post_init__(self) -> None:
        check_attack(self.attack, "attack")
        object.__setattr__(self, "_attack", CheckedAttack(self.attack))

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(self._attack(model, x, y))
        return F.cross_entropy(logits, y), logits

    def config(self) -> dict[str, Any]:
        return _with_attack({"name": "adversarial"}, self.attack)


@dataclass(frozen=True)
class TRADES:
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

    attack: Maximiser
    beta: float = ObjectiveConfig.beta
    direction: str = "clean-adversarial"

    def __post_init__(self) -> None:
        check_attack(self.attack, "attack", "maximise")
        check_number("beta", self.beta, at_least=0)
        check_choice("direction", self.direction, ("clean-adversarial", "adversarial-clean"))
        if not getattr(self.attack, "random_start", True):
            raise UsageError("attack.random_start=False leaves TRADES at a point of zero gradient; pass True")
        if getattr(self.attack, "loss", "cross-entropy") != "cross-entropy":
            raise UsageError(f"attack={self.attack!r} has a loss of its own, but TRADES ascends the KL; leave loss out")
        if getattr(self.attack, "restarts", 1) > 1:
            raise UsageError(f"attack.restarts={self.attack.restarts}; TRADES makes one run: pass restarts=1")
        object.__setattr__(self, "_attack", CheckedAttack(self.attack))

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with evaluating(model), torch.no_grad():
            target = F.log_softmax(model(x), dim=1)
        x_adv = self._attack.maximise(model, x, lambda logits: self.kl(target, F.log_softmax(logits, dim=1)))
        # One pass over both halves, so that BatchNorm sees them together and gradients are averaged once.
        clean, adversarial = forward(torch.cat([x, x_adv])).chunk(2)
        kl = self.kl(F.log_softmax(clean, dim=1), F.log_softmax(adversarial, dim=1)).mean()
        return F.cross_entropy(clean, y) + self.beta * kl, clean

    def kl(self, clean: Tensor, adversarial: Tensor) -> Tensor:
        """KL of each example in nats, from two (N, K) log-probabilities, in the chosen direction."""
        p, q = (clean, adversarial) if self.direction == "clean-adversarial" else (adversarial, clean)
        return F.kl_div(q, p, log_target=True, reduction="none").sum(1)

    def config(self) -> dict[str, Any]:
        own = {"name": "trades", "beta": float(self.beta), "direction": self.direction}
        return _with_attack(own, self.attack)


@dataclass(frozen=True)
class MART:
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

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x_adv = self._attack(model, x, y)
        # One pass over both halves, as in TRADES.
        logits, attacked_logits = forward(torch.cat([x, x_adv])).chunk(2)
        clean, adversarial = F.log_softmax(logits, dim=1), F.log_softmax(attacked_logits, dim=1)
        wrong = adversarial.scatter(1, y[:, None], -math.inf).amax(1).exp()
        missed = 1 - clean.gather(1, y[:, None]).squeeze(1).exp()
        kl = F.kl_div(adversarial, clean, log_target=True, reduction="none").sum(1)
        boosted = F.nll_loss(adversarial, y, reduction="none") - (1.0001 - wrong).log()
        return (boosted + self.beta * missed * kl).mean(), logits

    def config(self) -> dict[str, Any]:
        return _with_attack({"name": "mart", "beta": float(self.beta)}, self.attack)


@dataclass(frozen=True)
class GaussianNoise:
    """Cross-entropy under noise N(0, eps^2/n I), n the pixels times channels: expected squared length eps^2.

    ``eps`` is a number or text such as "8/255", in pixel units.

    The random counterpart of adversarial training at the same eps (sec. 3, after Prop. 3.2). The noisy image is
    not clamped, as the theory has it.
    """

    eps: float
    attack: Attack | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", parse_eps(self.eps))

    def __call__(self, model: nn.Module, forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(x + self.eps / math.sqrt(math.prod(x.shape[1:])) * torch.randn_like(x))
        return F.cross_entropy(logits, y), logits

    def config(self) -> dict[str, Any]:
        return {"name": "gaussian-noise", "eps": float(self.eps)}


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective that a recipe names; of the config, each takes what it has a use for.

    >>> make_objective(ObjectiveConfig("gaussian-noise", eps=1.0))
    GaussianNoise(eps=1.0, attack=None)
    """
    check_choice("objective", config.objective, OBJECTIVES)
    if config.objective == "standard":
        return Standard()
    if config.objective == "gaussian-noise":
        return GaussianNoise(config.eps)
    attack = PGD(config.eps, config.norm, config.attack_steps)
    if config.objective == "adversarial":
        return AdversarialTraining(attack)
    return (TRADES if config.objective == "trades" else MART)(attack, config.beta)


def _with_attack(objective: dict[str, Any], attack: Attack) -> dict[str, Any]:
    """The record of an objective and of its attack side by side; where both have a key, the objective's stands."""
    return objective | {key: value for key, value in attack.config().items() if key not in objective}
