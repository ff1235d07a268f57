"""Progress with an ETA: a bar on a terminal, otherwise a line every ten seconds; nothing if disabled."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from waterbed.text import printable

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Reports the progress of a long job on standard error.

    >>> with Progress("training", total=3, enabled=False) as progress:
    ...     for _ in range(3):
    ...         progress.advance(message="accuracy 50 %")
    """

    def __init__(self, description: str, total: int, enabled: bool = True) -> None:
        self.description, self.total, self.done, self._skipped = printable(description), total, 0, 0
        self._started = self._printed = time.monotonic()
        # Of several processes only the first reports; torchrun sets RANK.
        self.enabled = enabled and total > 0 and os.environ.get("RANK", "0") == "0"
        self._bar: RichProgress | None = None
        if self.enabled and sys.stderr.isatty():
            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[message]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, message="")
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def skip(self, steps: int) -> None:
        """Count ``steps`` done before a restart, which are left out of the ETA."""
        self._skipped += steps
        self.done += steps
        if self._bar is not None:
            self._bar.reset(self._task, total=self.total - steps)

    def advance(self, steps: int = 1, message: str = "") -> None:
        """Count ``steps`` more, and show ``message`` after the bar or at the end of the line."""
        self.done, message = self.done + steps, printable(message)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done - self._skipped, message=message)
        elif self.enabled and time.monotonic() - self._printed > SECONDS_BETWEEN_LINES:
            self._printed = time.monotonic()
            seconds = (self._printed - self._started) * (self.total - self.done) / max(1, self.done - self._skipped)
            line = f"{self.description}: {self.done}/{self.total}, ETA {seconds:.0f} s  {message}"
            print(line.rstrip(), file=sys.stderr, flush=True)


def track(items: Iterable[T], description: str, total: int, enabled: bool = True) -> Iterator[T]:
    """Iterate over ``items`` and report progress.

    >>> list(track("ab", "letters", total=2, enabled=False))
    ['a', 'b']
    """
    with Progress(description, total, enabled) as progress:
        for item in items:
            yield item
            progress.advance()
