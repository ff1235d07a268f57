"""One self-contained HTML page: sections of text, tables and pictures, nothing fetched from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from waterbed.files import write_atomic
from waterbed.plots import png


@dataclass(frozen=True)
class Pair:
    """A cell with a published number and ours beside it."""

    published: str
    ours: str


@dataclass(frozen=True)
class Interval:
    """A cell that draws an interval to scale: ends, value and the mark to compare with, as shares of the width."""

    low: float
    value: float
    high: float
    mark: float


@dataclass(frozen=True)
class Link:
    """A cell that leads to an anchor of the page."""

    text: str
    anchor: str


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names; the first cell of a row names it. ``wrap``: cells are text and break lines."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    wrap: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure or a PNG file with its caption and a text for those who do not see it.

    ``wide``: too fine for a phone's width, so that it scrolls there.
    """

    figure: Figure | Path
    caption: str
    alt: str
    wide: bool = False

    @property
    def uri(self) -> str:
        """The PNG as a data: URI."""
        content = self.figure.read_bytes() if isinstance(self.figure, Path) else png(self.figure)
        return "data:image/png;base64," + base64.b64encode(content).decode()


@dataclass(frozen=True)
class Finding:
    """A sentence, the verdict on it, and why.

    Attributes:
        id: its anchor.
        verdict: in words; ``sign`` stands before it, and ``colour`` (good, bad, open, none) behind it.
        where: its place in what is judged.
        evidence: a table; None without any.
        details: name -> text, folded away.
        see: name -> anchor of what to look at.
    """

    id: str
    sentence: str
    verdict: str
    sign: str
    colour: str
    where: str
    evidence: Table | None
    details: Mapping[str, str]
    see: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        id: its anchor; numbered without one.
        findings: after the text.
        sections: parts of this part, at the end.
        command: a command line to have the same again.
        folded: title -> lines, folded away.
    """

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = field(default_factory=tuple)
    id: str = ""
    findings: Sequence[Finding] = ()
    sections: Sequence[Section] = ()
    command: str = ""
    folded: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_page(
    path: str | Path, title: str, lead: str, sections: Sequence[Section], environment: Mapping[str, Any]
) -> None:
    """Render the page and write it as a whole."""
    templates = Environment(
        loader=PackageLoader("waterbed", "reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = templates.get_template("page.html").render(
        title=title, lead=lead, sections=sections, environment=environment
    )
    write_atomic(path, page.encode())
