"""What commands put out: tables on the terminal; JSON, CSV and text in files."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from waterbed.files import expanded, locked, to_json, write_atomic
from waterbed.progress import is_silent
from waterbed.text import printable


def is_first_process() -> bool:
    """Whether this process prints and writes: the first that ``torchrun`` or ``accelerate launch`` started, or the only
    one."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str, file: Any = None) -> None:
    """One line, whatever the names in it hold."""
    print(printable(line), file=file)


def note(line: str) -> None:
    """A remark on standard error, which --quiet leaves out."""
    if is_first_process() and not is_silent():
        say(f"waterbed: note: {line}", sys.stderr)


def print_table(table: Any) -> None:
    """A table of the report."""
    print_rows(table.columns, table.rows, table.caption)


def print_rows(columns: Any, rows: Any, title: str) -> None:
    """Columns' names and rows of cells under a title."""
    from rich.console import Console
    from rich.markup import escape
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(title=escape(printable(title)), title_justify="left")
    for i, column in enumerate(columns):
        # Names and short numbers stay whole; what is longer wraps.
        longest = max((len(str(row[i])) for row in rows), default=0)
        table.add_column(
            escape(printable(column)),
            justify="left" if i == 0 else "right",
            min_width=min(longest, 24) if i == 0 else None,
            no_wrap=i > 0 and longest <= 18,
        )
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:  # a file or a pipe: as wide as the table is
        console = Console(width=1000)
        console.width = max(80, Measurement.get(console, console.options, table).maximum)
    console.print(table)


def write_text(path: str | Path | None, content: str) -> None:
    """Write a text file as a whole; nothing if there is no path. What was written is said by :func:`say_written`."""
    if path is not None and is_first_process():
        write_atomic(expanded(path), content.encode())


def write_json(path: str | Path | None, content: Any) -> None:
    """Write JSON; nothing if there is no path."""
    write_text(path, to_json(content))


def say_written(*paths: str | Path | None) -> None:
    """One line for each file, below the table."""
    for path in paths:
        if path is not None and is_first_process() and not is_silent():
            say(f"{path} written")


def add_to_json(path: str | Path, content: dict[str, Any], merge: Callable[[Any, Any], Any] | None = None) -> None:
    """Add to the JSON object in a file; what other commands add meanwhile stays. Where a key is there, its value is
    ``merge(old, new)``, by default the new one, and a line says so."""
    if not is_first_process():
        return
    path = expanded(path)
    with locked(path.with_name(f".{path.name}.lock")):
        try:
            before = json.loads(path.read_text()) if path.is_file() and path.stat().st_size else {}
        except (ValueError, OSError):  # checked before the work: another's file that --force replaces
            before = {}
        if not isinstance(before, dict):
            before = {}
        both = {k: v if merge is None else merge(before[k], v) for k, v in content.items() if k in before}
        write_json(path, {**before, **content, **both})
    replaced = [k for k in both if merge is None and before[k] != content[k]]
    if replaced:
        note(f"{path}: the earlier results of {', '.join(replaced)} were replaced")


class Patient:
    """A standard stream that does not stop the command: where nobody reads any more or there is no room, the rest is
    dropped and ``failure`` remembers why; what its encoding lacks is replaced."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.failure = stream, None if stream is not None else OSError(errno.EBADF, "it is closed")

    def write(self, text: str) -> int:
        if self.failure is None:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._try(self._stream.write, text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        if self.failure is None:
            self._try(self._stream.flush)

    def isatty(self) -> bool:
        return self.failure is None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except (OSError, ValueError) as error:
            self.failure = error
            # What is still in the buffer would fail again when Python ends.
            with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
