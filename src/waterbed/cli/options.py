"""Commands from TOML files."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from waterbed.errors import UsageError, check_choice
from waterbed.files import read_toml


def from_config(kind: type, path: Path) -> Any:
    """An instance of the command with the values of a TOML file; what the file lacks keeps its default."""
    import tyro

    try:
        values = read_toml(path)
    except OSError as error:
        raise UsageError(f"--config {str(path)!r} cannot be read ({error.strerror}); name a TOML file") from error
    except ValueError as error:
        raise UsageError(f"--config {str(path)!r} is not TOML ({error}); mend it") from error
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    ready: dict[str, Any] = {n: tyro.MISSING for n, f in known.items() if f.default is MISSING}
    for name, value in values.items():
        check_choice(f"the key in --config {str(path)!r}", name, known)
        value = tuple(value) if isinstance(value, list) else value
        if not _fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", str(hints[name]))
            raise UsageError(f"--config {str(path)!r} has {name}={value!r}; it must be of type {wanted}")
        ready[name] = float(value) if hints[name] is float else value
    return kind(**ready)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value is of the type an option has: str, int, float, bool, tuples of them, or one of several."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, h) for h in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(hint, type) and type(value) is hint
