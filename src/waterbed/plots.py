"""Image grids and curves as matplotlib figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from waterbed.errors import UsageError
from waterbed.files import write_atomic
from waterbed.text import plain


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
    figure = Figure(figsize=(margin + scale * columns, scale * len(rows) + 0.3), layout="constrained")
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
    series: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, log: bool = False, size: tuple = (5, 3.2)
) -> Figure:
    """A figure with one line per name over 1, 2, 3, ...

    Args:
        series: name -> values.
        log: whether the y axis is logarithmic.
        size: of the figure, (width, height) in inches.

    >>> curves({"loss": [3.0, 2.0, 1.5]}, "epoch", "loss").axes[0].get_xlabel()
    'epoch'
    """
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    for name, values in series.items():
        ax.plot(np.arange(1, len(values) + 1), values, label=plain(name), marker="." if len(values) < 40 else None)
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


def curves_with_errors(
    series: Mapping[str, Sequence[tuple[float, float, float]]], xlabel: str, ylabel: str, size: tuple = (5, 3.2)
) -> Figure:
    """A figure with one line per name, and a 95 % interval (1.96 standard errors) around each of its points.

    Args:
        series: name -> (x, value, standard error) of each point; nan where there is no error.

    >>> curves_with_errors({"run": [(1, 3.0, 0.1), (3, 2.0, float("nan"))]}, "epoch", "trace").axes[0].get_ylabel()
    'trace'
    """
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    for name, points in series.items():
        x, values, errors = np.array(points, dtype=float).T
        ax.errorbar(x, values, 1.96 * np.nan_to_num(errors), label=plain(name), marker=".", capsize=2)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


def intervals(
    names: Sequence[str], panels: Mapping[str, Sequence[tuple[float, float, float]]], title: str = ""
) -> Figure:
    """A figure with one panel per quantity and in each one line per name: a value with its interval.

    Args:
        names: from top to bottom; the first is drawn in colour.
        panels: quantity -> (value, low, high) of every name.

    >>> [ax.get_xlabel() for ax in intervals(["a", "b"], {"score": [(1, 0, 2), (0, -1, 1)]}).axes]
    ['score']
    """
    width = 1.2 + 0.08 * max(len(name) for name in names) + 1.9 * len(panels)
    figure = Figure(figsize=(width, 1.1 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (label, rows) in zip(axes, panels.items(), strict=True):
        for i, (value, low, high) in enumerate(rows):
            ax.plot([low, high], [i, i], color="C1" if i == 0 else "C0", linewidth=1.5)
            ax.plot(value, i, "o", color="C1" if i == 0 else "C0", markersize=5)
        ax.set(xlabel=label, yticks=range(len(names)), yticklabels=list(map(plain, names)))
        ax.margins(x=0.1)
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(plain(title), fontsize=10)
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
