"""A figure of the page: what the paper's shows, how ours is drawn, and which experiments are behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from waterbed.plots import save_figure
from waterbed.reporting.page import Picture
from waterbed_paper.drawing import described
from waterbed_paper.results import Results

SEEDS = "Line: mean over seeds; small points: seeds; bars: 95 % t interval where there are three seeds or more."
NARROW_PANELS = 3  # more are too fine for a phone's width


@dataclass(frozen=True)
class PaperFigure:
    """One figure of the page.

    Attributes:
        name: of its PNG file and its anchor.
        title: with the paper's number, if it has one.
        published: what the paper's figure shows, or says in its place.
        caption: what ours shows.
        only: beginnings of the experiments behind it.
        draw: draws it from the results; None where nothing was run.
        files: pictures that experiments wrote, in place of ``draw`` or beside it.
        claims: that it speaks to.
        extra: the paper has no such figure; left out where there is nothing to show.
    """

    name: str
    title: str
    published: str
    caption: str
    only: tuple[str, ...]
    draw: Callable[[Results], Figure | None] = lambda results: None
    files: Callable[[Results], Iterator[Picture]] = lambda results: iter(())
    claims: tuple[str, ...] = ()
    extra: bool = False

    def pictures(self, results: Results, folder: Path) -> list[Picture]:
        """What there is to show; a figure is written to ``folder``/NAME.png, too."""
        figure = self.draw(results)
        pictures = []
        if figure is not None:
            save_figure(figure, folder / f"{self.name}.png")
            wide = len(figure.axes) > NARROW_PANELS or figure.get_size_inches()[0] > 7
            drawing = not any(ax.images for ax in figure.axes)
            pictures.append(Picture(folder / f"{self.name}.png", self.caption, described(figure), wide, drawing))
        return pictures + list(self.files(results))
