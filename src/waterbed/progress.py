"""Progress with an ETA: a bar on a terminal or in a notebook, else a line every ten seconds; nothing if disabled."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from waterbed.text import printable

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0
FORGETTING = 3  # the average behind an ETA is, roughly, over the last third of the steps


_silent: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silence() -> Iterator[None]:
    """No progress and no announcement within, whatever is asked for."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def is_silent() -> bool:
    """Whether :func:`silence` is in force."""
    return _silent.get()


def announce(line: str, enabled: bool = True) -> None:
    """A line on standard error about what is going on, as part of the progress of a long job."""
    if enabled and not is_silent():
        print(line, file=sys.stderr, flush=True)


class Rate:
    """The duration of a step as a moving average: it forgets slow first steps, and spreads what comes once an epoch.

    >>> rate = Rate()
    >>> rate.add(10.0, 1)
    >>> rate.seconds
    10.0
    >>> for _ in range(50):
    ...     rate.add(2.0, 2)
    >>> round(rate.seconds, 2)
    1.0
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._steps = 0

    def add(self, seconds: float, steps: int) -> None:
        """``steps`` more took ``seconds`` together."""
        self._steps += steps
        share = min(1.0, (FORGETTING + 1) * steps / (self._steps + FORGETTING))  # polynomial decay
        self.seconds = (1 - share) * (self.seconds or 0.0) + share * seconds / steps


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(4000), duration(59.6)
    ('1:06:40', '0:01:00')
    """
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left:02}"


class _Remaining(ProgressColumn):
    """What is left by the :class:`Rate` of a task, counted down until its next step."""

    def render(self, task: Task) -> Text:
        left = task.fields["left"]()
        return Text("ETA " + ("-:--:--" if left is None else duration(left)), style="progress.remaining")


def in_notebook() -> bool:
    """Whether a notebook is there to show a bar in: that takes ipywidgets, too."""
    return Console(stderr=True).is_jupyter and find_spec("ipywidgets") is not None


class Progress:
    """Reports the progress of a long job on standard error.

    >>> with Progress("training", total=3, enabled=False) as progress:
    ...     for _ in range(3):
    ...         progress.advance(message="accuracy 50 %")
    """

    def __init__(self, description: str, total: int, enabled: bool = True) -> None:
        self.description, self.total, self.done, self._skipped = printable(description), total, 0, 0
        self._last = self._printed = time.monotonic()
        self._rate = Rate()
        # Of several processes only the first reports; torchrun sets RANK.
        self.enabled = enabled and not is_silent() and total > 0 and os.environ.get("RANK", "0") == "0"
        self._bar: RichProgress | None = None
        if self.enabled and (sys.stderr.isatty() or in_notebook()):
            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                _Remaining(),
                TextColumn("{task.fields[message]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, message="", left=self.seconds_left)
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
        self.done, message, now = self.done + steps, printable(message), time.monotonic()
        if steps:
            self._rate.add(now - self._last, steps)
            self._last = now
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done - self._skipped, message=message)
        elif self.enabled and now - self._printed > SECONDS_BETWEEN_LINES:
            self._printed = now
            left = self.seconds_left() or 0.0
            line = f"{self.description}: {self.done}/{self.total}, ETA {duration(left)}  {message}"
            print(line.rstrip(), file=sys.stderr, flush=True)

    def seconds_left(self) -> float | None:
        """Until the end, by the moving average of the steps' durations; None before the first."""
        if self._rate.seconds is None:
            return None
        return max(0.0, self._rate.seconds * (self.total - self.done) - (time.monotonic() - self._last))


def track(items: Iterable[T], description: str, total: int, enabled: bool = True) -> Iterator[T]:
    """Iterate over ``items`` and report progress.

    >>> list(track("ab", "letters", total=2, enabled=False))
    ['a', 'b']
    """
    with Progress(description, total, enabled) as progress:
        for item in items:
            yield item
            progress.advance()
