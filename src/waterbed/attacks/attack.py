"""What an attack is: the protocols that a user's own attack follows, and the check of what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from torch import Tensor, nn

from waterbed.errors import UsageError, UsageTypeError
from waterbed.models.states import frozen

# Loss of each example, (N, K) logits -> (N,).
PerExampleLoss = Callable[[Tensor], Tensor]
_BATCH_IS_CHECKED = ContextVar("_BATCH_IS_CHECKED", default=False)


class Attack(Protocol):
    """Adversarial images for a model; :class:`waterbed.PGD` is one, and any object of this form is another."""

    @property
    def name(self) -> str:
        """The key of its results; two attacks of one evaluation need different names."""

    def config(self) -> dict[str, Any]:
        """What a run folder records of it, in values that TOML has; ``eps`` among them where there is a radius."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Images in [0, 1] of the shape and type of ``x`` (N, C, H, W), whose labels are ``y`` (N,).

        In training and evaluation the model is in eval mode and its weights need no gradient.
        """


class Maximiser(Attack, Protocol):
    """An attack that also ascends a loss it is given, as TRADES asks for."""

    def maximise(self, model: nn.Module, x: Tensor, loss: PerExampleLoss) -> Tensor:
        """Images in [0, 1] of the shape and type of ``x`` (N, C, H, W) with a large loss."""


def check_attack(attack: Any, argument: str, *methods: str) -> None:
    """Raise :class:`UsageTypeError` unless ``attack`` is an :class:`Attack` that also has ``methods``.

    >>> check_attack(3, "attack")
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageTypeError: attack=3 lacks name, config, __call__; pass an attack, such as PGD(eps=0.5)
    """
    if isinstance(attack, type):
        raise UsageTypeError(f"{argument}={attack.__name__} is a class; write {attack.__name__}(...)")
    missing = [] if isinstance(getattr(attack, "name", None), str) else ["name"]
    missing += [m for m in ("config", "__call__", *methods) if not callable(getattr(attack, m, None))]
    if missing:
        raise UsageTypeError(f"{argument}={attack!r} lacks {', '.join(missing)}; pass an attack, such as PGD(eps=0.5)")


def batch_is_checked() -> bool:
    """Whether training or evaluation, which checked images and labels while they were on the CPU, runs the attack.

    An attack then need not read them back from the device to check them once more.
    """
    return _BATCH_IS_CHECKED.get()


@contextmanager
def _on_checked_batch(model: nn.Module) -> Iterator[None]:
    token = _BATCH_IS_CHECKED.set(True)
    try:
        with frozen(model):
            yield
    finally:
        _BATCH_IS_CHECKED.reset(token)


class CheckedAttack:
    """An attack on batches that are known to be sound, run on the frozen model; the images it returns are checked.

    Shape, type and device are checked for every batch. Values (finite, in [0, 1]) are read from the device for the
    first batch and by :meth:`check_values`, so that the batches between need no synchronisation.

    Raises:
        UsageError: the images returned are not like those given; the message names the attack.
        UsageTypeError: something else than a tensor is returned.
    """

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self._in_range: Tensor | None = None

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with _on_checked_batch(model):
            return self._checked(self.attack(model, x, y), x)

    def maximise(self, model: nn.Module, x: Tensor, loss: PerExampleLoss) -> Tensor:
        """The images of a :class:`Maximiser`."""
        with _on_checked_batch(model):
            return self._checked(self.attack.maximise(model, x, loss), x)

    def check_values(self) -> None:
        """Raise if any image so far was not finite or left [0, 1]."""
        if self._in_range is not None and not bool(self._in_range):
            raise UsageError(
                f"attack {self.attack.name!r} returned pixels that are not finite or outside [0, 1]; clamp them"
            )

    def _checked(self, x_adv: Any, x: Tensor) -> Tensor:
        if not isinstance(x_adv, Tensor):
            raise UsageTypeError(
                f"attack {self.attack.name!r} returned {type(x_adv).__name__}; return the images as a tensor like x"
            )
        if (x_adv.shape, x_adv.dtype, x_adv.device) != (x.shape, x.dtype, x.device):
            got, expected = (f"{t.dtype} {tuple(t.shape)} on {t.device}" for t in (x_adv, x))
            raise UsageError(f"attack {self.attack.name!r} returned {got} for images {expected}; return the like of x")
        x_adv = x_adv.detach()
        in_range = ((x_adv >= 0) & (x_adv <= 1)).all()  # False for NaN too
        first = self._in_range is None
        self._in_range = in_range if first else in_range & self._in_range.to(in_range.device)
        if first:
            self.check_values()
        return x_adv
