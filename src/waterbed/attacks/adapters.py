"""as_attack: functions and attack objects of other packages, as attacks of this one.

None of the packages is imported; what tells them apart is the shape of their calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from waterbed.attacks.attack import CheckedAttack, batch_is_checked
from waterbed.attacks.balls import Ball, as_ball, outside
from waterbed.attacks.radius import parse_eps
from waterbed.data.images import check_images, check_labels
from waterbed.errors import UsageError, UsageTypeError

# Adversarial images from a model, images (N, C, H, W) in [0, 1] and labels (N,).
Call = Callable[[nn.Module, Tensor, Tensor], Any]


@dataclass(frozen=True, repr=False)
class AdaptedAttack:
    """What :func:`as_attack` returns."""

    call: Call
    name: str
    eps: float | None
    norm: str | Ball | None
    settings: dict[str, Any] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        """Without the address of a function: files of results compare it."""
        return f"as_attack({self.name!r}, eps={self.eps!r}, norm={self._norm_name!r})"

    @property
    def _norm_name(self) -> str | None:
        return None if self.norm is None else as_ball(self.norm).name

    def config(self) -> dict[str, Any]:
        """What a run folder records of it: its name, its ball, and the config of an attack that has one."""
        ball = {} if self.eps is None else {"eps": float(self.eps)}
        ball |= {} if self.norm is None else {"norm": self._norm_name}
        return {**self.settings, "attack": self.name, **ball}

    def outside(self, x_adv: Tensor, x: Tensor) -> Tensor | None:
        """(N,) which images left the ball (:func:`waterbed.attacks.balls.outside`); None where it is not known."""
        if self.eps is None or self.norm is None:
            return None
        return outside(as_ball(self.norm), self.eps, x_adv, x)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, C, H, W) in [0, 1] with labels ``y`` (N,)."""
        if batch_is_checked():
            return self.call(model, x, y)
        check_images(x, "x")
        check_labels(y, torch.iinfo(torch.int64).max, "y")
        return CheckedAttack(self)(model, x, y)


def as_attack(
    attack: Any, name: str | None = None, eps: float | str | None = None, norm: str | Ball | None = None
) -> AdaptedAttack:
    """Any attack for :func:`waterbed.evaluate`, :class:`waterbed.AdversarialTraining`, ``fit`` and ``transfer``.

    It runs on the model that these pass it, in eval mode, also if it was built for another; the package's own object
    is left as it was. (For images made on another model, pass ``lambda model, x, y: attack(x, y)``.) Images that come
    back must have the shape, type and device of ``x`` and lie in [0, 1]. Where ``eps`` and ``norm`` are known they
    must also lie in that ball, up to float rounding: in training and when called directly, one that does not is an
    error; ``evaluate`` warns, and counts it as not broken.

    Args:
        attack: a function (model, x, y) -> x_adv, such as those of adv-lib (settings through ``functools.partial``),
            or an attack object of torchattacks, foolbox or adversarial-robustness-toolbox.
        name: the key of its results; by default its ``name``, else that of its function or class with norm and eps.
        eps: radius in pixel units, as in :class:`waterbed.PGD`; by default the attack's own, where it has one. foolbox
            takes it from here.
        norm: "l1", "l2", "linf" or an own ball; by default the attack's own, where it has one.

    Raises:
        UsageError: a lambda without a name, eps without norm, another eps than the attack has, foolbox without eps;
            when called, images that are not like those given.
        UsageTypeError: no function of (model, x, y), and no attack object.

    >>> invert = as_attack(lambda model, x, y: 1 - x, name="negative")
    >>> invert(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2), torch.tensor([0])).sum()
    tensor(4.)
    """
    if isinstance(attack, type):
        raise UsageTypeError(f"attack={attack.__name__} is a class; write as_attack({attack.__name__}(...))")
    own_eps, own_norm = _own_eps(attack), _own_norm(attack)
    norm = own_norm if norm is None else norm
    if norm is not None:
        as_ball(norm)
    if eps is None:
        eps = own_eps if norm is not None else None
    else:
        eps = parse_eps(eps, norm=norm)
        if own_eps is not None and abs(own_eps - eps) > 1e-6 * max(own_eps, eps):
            raise UsageError(f"eps={eps:g}, but the attack was made with eps={own_eps:g}; pass that, or leave eps out")
        if norm is None:
            raise UsageError(f"eps={eps:g} needs the norm it is measured in; pass norm='linf', 'l2' or 'l1'")
    call = _call(attack, eps)
    if name is None:
        complete = eps is None or isinstance(getattr(attack, "name", None), str)
        ball = "" if complete else f" {as_ball(norm).name} eps={eps:g}"
        name = _own_name(attack) + ball
    elif not isinstance(name, str) or not name:
        raise UsageTypeError(f"name={name!r} must be text; write name='mine'")
    settings = attack.config() if callable(getattr(attack, "config", None)) else {}
    return AdaptedAttack(call, name, eps, norm, settings)


