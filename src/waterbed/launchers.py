"""Where the parts of a long job run: here, or as jobs of submitit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from waterbed.errors import UsageError

LAUNCHERS = ("here", "slurm", "local", "debug")


def submitit_executor(launcher: str, folder: Path, name: str) -> Any:
    """An executor of submitit for one of :data:`LAUNCHERS` but "here"; a job may take a day.

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
