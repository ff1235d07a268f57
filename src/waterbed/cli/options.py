"""What options look like in --help, where they come from, and their values from TOML files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, field, fields, make_dataclass
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from waterbed.attacks.radius import parse_eps
from waterbed.errors import UsageError, check_choice
from waterbed.files import read_toml

Words = Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]")]

# Options that several commands have.
Runs = Positional[Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]", help="Run folders or network files.")]]
RunData = Annotated[str | None, arg(help="Data set or folder; by default the one the run was trained on.")]
Root = Annotated[
    str | None, arg(help="Folder of named data sets; by default $WATERBED_DATA, else ~/.cache/waterbed/data.")
]
Download = Annotated[bool, arg(help="Download a named data set that is missing.")]
Fetch = Annotated[bool, arg(help="Download networks of the Hugging Face Hub (hf:owner/name:file) that are missing.")]
Force = Annotated[bool, arg(help="Replace files that this command did not write.")]
Size = Annotated[int | None, arg(help="Side of the square images.")]
Workers = Annotated[int, arg(help="Processes that decode images, for data too large for memory.")]
Radius = Annotated[
    float,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT|N/255",
        instance_from_str=lambda words: parse_eps(words[0]),
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda value: [str(value)],
    ),
]
# As one option, not a tuple of Radius: tyro then says which word is wrong, and why.
Radii = Annotated[
    tuple[float, ...],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="FLOAT|N/255 [...]",
        instance_from_str=lambda words: tuple(map(parse_eps, words)),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda values: [str(value) for value in values],
    ),
]
Channels = Annotated[int | None, arg(help="1 (grey) or 3 (RGB).")]


def options_of(config: Any, only: Sequence[str] | None = None, **types: Any) -> type:
    """A dataclass, to be the base of a command, with one option for each field of ``config``, or for some.

    The names, types and help lines (``metadata["help"]``) are those of its class, the defaults its own values.

    Args:
        config: an instance of a dataclass.
        only: the names of the fields to offer; all by default.
        types: by name, types that differ on the command line, where everything is text or a number.
    """
    hints = get_type_hints(type(config)) | types
    options = []
    for f in fields(config):
        if only is not None and f.name not in only:
            continue
        annotated = Annotated[hints[f.name], arg(help=_sentence(f.metadata["help"], f.metadata.get("choices", ())))]
        options.append((f.name, annotated, field(default=getattr(config, f.name), metadata=f.metadata)))
    return make_dataclass(f"{type(config).__name__}Options", options, kw_only=True)


def _sentence(text: str, choices: Sequence[str]) -> str:
    """A help line with a capital and a full stop; a choice that it begins with stays as it is typed."""
    starts_with_choice = text.split()[0].rstrip(",") in choices
    return (text if starts_with_choice else text[0].upper() + text[1:]) + "."


def as_shown(kind: type) -> type:
    """The command as --help shows it: no default where it is nothing, which the text below the option explains.

    Without this, tyro writes ``--lr {None}|FLOAT`` and ``(default: None)``.
    """
    annotations = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        bare, *_ = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if NoneType in get_args(bare):
            (given,) = (one for one in get_args(bare) if one is not NoneType)
            annotations[name] = Annotated[hint, arg(metavar=given.__name__.upper(), help_behavior_hint="")]
        elif getattr(kind, name, None) == () or Positional in getattr(hint, "__metadata__", ()):
            annotations[name] = Annotated[hint, arg(help_behavior_hint=_unless_nothing)]
    return type(kind.__name__, (kind,), {"__annotations__": annotations, "__doc__": kind.__doc__})


def _unless_nothing(default: str) -> str:
    return "" if default in ("", "()") else f"(default: {default})" if default != "REQUIRED" else "(required)"


def values_of(kind: type, command: Any) -> dict[str, Any]:
    """The values that a command has for the fields of the dataclass ``kind``."""
    return {f.name: getattr(command, f.name) for f in fields(kind)}


def from_config(kind: type, path: Path) -> Any:
    """An instance of the command with the values of a TOML file; what the file lacks keeps its default."""
    import tyro

    try:
        values = read_toml(path)
    except OSError as error:
        raise UsageError(f"--config {str(path)!r} cannot be read ({error.strerror}); name a TOML file") from error
    except ValueError as error:
        raise UsageError(f"--config {str(path)!r} is not TOML ({error}); correct it") from error
    hints = get_type_hints(kind)
    radii = {name for name, hint in get_type_hints(kind, include_extras=True).items() if _holds_radii(hint)}
    known = {f.name: f for f in fields(kind)}
    ready: dict[str, Any] = {n: tyro.MISSING for n, f in known.items() if f.default is MISSING}
    for name, value in values.items():
        check_choice(f"the key in --config {str(path)!r}", name, known)
        value = tuple(value) if isinstance(value, list) else value
        if name in radii:  # a fraction is text in TOML
            read = partial(_as_radius, argument=f"--config {str(path)!r}: {name}")
            value = tuple(map(read, value)) if isinstance(value, tuple) else read(value)
        if not _fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", str(hints[name]))
            raise UsageError(f"--config {str(path)!r} has {name}={value!r}; it must be of type {wanted}")
        ready[name] = float(value) if hints[name] in (float, float | None) and value is not None else value
    return kind(**ready)


def _holds_radii(hint: Any) -> bool:
    """Whether an option is a :data:`Radius` or :data:`Radii`."""
    return any(isinstance(extra, PrimitiveConstructorSpec) for extra in getattr(hint, "__metadata__", ()))


def _as_radius(value: Any, argument: str) -> Any:
    return parse_eps(value, argument) if isinstance(value, str) else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value is of the type an option has: str, int, float, bool, tuples of them, or one of several."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, h) for h in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(hint, type) and type(value) is hint