def _call(attack: Any, eps: float | None) -> Call:
    """The attack as a function of (model, x, y), whatever the shape of its own call."""
    if callable(getattr(attack, "generate", None)) and hasattr(attack, "estimator"):
        return partial(_art, attack)
    if not callable(attack):
        raise UsageTypeError(f"attack={attack!r} is no function; pass one of (model, x, y), or an attack object")
    if isinstance(getattr(attack, "model", None), nn.Module):
        return partial(_bound, attack)
    try:
        signature = inspect.signature(attack)
    except ValueError:  # built in
        return attack
    if "epsilons" in signature.parameters:
        if eps is None:
            raise UsageError("eps=None, but this attack takes its radius when it is called; pass eps=8/255, say")
        return partial(_foolbox, attack, eps)
    try:
        signature.bind(None, None, None)
    except TypeError:
        raise UsageTypeError(
            f"attack takes {signature}, not (model, x, y); write as_attack(lambda model, x, y: ..., name='mine')"
        ) from None
    return attack


def _bound(attack: Any, model: nn.Module, x: Tensor, y: Tensor) -> Any:
    """torchattacks: an object with a ``model``, and parts that have it too, called with (x, y)."""
    with ExitStack() as stack:
        for part in _parts(attack, attack.model, set()):
            stack.enter_context(_replaced(part, model=model, device=x.device))
        return attack(x, y)


def _parts(value: Any, model: nn.Module, visited: set[int]) -> Iterator[Any]:
    """Every object in ``value``, itself included, that has ``model`` as its ``model``."""
    if id(value) in visited:
        return
    visited.add(id(value))
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item, model, visited)
    elif isinstance(value, dict):
        yield from _parts(list(value.values()), model, visited)
    elif not isinstance(value, nn.Module) and getattr(value, "model", None) is model:
        yield value
        yield from _parts(list(vars(value).values()), model, visited)


def _art(attack: Any, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """adversarial-robustness-toolbox: ``generate`` from and to arrays, by an estimator that wraps the model.

    It draws from numpy's global generator, which is seeded from torch's and put back.
    """
    estimator, state = attack.estimator, np.random.get_state()  # noqa: NPY002
    np.random.seed(int(torch.randint(2**31, ())))  # noqa: NPY002
    try:
        with _replaced(estimator._model, _model=model), _replaced(estimator, _device=x.device):
            x_adv = attack.generate(x=x.detach().cpu().numpy(), y=y.cpu().numpy())
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return torch.as_tensor(x_adv, dtype=x.dtype, device=x.device)


class _Bounds(NamedTuple):
    lower: float = 0.0
    upper: float = 1.0


class _FoolboxModel:
    """What foolbox asks of a model: its range of pixels, and logits in the wrapper that the images come in."""

    bounds = _Bounds()

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, x: Any) -> Any:
        return type(x)(self.model(x.raw)) if hasattr(x, "raw") else self.model(x)


def _foolbox(attack: Any, eps: float, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """foolbox: called with a model of its own kind, returns the raw images, those clipped to eps, and its success."""
    return attack(_FoolboxModel(model), x, y, epsilons=eps)[1]


@contextmanager
def _replaced(target: Any, **values: Any) -> Iterator[None]:
    """The attributes that ``target`` has, set to other values for a while."""
    before = {name: getattr(target, name) for name in values if hasattr(target, name)}
    try:
        for name in before:
            setattr(target, name, values[name])
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


def _own_name(attack: Any) -> str:
    inside = attack.func if isinstance(attack, partial) else attack
    for name in (getattr(inside, "name", None), getattr(inside, "attack", None), getattr(inside, "__name__", None)):
        if isinstance(name, str) and name != "<lambda>":
            return name
    if inspect.isroutine(inside):
        raise UsageError("name=None, but the attack has no name of its own; pass name='mine'")
    return type(inside).__name__


def _own_eps(attack: Any) -> float | None:
    eps = getattr(attack, "eps", None)
    return float(eps) if isinstance(eps, int | float) and not isinstance(eps, bool) else None


def _own_norm(attack: Any) -> str | Ball | None:
    """The norm that an object names: as ours do, "Linf", a number, or the ``p`` of its distance (foolbox)."""
    norm = getattr(attack, "norm", None)
    if norm is None:
        try:
            norm = attack.distance.p
        except (AttributeError, ValueError):  # foolbox raises where it depends
            return None
    return _NORMS.get(str(norm).lower(), None if isinstance(norm, str | int | float) else norm)


_NORMS = {"1": "l1", "1.0": "l1", "l1": "l1", "2": "l2", "2.0": "l2", "l2": "l2", "inf": "linf", "linf": "linf"}
