"""Launchers of the parts of a long job: in this process, or as jobs submitted by submitit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from waterbed.errors import UsageError

LAUNCHERS = ("here", "slurm", "local", "debug")


def submitit_executor(launcher: str, folder: Path, name: str) -> Any:
    """A submitit executor whose jobs may run for a day.

    Args:
        launcher: one of :data:`LAUNCHERS` other than "here".
        folder: for submitit's logs.
        name: of the jobs.

    Raises:
        UsageError: submitit is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise UsageError(f"launcher={launcher!r} needs submitit; pip install 'waterbed[slurm]'") from error
    executor = submitit.AutoExecutor(folder=folder, cluster=launcher)
    executor.update_parameters(name=name, timeout_min=60 * 24)
    return executor
