"""The exceptions of the library, and checks of arguments that raise them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

SEEDS = 2**32  # numpy's legacy generator, which scikit-learn uses, takes no larger seed


class UsageError(ValueError):
    """A wrong argument, file or folder. The message names it, shows the value received and says what to do.

    The command line prints it as one line and exits with code 2.
    """


class UsageTypeError(TypeError):
    """The same for an argument of the wrong type."""


class UsageWarning(UserWarning):
    """A use that is allowed but hardly meant; the command line prints it as one line."""


class DivergenceError(RuntimeError):
    """The training loss became infinite or NaN; the message names the epoch and the batch."""


class StoppedError(RuntimeError):
    """Training was stopped by SIGTERM after saving its state; the same call resumes from there.

    Attributes:
        saved: False where there was no run folder to save to.
    """

    def __init__(self, message: str, saved: bool = True) -> None:
        super().__init__(message)
        self.saved = saved


def check_choice(argument: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise :class:`UsageError` unless ``value`` is one of ``choices``.

    >>> check_choice("norm", "l3", ["l2", "linf"])
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: norm='l3' is unknown; choose one of 'l2', 'linf'
    """
    choices = list(choices)
    if value in choices:
        return
    close = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    listed = ", ".join(repr(c) for c in choices)
    raise UsageError(f"{argument}={value!r} is unknown; choose one of {listed}{hint}")


def check_number(argument: str, value: Any, *, above: float | None = None, at_least: float | None = None) -> None:
    """Raise unless ``value`` is a finite number, ``> above`` or ``>= at_least`` where given.

    Raises:
        UsageError: the value is infinite, NaN or out of bounds.
        UsageTypeError: it is not a number.

    >>> check_number("eps", -1.0, at_least=0)
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: eps=-1.0 must be a finite number >= 0
    """
    bound = "" if above is None else f" > {above:g}"
    bound = bound if at_least is None else f" >= {at_least:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageTypeError(f"{argument}={value!r} must be a number{bound}, not {type(value).__name__}")
    finite = math.isfinite(value)
    if not finite or (above is not None and value <= above) or (at_least is not None and value < at_least):
        raise UsageError(f"{argument}={value!r} must be a finite number{bound}")


def check_count(argument: str, value: Any, at_least: int = 1) -> None:
    """Raise unless ``value`` is a whole number >= ``at_least``.

    Raises:
        UsageError: the value is too small.
        UsageTypeError: it is not a whole number.

    >>> check_count("steps", 0)
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: steps=0 must be a whole number >= 1
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageTypeError(f"{argument}={value!r} must be a whole number >= {at_least}")
    if value < at_least:
        raise UsageError(f"{argument}={value!r} must be a whole number >= {at_least}")


def check_seed(argument: str, value: Any, below: int = SEEDS) -> None:
    """Raise unless ``value`` is a whole number from 0 to ``below - 1``.

    Raises:
        UsageError: the value lies outside.
        UsageTypeError: it is not a whole number.

    >>> check_seed("seed", 2**32)
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: seed=4294967296 must be a whole number >= 0 and below 4294967296
    """
    wanted = f"{argument}={value!r} must be a whole number >= 0 and below {below}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageTypeError(wanted)
    if not 0 <= value < below:
        raise UsageError(wanted)
