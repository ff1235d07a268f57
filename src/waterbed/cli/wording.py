"""Messages of the library in the words of the command line: ``size=9`` is ``--size 9`` to whoever typed that."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from typing import Any, get_type_hints

from tyro.conf import Positional

_QUOTED = r"""(?<!\w)'(?:\\.|[^'\\])*'|(?<!\w)"(?:\\.|[^"\\])*\""""
_IN_BRACKETS = r"\((?:[^()]|\([^()]*\))*\)"
_VALUE = rf"{_QUOTED}|\w[\w.]*{_IN_BRACKETS}|{_IN_BRACKETS}|\[[^\]]*\]|[^\s,;:)]*"
# Quoted text and calls, such as PGD(eps=0.5), stay as they are.
_PARTS = re.compile(rf"(?:{_QUOTED}|\w[\w.]*{_IN_BRACKETS})|(?<![\w.(\[-])(?P<name>[a-z]\w*)=(?!=)(?P<value>{_VALUE})")


def as_typed(message: str, command: Any) -> str:
    """The message with each ``argument=value`` as the option of the command, or as its positional argument.

    Where the library's argument has another name than the option, the option is the one whose name ends in that of the
    argument (``steps`` is ``--attack-steps``) or that has the text which the message shows.

    >>> from waterbed.cli.train import Train
    >>> as_typed("size=0 must be >= 1; pass download=True", Train(data="digits", out="o", size=0))
    '--size 0 must be >= 1; pass --download'
    >>> as_typed("name_or_folder='digit' does not exist", Train(data="digit", out="o"))
    "DATA 'digit' does not exist"
    """
    values = {f.name: getattr(command, f.name) for f in fields(command)}
    hints = get_type_hints(type(command), include_extras=True)

    def replace(part: re.Match[str]) -> str:
        name, value = part["name"], part["value"]
        field = None if name is None else _field(name, value, values)
        if field is None:
            return part[0]
        option = _option(field, hints[field])
        if isinstance(values[field], bool) and value in ("True", "False"):
            return option if value == "True" else option.replace("--", "--no-", 1)
        return f"{option} {_words(value)}".rstrip()

    return _PARTS.sub(replace, message)


def _field(argument: str, value: str, values: dict[str, Any]) -> str | None:
    """The field of the command that an argument of the library came from; None if that is not known."""
    named = [name for name in values if name == argument or name.endswith(f"_{argument}")]
    having = [name for name in named or values if value in _texts(values[name])]
    if having and (named or value.startswith(("'", '"'))):  # equal numbers say nothing
        return having[0] if named or len(having) == 1 else None
    return argument if argument in values else named[0] if len(named) == 1 else None


def _texts(value: Any) -> list[str]:
    return [repr(value), *(map(repr, value) if isinstance(value, tuple) else ())]


def _option(name: str, hint: Any) -> str:
    """What stands for the field in --help."""
    extras = getattr(hint, "__metadata__", ())
    if Positional not in extras:
        return f"--{name.replace('_', '-')}"
    metavars = (extra.metavar for extra in extras if getattr(extra, "metavar", None))
    return next(metavars, name.upper()).split()[0]


def _words(value: str) -> str:
    """Values as they are typed: those of a tuple or list beside each other."""
    if not value.startswith(("(", "[")):
        return value
    try:
        return " ".join(map(repr, ast.literal_eval(value)))
    except (ValueError, SyntaxError):
        return value
