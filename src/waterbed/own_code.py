"""A user's own functions, by names that a command line and a card can hold: ``package.module:function``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import Any

from waterbed.errors import UsageError

OWN_CODE = "package.module:function"


def names_own_code(name: Any) -> bool:
    """Whether this is such a name, and not one of ours.

    >>> names_own_code("my_package.images:change"), names_own_code("crop-flip")
    (True, False)
    """
    return isinstance(name, str) and ":" in name


def check_name(argument: str, name: str) -> None:
    """Raise :class:`UsageError` unless ``name`` has the form ``package.module:function``; nothing is imported."""
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), function]):
        raise UsageError(f"{argument}={name!r} is no name of a function; write {OWN_CODE}")


def import_function(argument: str, name: str) -> Callable[..., Any]:
    """The function (or another object that can be called) of this name; its module is imported.

    Raises:
        UsageError: a name of another form, no such module or attribute, or one that cannot be called. ``argument`` is
            what the message calls it.

    >>> import_function("augment", "math:sqrt")(4.0)
    2.0
    >>> import_function("augment", "math:pi")
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: augment='math:pi' is float, not a function; name one
    """
    check_name(argument, name)
    module, _, function = name.partition(":")
    try:
        with _working_directory_importable():
            found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{argument}={name!r} cannot be imported ({error}); write {OWN_CODE}, of an installed package "
            "or of a file in the working directory"
        ) from error
    if not callable(found):
        raise UsageError(f"{argument}={name!r} is {type(found).__name__}, not a function; name one")
    return found


def call_function(argument: str, name: str, needed: Mapping[str, Any], offered: Mapping[str, Any] | None = None) -> Any:
    """What the function of this name returns for the arguments ``needed``, and for those ``offered`` that it takes.

    Raises:
        UsageError: as :func:`import_function`, or a function that takes other arguments.
    """
    function, offered = import_function(argument, name), offered or {}
    try:
        parameters = signature(function).parameters
        takes_all = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
        chosen = {**needed, **{k: v for k, v in offered.items() if takes_all or k in parameters}}
        signature(function).bind(**chosen)
    except (TypeError, ValueError) as error:
        names, more = (" and ".join(map(repr, arguments)) for arguments in (needed, offered))
        raise UsageError(
            f"{argument}={name!r} cannot be called with {names} ({error}); name a function that takes {names}"
            f"{f', and {more} if it likes' if more else ''}"
        ) from error
    return function(**chosen)


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """The working directory last among the places that modules are imported from, as ``python -m`` has it first."""
    before = list(sys.path)
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before
