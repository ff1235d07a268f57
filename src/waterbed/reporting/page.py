"""One self-contained HTML page: sections of text, tables and pictures, nothing fetched from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from waterbed.models import write_atomic
from waterbed.plots import png


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names; the first cell of a row names it."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Picture:
    """A figure with its caption and a text for those who do not see it."""

    figure: Figure
    caption: str
    alt: str

    @property
    def uri(self) -> str:
        """The PNG as a data: URI."""
        return "data:image/png;base64," + base64.b64encode(png(self.figure)).decode()


@dataclass(frozen=True)
class Section:
    """One part of a page."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = field(default_factory=tuple)


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
