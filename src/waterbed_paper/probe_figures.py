"""The figures of the probe study."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from waterbed_paper.drawing import COLOURS, MARKERS, legend, line, panels
from waterbed_paper.evidence import over_seeds
from waterbed_paper.probe_results import PAPERS, PRINTED, TUNED, ProbeResults, sgd
from waterbed_paper.scale import Source
from waterbed_paper.topics.probe_study import matched_points

COLUMNS = 4
BARS = "Line: mean over seeds; small points: seeds; bars: 95 % t interval of three seeds."


def by_weight_decay(r: ProbeResults) -> Figure | None:
    """Gap against weight decay at two lengths of SGD, the paper's setting ringed; beside it as printed, and tuned."""
    decays = r.settings.weight_decays
    papers = r.settings.training.weight_decay
    chosen = []
    for source, target in _probed(r, PAPERS):
        lines = {}
        for label, length in (("as long as the paper's", 1.0), ("four times as long", 4.0)):
            gaps = {f"{d:g}": [*r.gaps(source, target, sgd("", length, d)).values()] for d in decays}
            lines[label] = {d: values for d, values in gaps.items() if values}
        ends = {"printed": PRINTED, "tuned": TUNED}
        chosen.append((source, target, lines, {k: [*r.gaps(source, target, p).values()] for k, p in ends.items()}))
    if not chosen:
        return None
    figure, axes = panels(-(-len(chosen) // COLUMNS), COLUMNS, 2.8, 2.4)
    places = ["printed", *(f"{d:g}" for d in decays), "tuned"]
    for ax, (source, target, lines, ends) in zip(axes.flat, chosen, strict=False):
        ax.xaxis.update_units(places)
        for style, (label, points) in enumerate(lines.items()):
            if points:
                line(ax, points, label, style)
        mark = over_seeds("", lines["as long as the paper's"][f"{papers:g}"])
        ax.plot([f"{papers:g}"], [mark.value], "o", ms=12, mfc="none", mec="black", label="the paper's setting")
        for style, (place, values) in enumerate(ends.items(), 2):
            if values:
                label = {"printed": "the protocol as printed, on fewer images", "tuned": "tuned logistic probe"}[place]
                line(ax, {place: values}, label, style)
        _titled(ax, f"{source.name} to {target}", "weight decay of SGD")
        ax.tick_params(axis="x", labelsize=6.5)
    _without_the_rest(axes, len(chosen))
    legend(figure, columns=3)
    return figure


def by_size(r: ProbeResults) -> Figure | None:
    """Gap against the number of training images, by the paper's probe and by the tuned one."""
    chosen = []
    for source, target in _probed(r, TUNED):
        lines = {}
        for label, probe in (("the paper's probe", PAPERS), ("tuned probe", TUNED)):
            gaps = {f"{n:,}": [*r.gaps(source, target, probe, size=n).values()] for n in sorted(r.settings.sizes)}
            lines[label] = {n: values for n, values in gaps.items() if values}
        chosen.append((source, target, lines))
    if not chosen:
        return None
    figure, axes = panels(-(-len(chosen) // COLUMNS), COLUMNS, 2.8, 2.4)
    for ax, (source, target, lines) in zip(axes.flat, chosen, strict=False):
        ax.xaxis.update_units([f"{n:,}" for n in sorted(r.settings.sizes)])
        for style, (label, points) in zip((0, 3), lines.items(), strict=True):
            if points:
                line(ax, points, label, style)
        _titled(ax, f"{source.name} to {target}", "training images of the target")
    _without_the_rest(axes, len(chosen))
    legend(figure)
    return figure


def by_eps(r: ProbeResults) -> Figure | None:
    """Gap to the standard backbone against eps of training, of sources with several."""
    chosen = []
    for source, target in _probed(r, TUNED):
        eps = [e for e in source.eps if e > 0 and e in r.settings.eps]
        lines = {}
        for label, probe in (("the paper's probe", PAPERS), ("tuned probe", TUNED)):
            gaps = {e: [*r.gaps(source, target, probe, e).values()] for e in eps}
            lines[label] = {e: values for e, values in gaps.items() if values}
        if max(map(len, lines.values())) > 1:
            chosen.append((source, target, lines))
    if not chosen:
        return None
    figure, axes = panels(-(-len(chosen) // COLUMNS), COLUMNS, 2.8, 2.4)
    for ax, (source, target, lines) in zip(axes.flat, chosen, strict=False):
        for style, (label, points) in zip((0, 3), lines.items(), strict=True):
            if points:
                line(ax, points, label, style)
        _titled(ax, f"{source.name} to {target}", "eps of training")
    _without_the_rest(axes, len(chosen))
    legend(figure)
    return figure


def by_source_accuracy(r: ProbeResults) -> Figure | None:
    """Mean accuracy on the targets against that on the source: one point per network, one panel per probe."""
    for source in r.sources:
        points = {p.label: [*matched_points(r, source, p)] for p in (PAPERS, TUNED)}
        if len({eps for eps, *_ in points[TUNED.label]}) < 3:
            continue
        figure, axes = panels(1, 2, 3.6, 3.0)
        for ax, (label, networks) in zip(axes.flat, points.items(), strict=True):
            for style, eps in enumerate(sorted({e for e, *_ in networks})):
                own, mean = zip(*((a, m) for e, a, m in networks if e == eps), strict=True)
                style %= len(COLOURS)
                name = f"eps {eps:g}" if eps else "standard"
                ax.plot(own, mean, MARKERS[style], color=COLOURS[style], label=name)
            ax.set_title(f"{source.name}: {label} probe", fontsize=9)
            ax.set_xlabel("accuracy on the source [%]", fontsize=8)
            ax.set_ylabel("mean accuracy on the targets [%]", fontsize=8)
        legend(figure, columns=5)
        return figure
    return None


def _probed(r: ProbeResults, probe: object) -> Sequence[tuple[Source, str]]:
    return [(s, t) for s in r.sources for t in r.targets(s) if r.gaps(s, t, probe)]  # type: ignore[arg-type]


def _titled(ax: Axes, title: str, xlabel: str) -> None:
    ax.axhline(0, color="black", lw=0.8, label="_zero")
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(xlabel, fontsize=8)
    ax.set_ylabel("gap [points]", fontsize=8)
    low, high = ax.get_ylim()
    if math.isfinite(low):
        ax.set_ylim(min(low, -0.5), max(high, 0.5))


def _without_the_rest(axes: object, count: int) -> None:
    for ax in axes.flat[count:]:  # type: ignore[attr-defined]
        ax.set_axis_off()
