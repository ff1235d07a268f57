"""What commands put out: tables on the terminal; JSON, CSV and text in files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from waterbed.errors import UsageError
from waterbed.files import make_folder, to_json, write_atomic


def is_first_process() -> bool:
    """Whether this process prints and writes: the first that ``torchrun`` or ``accelerate launch`` started, or the only
    one."""
    return os.environ.get("RANK", "0") == "0"


def print_table(table: Any) -> None:
    """A table of the report."""
    print_rows(table.columns, table.rows, table.caption)


def print_rows(columns: Any, rows: Any, title: str) -> None:
    """Columns' names and rows of cells under a title."""
    from rich.console import Console
    from rich.markup import escape
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for i, column in enumerate(columns):
        # Names and short numbers stay whole; what is longer wraps.
        longest = max((len(str(row[i])) for row in rows), default=0)
        table.add_column(
            escape(str(column)),
            justify="left" if i == 0 else "right",
            min_width=min(longest, 24) if i == 0 else None,
            no_wrap=i > 0 and longest <= 18,
        )
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:  # a file or a pipe: as wide as the table is
        console = Console(width=1000)
        console.width = max(80, Measurement.get(console, console.options, table).maximum)
    console.print(table)


def check_writable(path: str | Path | None) -> None:
    """Raise before the work, not after it, if a result could not be written."""
    if path is not None:
        make_folder(Path(path).expanduser().parent)


def write_text(path: str | Path | None, content: str) -> None:
    """Write a text file as a whole and say so; nothing if there is no path."""
    if path is None or not is_first_process():
        return
    path = Path(path).expanduser()
    make_folder(path.parent)
    write_atomic(path, content.encode())
    print(f"{path} written")


def write_json(path: str | Path | None, content: Any) -> None:
    """Write JSON; nothing if there is no path."""
    write_text(path, to_json(content))


def add_to_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write JSON beside what an earlier call left under other keys."""
    path = Path(path).expanduser()
    try:
        before = json.loads(path.read_text()) if path.is_file() else {}
        write_json(path, {**before, **content})
    except (ValueError, TypeError) as error:
        raise UsageError(f"out={str(path)!r} exists and holds something else; choose another file") from error
