"""A radius as the field writes it, "8/255" or 0.5, and the names of the norms; needs no torch."""

from __future__ import annotations

import re
import warnings
from typing import Any

from waterbed.errors import UsageError, UsageWarning, check_number

NORMS = ("l1", "l2", "linf")
_FRACTION = re.compile(r"\s*([^/\s]+)\s*(?:/\s*([^/\s]+)\s*)?")


def parse_eps(eps: Any, argument: str = "eps", *, norm: Any = None, above: float | None = None) -> float:
    """A radius in pixel units [0, 1]; a number comes back as it is, text is a number or a fraction such as "8/255".

    With ``norm="linf"`` an eps of more than 1 warns (:class:`waterbed.errors.UsageWarning`): it allows every image.

    Raises:
        UsageError: text that is no number, a negative or infinite one, or one that is not ``above`` a bound.
        UsageTypeError: neither a number nor text.

    >>> parse_eps("8/255") == 8 / 255, parse_eps(0.5)
    (True, 0.5)
    >>> parse_eps("8:255")
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: eps='8:255' is no number; write 0.5 or a fraction such as 8/255
    """
    value = _from_text(eps, argument) if isinstance(eps, str) else eps
    check_number(argument, value, above=above, at_least=0 if above is None else None)
    if norm == "linf" and value > 1:
        meant = f"pixels lie in [0, 1]; did you mean {value:g}/255?"
        warnings.warn(f"{argument}={eps} with norm='linf' allows every image: {meant}", UsageWarning, stacklevel=3)
    return value


def _from_text(text: str, argument: str) -> float:
    match = _FRACTION.fullmatch(text)
    try:
        numerator, denominator = match.groups()
        return float(numerator) / float(denominator or 1)
    except (AttributeError, ValueError, ZeroDivisionError):
        wrong = f"{argument}={text!r} is no number; write 0.5 or a fraction such as 8/255"
        raise UsageError(wrong) from None
