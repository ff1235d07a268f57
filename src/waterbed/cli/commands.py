"""Which commands there are: waterbed's own, and those that other packages offer as entry points."""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from waterbed.cli import COMMANDS
from waterbed.errors import UsageError, check_choice

GROUP = "waterbed.commands"


def own_commands() -> dict[str, EntryPoint]:
    """Waterbed's own commands by name."""
    return {name: EntryPoint(name, value, GROUP) for name, value in COMMANDS.items()}


def offered_commands() -> dict[str, list[EntryPoint]]:
    """The commands of other packages by name; several of one name are different ones."""
    offered: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        offered.setdefault(point.name, {})[point.value] = point  # a package on the path twice counts once
    return {name: list(points.values()) for name, points in offered.items()}


def load_command(name: str) -> Any:
    """The class of a command; only its module is imported.

    Raises:
        UsageError: there is no such command, two packages offer it, or the package that does is broken.
    """
    own, offered = own_commands(), offered_commands()
    check_choice("command", name, [*own, *(n for n in offered if n not in own)])
    if name in own:  # not in the try below: what is wrong with our own modules is a bug, to be seen as one
        return own[name].load()
    points = offered[name]
    if len(points) > 1:
        values = " and ".join(point.value for point in points)
        raise UsageError(f"command={name!r} is offered by {values}; uninstall the package of one of them")
    try:
        return points[0].load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"command={name!r} ({points[0].value}) cannot be loaded ({reason}); update or uninstall its package"
        ) from error


def shadowed(name: str) -> list[str]:
    """A line for each command of another package that has the name of one of ours, which is the one that runs."""
    points = offered_commands().get(name, []) if name in COMMANDS else []
    return [f"{point.value} offers a command {name!r} too; waterbed's own runs" for point in points]


def summaries() -> dict[str, str]:
    """Every command by name with its one line; for one that cannot be loaded, why."""
    lines = {}
    for name in dict.fromkeys([*COMMANDS, *offered_commands()]):
        try:
            lines[name] = " ".join((inspect.getdoc(load_command(name)) or "").split("\n\n")[0].split())
        except UsageError as error:
            lines[name] = str(error)
    return lines
