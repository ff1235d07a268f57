"""Names that others chose, made safe where they are shown: on a terminal, in a picture, in a spreadsheet."""

from __future__ import annotations

import unicodedata
from typing import Any

INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, direction marks, bytes that are no text, breaks of lines
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: Any) -> str:
    """The text with what would steer a terminal, or is not Unicode, spelt out.

    >>> print(printable("cat \\x1b[31m\\udce9"))
    cat \\x1b[31m\\udce9
    """
    return "".join(
        c.encode("unicode_escape", "surrogatepass").decode() if unicodedata.category(c) in INVISIBLE else c
        for c in str(text)
    )


def plain(text: Any) -> str:
    """The text as matplotlib draws it letter by letter: no formula between dollars, none left out of a legend.

    >>> print(plain("$x$"))
    \\$x\\$
    """
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def csv_text(frame: Any) -> str:
    """A data frame as CSV in which no cell is a formula to a spreadsheet; numbers stay as they are.

    >>> import pandas as pd
    >>> print(csv_text(pd.DataFrame({"model": ["=1+1", "robust"], "gap": [-1.5, 2.0]})), end="")
    model,gap
    '=1+1,-1.5
    robust,2.0
    """
    return frame.apply(lambda column: column.map(_cell)).to_csv(index=False)


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if value.startswith(FORMULA) and not _is_number(value) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
