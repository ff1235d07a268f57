"""Image grids, curves and intervals as matplotlib figures of one look."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import cycler, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from waterbed.errors import UsageError
from waterbed.files import write_atomic
from waterbed.text import plain

# Okabe and Ito (2008): told apart with every kind of colour vision; markers say it once more.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
LONG_LABEL = 20  # letters, above which the unit gets a line of its own
LOOK = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.formatter.useoffset": False,  # a tick says its value, not its distance from a number in the corner
    "axes.formatter.limits": (-4, 7),
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "grid.alpha": 0.3,
}


class Drawing(Figure):
    """A matplotlib figure that a notebook shows, whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        return png(self)


def panels(rows: int = 1, columns: int = 1, size: tuple[float, float] = (5, 3.2), **shared: Any) -> tuple[Drawing, Any]:
    """A figure of the look that all have, and its (rows, columns) axes.

    Args:
        size: of the figure, (width, height) in inches.
        shared: sharex and sharey, as of ``Figure.subplots``.

    >>> figure, axes = panels(1, 2)
    >>> axes.shape
    (1, 2)
    """
    with rc_context(LOOK):
        figure = Drawing(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def image_grid(rows: Mapping[str, Tensor], titles: Sequence[str] | None = None, scale: float = 1.1) -> Figure:
    """A figure with one row of images per name.

    Args:
        rows: name -> (B, C, H, W) in [0, 1], C = 1 or 3, the same B throughout.
        titles: of the columns.
        scale: width of one image in inches.

    Raises:
        UsageError: rows of different length, or none.

    >>> import torch
    >>> len(image_grid({"original": torch.rand(3, 1, 8, 8)}).axes)
    3
    """
    counts = {name: len(images) for name, images in rows.items()}
    if not rows or len(set(counts.values())) != 1:
        raise UsageError(f"rows have {counts} images; pass the same number in each")
    columns = next(iter(counts.values()))
    margin = 0.3 + 0.08 * max(len(name) for name in rows)
    figure = Drawing(figsize=(margin + scale * columns, scale * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for (name, images), line in zip(rows.items(), axes, strict=True):
        for image, ax in zip(images, line, strict=True):
            pixels = image.detach().float().cpu().permute(1, 2, 0).numpy()
            ax.imshow(pixels if pixels.shape[2] == 3 else pixels[:, :, 0], cmap="gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(plain(name), rotation=0, ha="right", va="center")
    for ax, title in zip(axes[0], titles or [], strict=False):
        ax.set_title(plain(title), fontsize=8)
    return figure


def curves(
    series: Mapping[str, Sequence[float]],
    xlabel: str,
    ylabel: str,
    log: bool = False,
    size: tuple[float, float] = (5, 3.2),
) -> Figure:
    """A figure with one line per name over 1, 2, 3, ...

    Args:
        series: name -> values; nan where there is none.
        log: whether the y axis is logarithmic.
        size: of the figure, (width, height) in inches.

    >>> curves({"loss": [3.0, 2.0, 1.5]}, "epoch", "loss").axes[0].get_xlabel()
    'epoch'
    """
    figure, ((ax,),) = panels(size=size)
    for i, (name, values) in enumerate(series.items()):
        marker = MARKERS[i % len(MARKERS)] if len(values) < 40 else None
        ax.plot(np.arange(1, len(values) + 1), values, label=plain(name), marker=marker, markersize=4)
    whole_numbers(ax)
    return _labelled(figure, series, xlabel, ylabel, log)


def curves_with_errors(
    series: Mapping[str, Sequence[tuple[float, float, float]]],
    xlabel: str,
    ylabel: str,
    size: tuple[float, float] = (5, 3.2),
    log: bool = False,
) -> Figure:
    """A figure with one line per name, and a 95 % interval (1.96 standard errors) around each of its points.

    Args:
        series: name -> (x, value, standard error) of each point; nan where there is no error.
        size, log: as of :func:`curves`.

    >>> curves_with_errors({"run": [(1, 3.0, 0.1), (3, 2.0, float("nan"))]}, "epoch", "trace").axes[0].get_ylabel()
    'trace'
    """
    with_ends = {}
    for name, points in series.items():
        halves = [1.96 * (0 if math.isnan(error) else error) for _, _, error in points]
        with_ends[name] = [(x, v, v - half, v + half) for (x, v, _), half in zip(points, halves, strict=True)]
    return curves_with_intervals(with_ends, xlabel, ylabel, size, log)


def curves_with_intervals(
    series: Mapping[str, Sequence[tuple[float, float, float, float]]],
    xlabel: str,
    ylabel: str,
    size: tuple[float, float] = (5, 3.2),
    log: bool = False,
) -> Figure:
    """A figure with one line per name through points with intervals.

    Args:
        series: name -> (x, value, low, high) of each point; a name without points keeps its colour free.
        size, log: as of :func:`curves`.

    >>> curves_with_intervals({"run": [(0, 90, 88, 92), (0.5, 40, 37, 43)]}, "eps", "accuracy").axes[0].get_xlabel()
    'eps'
    """
    figure, ((ax,),) = panels(size=size)
    for i, (name, points) in enumerate(series.items()):
        if points:
            x, values, low, high = np.array(points, dtype=float).T
            style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
            ax.errorbar(x, values, [values - low, high - values], label=plain(name), capsize=2, **style)
    if xlabel == "epoch":
        whole_numbers(ax)
    return _labelled(figure, series, xlabel, ylabel, log)


def _labelled(figure: Figure, series: Mapping[str, Any], xlabel: str, ylabel: str, log: bool) -> Figure:
    """The figure, with what its axes and its lines are."""
    (ax,) = figure.axes
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    _legend(ax, series)
    return figure


def whole_numbers(ax: Axes) -> None:
    """Ticks of the x axis at whole numbers alone, as of epochs."""
    ax.xaxis.get_major_locator().set_params(integer=True)


def _legend(ax: Axes, names: Sequence[str] | Mapping[str, Any]) -> None:
    """Which line is which; above the axes where the names are many."""
    if len(names) > 4:
        ax.figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    elif len(names) > 1:
        ax.legend(frameon=False, fontsize=8)


def intervals(
    names: Sequence[str],
    quantities: Mapping[str, Sequence[tuple[float, float, float]]],
    title: str = "",
    leader: bool = False,
    columns: int = 6,
) -> Figure:
    """A figure with one panel per quantity and in each one line per name: a value with its interval.

    Args:
        names: from top to bottom.
        quantities: name of the panel -> (value, low, high) of every name; nan where there is none.
        leader: whether the first name is drawn in a colour of its own.
        columns: panels side by side at most.

    >>> [ax.get_xlabel() for ax in intervals(["a", "b"], {"score": [(1, 0, 2), (0, -1, 1)]}).axes]
    ['score']
    """
    columns = min(len(quantities), columns)
    lines = math.ceil(len(quantities) / columns)
    labels = [plain(label).replace(" [", "\n[") if len(label) > LONG_LABEL else plain(label) for label in quantities]
    room = max(1.9, 0.085 * max(len(line) for label in labels for line in label.split("\n")))
    width = max(1.2 + 0.08 * max(len(name) for name in names) + room * columns, 4.5)
    figure, axes = panels(lines, columns, (width, lines * (0.8 + 0.32 * len(names)) + 0.4 * bool(title)), sharey=True)
    for ax, label, rows in zip(axes.flat, labels, quantities.values(), strict=False):
        for i, (value, low, high) in enumerate(rows):
            colour = COLOURS[1] if leader and i == 0 else COLOURS[0]
            ax.plot([low, high], [i, i], color=colour, linewidth=1.5)
            ax.plot(value, i, "o", color=colour, markersize=5)
        ax.set(xlabel=label, yticks=range(len(names)), yticklabels=list(map(plain, names)))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.margins(x=0.1)
        ax.grid(axis="y", visible=False)
    for ax in axes.flat[len(quantities) :]:
        ax.remove()
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    if title:
        wrapped = textwrap.fill(plain(title), max(30, int(13 * width)))
        figure.suptitle(wrapped, fontsize=10)
    return figure


PNG_MARK = "waterbed"  # by which a picture of ours is known


def is_our_png(content: bytes) -> bool:
    """Whether the bytes are a picture that :func:`png` drew."""
    return b"tEXtSoftware\0" + PNG_MARK.encode() in content[:200]


def png(figure: Figure, dpi: int = 130) -> bytes:
    """The figure as the bytes of a PNG file.

    >>> png(Figure())[1:4]
    b'PNG'
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": PNG_MARK})
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the figure as a PNG file; :class:`UsageError` if ``path`` does not end in .png."""
    if Path(path).suffix.lower() != ".png":
        raise UsageError(f"path={str(path)!r} must end in .png")
    write_atomic(path, png(figure))
