"""Results as HTML tables and pictures, for notebooks."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from waterbed.plots import png


def html_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> str:
    """An HTML table whose cells are whole; what could be read as HTML is escaped.

    >>> html_table(["run"], [["<b>"]], "a & b").split("<tbody>")[1].split()[1]
    '<td>&lt;b&gt;</td>'
    """
    import pandas as pd  # slow to import, and only notebooks need it

    frame = pd.DataFrame([[str(cell) for cell in row] for row in rows], columns=list(columns))
    with pd.option_context("display.max_colwidth", None):
        table = frame.to_html(index=False, border=0, max_rows=None)
    return re.sub(r"(<table[^>]*>)", lambda tag: f"{tag[0]}\n  <caption>{escape(caption)}</caption>", table, count=1)


def html_picture(figure: Figure) -> str:
    """A figure as an HTML image that needs no file."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png(figure)).decode()}">'
