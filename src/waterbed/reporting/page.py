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

BREAKPOINTS = (32, 40, 48, 56, 64)  # widths of the window [rem] below which a table is shown row by row
LETTER, GAP, MARGIN = 0.6, 0.9, 2.5  # [rem] of a letter, between columns, beside the page's text
LONG, BROKEN = 26, 20  # letters of a cell above which it breaks lines, and of its lines at least
PAIRED = 3  # letters' room between the two numbers of a cell and after them


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
    """Rows of cells below column names; the first cell of a row is its header.

    Attributes:
        wrap: of text, set to the left.
        summary: where it is not empty, the table is folded away under these words.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    wrap: bool = False
    summary: str = ""

    @property
    def breakpoint(self) -> int:
        """The width of the window [rem] below which the table does not fit; 0 if it never does.

        >>> [Table("", ["x"] * n, [["twelve words"] * n]).breakpoint for n in (2, 7, 20)]
        [32, 64, 0]
        """
        letters = [
            max([_longest_word(column), *(_letters(row[i]) for row in self.rows)])
            for i, column in enumerate(self.columns)
        ]
        letters[0] = max([letters[0], *(_longest_word(str(row[0])) for row in self.rows)])  # names stay whole
        needed = sum(LETTER * count + GAP for count in letters) + MARGIN
        return next((width for width in BREAKPOINTS if needed <= width), 0)


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _letters(cell: Any) -> int:
    """How many letters wide a cell is."""
    if isinstance(cell, Interval):
        return 14
    if isinstance(cell, Pair):
        return len(cell.published) + PAIRED + max(map(len, cell.ours.split("; ")))
    count = len(cell.text if isinstance(cell, Link) else str(cell))
    return count if count <= LONG else BROKEN


@dataclass(frozen=True)
class Picture:
    """A figure or a PNG file, with a caption and an alternative text.

    Attributes:
        wide: too detailed for the width of a phone, where it scrolls instead.
        drawing: lines on white, whose colours are turned round on a dark page; no photographs.
    """

    figure: Figure | Path
    caption: str
    alt: str
    wide: bool = False
    drawing: bool = False

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
class Card:
    """A verdict in a few words, at the top of a page.

    Attributes:
        text: what it is on, a link to ``anchor``.
        why: a line below.
        verdict, sign, colour: as of :class:`Finding`.
    """

    text: str
    anchor: str
    why: str
    verdict: str
    sign: str
    colour: str


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        id: its anchor; a number by default.
        cards: shown side by side after the text.
        findings: shown after them.
        sections: subsections, shown at the end.
        command: the command line that reproduces it.
        folded: title -> lines, collapsed by default.
        prose: the folded lines are sentences, not commands or names.
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
    prose: bool = False
    cards: Sequence[Card] = ()


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
    ...     ">Results<" in path.read_text()
    True
    """
    templates = Environment(
        loader=PackageLoader("waterbed", "reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = templates.get_template("page.html").render(
        title=title,
        lead=lead,
        sections=sections,
        environment=environment,
        breakpoints=(0, *BREAKPOINTS),
        long=LONG,
    )
    write_atomic(path, page.encode())
