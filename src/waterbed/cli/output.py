"""Tables on the terminal, and what options look like in --help."""

from __future__ import annotations

from typing import Annotated, Any

from tyro.conf import arg

Words = Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]")]


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
