"""Panels, lines over seeds and descriptions that the paper's figures share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from waterbed.plots import COLOURS, MARKERS
from waterbed_paper.evidence import over_seeds
from waterbed_paper.results import Results, Value
from waterbed_paper.scale import Source

KINDS = {"standard": 0, "robust": 1}
MAX_LINES, MAX_PANELS, MAX_POINTS = 6, 9, 6  # listed one by one in a description


def panels(rows: int, columns: int, width: float = 3.4, height: float = 2.7) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) axes."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.08)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.grid(alpha=0.3)
    return figure, axes


def line(ax: Axes, points: Mapping[Any, Sequence[float]], label: str, style: int) -> None:
    """Mean over seeds against x; every seed a small point, the 95 % interval a bar where there are three or more."""
    colour, marker = COLOURS[style % len(COLOURS)], MARKERS[style % len(MARKERS)]
    x = list(points)
    stats = [over_seeds("", points[p]) for p in x]
    ax.plot(x, [s.value for s in stats], color=colour, marker=marker, ms=5, lw=1.4, label=label)
    for p, s in zip(x, stats, strict=True):
        if s.n > 1:
            ax.plot([p] * s.n, points[p], ".", color=colour, ms=4, alpha=0.6)
        if s.n > 2 and math.isfinite(s.low):
            ax.plot([p, p], [s.low, s.high], color=colour, lw=1, alpha=0.8, label="_interval")


def by_eps(source: Source, value: Value, objective: str = "adversarial") -> dict[float, list[float]]:
    """eps -> the value of every seed; the standard networks at 0."""
    points: dict[float, list[float]] = {}
    for network in source.networks():
        number = value(network) if network.objective in ("standard", objective) else None
        if number is not None and math.isfinite(number):
            points.setdefault(network.eps, []).append(number)
    return points


def against_eps(
    results: Results,
    quantities: Mapping[str, Callable[[Source], Value]],
    objectives: Mapping[str, str] | None = None,
    log: Sequence[str] = (),
) -> Figure | None:
    """One row per source, one column per quantity, one line per objective (name -> label) that was trained at eps > 0.

    Sources without a result of every objective are left out. ``log``: quantities on a logarithmic axis.
    """
    objectives = objectives or {"adversarial": "adversarial training"}
    rows = []
    for source in results.scale.sources:
        lines = {
            (name, objective): by_eps(source, value(source), objective)
            for name, value in quantities.items()
            for objective in objectives
        }
        if all(any(max(p, default=0) > 0 for (_, o), p in lines.items() if o == objective) for objective in objectives):
            rows.append((source.name, lines))
    if not rows:
        return None
    figure, axes = panels(len(rows), len(quantities))
    for (name, lines), row in zip(rows, axes, strict=True):
        for ax, quantity in zip(row, quantities, strict=True):
            for style, (objective, label) in enumerate(objectives.items()):
                line(ax, lines[quantity, objective], label, style)
            ax.set(xlabel="eps of training", title=name, yscale="log" if quantity in log else "linear")
            ax.set_ylabel(quantity, fontsize=9)
    if len(objectives) > 1:
        legend(figure)
    return figure


def legend(figure: Figure, place: str = "outside upper left", columns: int = 2) -> None:
    """One legend beside all panels: every name once, one below the other where the figure is narrow."""
    columns = columns if figure.get_figwidth() > 5 else 1
    handles = {
        label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc=place, ncols=columns, frameon=False, fontsize=8)


def described(figure: Figure) -> str:
    """What is seen, panel by panel: each named line with its points, read from the figure itself."""
    texts = [text for ax in figure.axes if (text := _panel(ax))]
    more = f" And {len(texts) - MAX_PANELS} more panels of this kind." if len(texts) > MAX_PANELS else ""
    return f"{len(texts)} panel{'s' if len(texts) > 1 else ''}. " + " ".join(texts[:MAX_PANELS]) + more


def _panel(ax: Axes) -> str:
    lines = [one for one in ax.lines if not str(one.get_label()).startswith("_") and len(one.get_xdata())]
    parts = [f"{one.get_label()}, {_ends(one)}" for one in lines[:MAX_LINES]]
    parts += [f"and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    axes = f"{ax.get_ylabel()} against {ax.get_xlabel()}" if ax.get_ylabel() and ax.get_xlabel() else ""
    head = ", ".join(" ".join(name.split()) for name in (ax.get_title(), axes) if name)
    if head and not ax.has_data():
        parts = ["not run"]
    text = ": ".join(filter(None, (head, "; ".join(parts))))
    return f"{text}." if text else ""


def _ends(one: Any) -> str:
    """Such as "3.1 at 0, 4.2 at 1"; of many points the first, the least, the greatest and the last."""
    x, y = one.get_data()
    points = [f"{b:.3g} at {a if isinstance(a, str) else f'{a:.3g}'}" for a, b in zip(x, y, strict=True)]
    if len(points) > MAX_POINTS:
        least, greatest = int(np.argmin(y)), int(np.argmax(y))
        return f"{points[0]} to {points[-1]}, least {points[least]}, greatest {points[greatest]}"
    return ", ".join(points)
