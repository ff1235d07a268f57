"""Experiment trackers beside metrics.jsonl, which is always written: accelerate's by name, and a user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from waterbed.distributed import start_tracker
from waterbed.errors import UsageError, UsageTypeError, check_choice

TRACKERS = ("tensorboard", "wandb", "mlflow")


class Tracker(Protocol):
    """Anything that takes an epoch's record; every ``accelerate.tracking.GeneralTracker`` does."""

    def log(self, values: Mapping[str, Any], step: int) -> None: ...

    def finish(self) -> None: ...


@contextmanager
def tracking(
    trackers: Sequence[str | Tracker], path: Path | None, config: Mapping[str, Any], is_main: bool
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Gives a function that hands a record to every tracker; they are finished at the end, also after an exception."""
    with ExitStack() as stack:
        started: list[Tracker] = []
        for tracker in trackers if is_main else ():
            if isinstance(tracker, str):
                tracker = _by_name(tracker, path, config)
            elif not all(callable(getattr(tracker, method, None)) for method in ("log", "finish")):
                raise UsageTypeError(f"trackers={tracker!r} must have log(values, step) and finish(); add them")
            stack.callback(tracker.finish)
            started.append(tracker)

        def track(record: Mapping[str, Any]) -> None:
            for tracker in started:
                tracker.log(dict(record), step=record["epoch"])

        yield track


def _by_name(name: str, path: Path | None, config: Mapping[str, Any]) -> Tracker:
    check_choice("trackers", name, TRACKERS)
    if path is None:
        raise UsageError(f"trackers={name!r} needs a run folder; pass out=")
    try:
        installed = find_spec(name) is not None
    except ValueError:  # imported from nowhere, such as a stand-in
        installed = False
    if not installed:
        raise UsageError(f"trackers={name!r} is not installed; pip install 'waterbed[{name}]'")
    return start_tracker(name, path, config)
