"""A self-contained HTML page: sections of text, tables and pictures, with nothing loaded from elsewhere."""

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

PAGE_MARK = b'<meta name="generator" content="waterbed">'  # by which a page of ours is known


@dataclass(frozen=True)
class Pair:
    """A cell with a published number and ours next to it."""

    published: str
    ours: str


@dataclass(frozen=True)
class Interval:
    """A cell that draws an interval to scale: its ends, the value and a reference mark, as fractions of the width."""

    low: float
    value: float
    high: float
    mark: float


@dataclass(frozen=True)
class Link:
    """A cell that links to an anchor on the page."""

    text: str
    anchor: str


@dataclass(frozen=True)
class Table:
    """Rows of cells below column names; the first cell of a row is its header. ``wrap``: text cells may break lines."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    wrap: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure or a PNG file, with a caption and an alternative text.

    ``wide``: too detailed for the width of a phone, where it scrolls instead.
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
    """A claim, the verdict on it, and the reasons.

    Attributes:
        id: its anchor.
        sentence: the claim.
        verdict: in words, with ``sign`` before it.
        colour: class of the background: "good", "bad", "open" or "none".
        where: the place of the claim in the publication.
        evidence: a table, or None.
        details: name -> text, collapsed by default.
        see: name -> anchor of related parts of the page.
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
        id: its anchor; a number by default.
        findings: shown after the text.
        sections: subsections, shown at the end.
        command: the command line that reproduces it.
        folded: title -> lines, collapsed by default.
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
    """Render a page and write it atomically.

    Args:
        lead: the paragraph below the title.
        environment: name -> value, listed at the end.

    Raises:
        UsageError: the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "page.html"
    ...     write_page(path, "A title", "A lead.", [Section("Results", ["Text."])], {"python": "3"})
    ...     ">Results</h2>" in path.read_text()
    True
    """
    templates = Environment(
        loader=PackageLoader("waterbed", "reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = templates.get_template("page.html").render(
        title=title, lead=lead, sections=sections, environment=environment
    )
    write_atomic(path, page.encode())
