"""The command line: one dataclass and one thin function for each command.

Options have the library's names; --help shows their defaults. torch is imported only when a command runs.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from waterbed.cli.convert import Convert
from waterbed.cli.inspection import Invert, Measure, Report
from waterbed.cli.tasks import Choose, Distance, Transfer
from waterbed.cli.training import Data, Demo, Evaluate, Sweep, Train

COMMANDS: dict[str, Any] = {
    "demo": Demo,
    "data": Data,
    "train": Train,
    "evaluate": Evaluate,
    "measure": Measure,
    "sweep": Sweep,
    "invert": Invert,
    "transfer": Transfer,
    "distance": Distance,
    "choose": Choose,
    "convert": Convert,
    "report": Report,
}


def commands() -> dict[str, Any]:
    """Every command by name: our own, and those that packages offer as entry points ``waterbed.commands``."""
    return COMMANDS | {point.name: point.load() for point in entry_points(group="waterbed.commands")}
