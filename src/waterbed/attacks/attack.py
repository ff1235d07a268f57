"""What an attack is: the protocols that a user's own attack follows, and the check of what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from waterbed.errors import UsageError, UsageTypeError
from waterbed.models.states import frozen

# Loss of each example, (N, K) logits -> (N,).
PerExampleLoss = Callable[[Tensor], Tensor]
_READ_EVERY = 50  # batches, on a device where reading a value waits for all work
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


class Bounded(Attack, Protocol):
    """An attack that tells which images left its ball; training and evaluation then ask it.

    :func:`waterbed.as_attack` gives any attack this form. :class:`waterbed.PGD` projects, and is not asked.
    """

    def outside(self, x_adv: Tensor, x: Tensor) -> Tensor | None:
        """(N,) bool, for ``x_adv`` made from ``x`` (N, C, H, W); None where the ball is not known."""


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
        wrap = ", or as_attack(it, name='mine')" if callable(attack) else ""
        raise UsageTypeError(
            f"{argument}={attack!r} lacks {', '.join(missing)}; pass an attack, such as PGD(eps=0.5){wrap}"
        )
    if getattr(attack, "targeted", False) is True:
        raise UsageError(
            f"{argument}={attack.name!r} is targeted, but the labels it gets here are the true ones; write "
            "as_attack(lambda model, x, y: attack(model, x, targets(y)), name='targeted')"
        )


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

    Shape, type and device are checked for every batch. Values (finite, in [0, 1], in the ball of a :class:`Bounded`
    attack) are read from the device for the first batch, then for every batch on a CPU and every 50th elsewhere, so
    that the batches between need no synchronisation, and by :meth:`check_values`.

    Raises:
        UsageError: the images returned are not like those given, or left the ball; the message names the attack.
        UsageTypeError: something else than a tensor is returned.
    """

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self._batches = 0
        self._sound: Tensor | None = None  # (2,) whether all images so far were in range, and in the ball

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with _on_checked_batch(model):
            x_adv = self._like(self.attack(model, x, self._labels(y)), x)
        self._record(x_adv, self._outside(x_adv, x))
        return x_adv

    def with_outside(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The images, and which left the ball, (N,) bool: no error here, for an evaluation that does not count them."""
        with _on_checked_batch(model):
            x_adv = self._like(self.attack(model, x, y), x)
        outside = self._outside(x_adv, x)
        self._record(x_adv, None)
        return x_adv, torch.zeros(len(x), dtype=torch.bool, device=x.device) if outside is None else outside

    def maximise(self, model: nn.Module, x: Tensor, loss: PerExampleLoss) -> Tensor:
        """The images of a :class:`Maximiser`."""
        with _on_checked_batch(model):
            x_adv = self._like(self.attack.maximise(model, x, loss), x)
        self._record(x_adv, self._outside(x_adv, x))
        return x_adv

    def check_values(self) -> None:
        """Raise if any image so far was not finite, left [0, 1] or, where that is an error, left the ball."""
        in_range, in_ball = (True, True) if self._sound is None else self._sound.tolist()
        if not in_range:
            raise UsageError(
                f"attack {self.attack.name!r} returned pixels that are not finite or outside [0, 1]; clamp them"
            )
        if not in_ball:
            raise UsageError(
                f"attack {self.attack.name!r} returned images outside its ball ({ball_of(self.attack)}); project them, "
                "or name the ball that it keeps to"
            )

    def _labels(self, y: Tensor) -> Tensor:
        """Probabilities (N, K) as they are for an attack that takes them, else the class (N,) of largest weight."""
        return y if y.ndim == 1 or getattr(self.attack, "soft_labels", False) else y.argmax(1)

    def _outside(self, x_adv: Tensor, x: Tensor) -> Tensor | None:
        outside = getattr(self.attack, "outside", None)
        return None if outside is None else outside(x_adv, x)

    def _like(self, x_adv: Any, x: Tensor) -> Tensor:
        """What came back, as long as it is a tensor like ``x``."""
        if not isinstance(x_adv, Tensor):
            raise UsageTypeError(
                f"attack {self.attack.name!r} returned {type(x_adv).__name__}; return the images as a tensor like x"
            )
        if (x_adv.shape, x_adv.dtype, x_adv.device) != (x.shape, x.dtype, x.device):
            got, expected = (f"{t.dtype} {tuple(t.shape)} on {t.device}" for t in (x_adv, x))
            raise UsageError(f"attack {self.attack.name!r} returned {got} for images {expected}; return the like of x")
        return x_adv.detach()

    def _record(self, x_adv: Tensor, outside: Tensor | None) -> None:
        in_range = ((x_adv >= 0) & (x_adv <= 1)).all()  # False for NaN too
        in_ball = torch.ones_like(in_range) if outside is None else ~outside.any()
        sound = torch.stack([in_range, in_ball])
        self._sound = sound if self._sound is None else sound & self._sound.to(sound.device)
        if self._batches % _READ_EVERY == 0 or sound.device.type == "cpu":
            self.check_values()
        self._batches += 1


def ball_of(attack: Attack) -> str:
    """Such as "l2, eps=0.5", from what the attack records of itself."""
    config = attack.config()
    return f"{config.get('norm', 'its norm')}, eps={config.get('eps', '?')}"
