"""The command line: one dataclass and one thin function for each command.

Options have the library's names; --help shows their defaults. torch is imported only when a command runs.
"""

from __future__ import annotations

from typing import Any

from waterbed.cli.convert import Convert
from waterbed.cli.inspection import Invert, Measure, Report
from waterbed.cli.paper import Paper
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
    "paper": Paper,
}
