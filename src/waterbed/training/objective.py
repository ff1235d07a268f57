"""What an objective is: the protocol that a user's own follows, and the checks of it and of what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from waterbed.attacks.attack import Attack, check_attack
from waterbed.errors import UsageError, UsageTypeError

Forward = Callable[[Tensor], Tensor]


class Objective(Protocol):
    """The loss of a batch; ``fit`` takes any object of this form.

    ``attack`` is what the network is also evaluated under after each epoch; None, or no such attribute, for clean
    accuracy alone. An objective that has one is handed a fast copy of the network to attack, batch norms folded into
    convolutions; one with ``attacks_copy = False`` is handed the network itself, whose layers it may call.

    One with ``compiles = False`` runs the network in parts, and is refused with ``fit(compile=True)``.

    One with ``replays = m`` trains on every batch m times in succession. One with a state of its own, which is to
    survive an interruption, has ``state()``, a dict of tensors, and ``restore(state, device)``. One with
    ``begin_batch`` is a :class:`~waterbed.training.warm_start.Follower`.

    One with ``soft_labels = True`` can be trained with mixup, cutmix and label smoothing: ``y`` may be (N, K) then.

    An objective that compares with the network as it was has a method ``started_from(model)``, which is called when a
    training begins and returns the objective to minimise.
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

    >>> from waterbed.training.objectives import Standard
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


def started(objective: Objective, model: nn.Module) -> Objective:
    """The objective for a training that starts from ``model``."""
    start = getattr(objective, "started_from", None)
    return objective if start is None else start(model)


def check_ascends(attack: Any, objective: str, loss: str) -> None:
    """Raise unless ``attack`` is a :class:`~waterbed.attacks.attack.Maximiser` for an objective that has it ascend a
    ``loss`` which is 0, gradient included, at the image itself."""
    check_attack(attack, "attack", "maximise")
    if not getattr(attack, "random_start", True):
        raise UsageError(f"attack.random_start=False leaves {objective} at a point of zero gradient; pass True")
    if getattr(attack, "loss", "cross-entropy") != "cross-entropy":
        raise UsageError(f"attack={attack!r} has a loss of its own, but {objective} ascends {loss}; leave loss out")
    if getattr(attack, "restarts", 1) > 1:
        raise UsageError(f"attack.restarts={attack.restarts}; {objective} makes one run: pass restarts=1")


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


def label_loss(logits: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy, in nats, of logits (N, K) with labels ``y``, classes (N,) or
    probabilities (N, K)."""
    return F.cross_entropy(logits, y)


def with_attack(objective: dict[str, Any], attack: Attack) -> dict[str, Any]:
    """The record of an objective and of its attack side by side; where both have a key, the objective's stands."""
    return objective | {key: value for key, value in attack.config().items() if key not in objective}
