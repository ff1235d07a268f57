"""Commands from TOML files."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from waterbed.errors import UsageError, check_choice


def from_config(kind: type, path: Path) -> Any:
    """An instance of the command with the values of a TOML file; what the file lacks keeps its default."""
    import tyro

    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"--config {str(path)!r} cannot be read ({error.strerror}); name a TOML file") from error
    except ValueError as error:
        raise UsageError(f"--config {str(path)!r} is not TOML ({error}); mend it") from error
    known = {f.name: f for f in fields(kind)}
    ready: dict[str, Any] = {n: tyro.MISSING for n, f in known.items() if f.default is MISSING}
    for name, value in values.items():
        check_choice(f"the key in --config {str(path)!r}", name, known)
        value = tuple(value) if isinstance(value, list) else value
        expected = known[name].default
        value = float(value) if isinstance(expected, float) and type(value) is int else value
        if expected not in (None, MISSING) and type(value) is not type(expected):
            raise UsageError(
                f"--config {str(path)!r} has {name}={value!r}; it must be of type {type(expected).__name__}"
            )
        ready[name] = value
    return kind(**ready)
