"""The gap in transfer against the earth mover's distance of the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from waterbed.transfer_learning.tradeoff import correlation
from waterbed_paper.claims import Claim
from waterbed_paper.drawing import COLOURS, MARKERS, legend, panels
from waterbed_paper.evidence import Evidence, no_interval, over_seeds, over_targets, power
from waterbed_paper.figures import PaperFigure
from waterbed_paper.results import Results
from waterbed_paper.topics.transfer import IN_PLACE_OF_SVHN

OVER_TARGETS = (
    "Spearman and Pearson of the mean gaps over seeds, with Fisher's 95 % interval over targets (few, so it is wide): "
    "above 0 supports, below 0 contradicts, if the one-sided permutation p-value agrees (at most 2.5 %); one seed "
    "decides nothing. Few targets have little power, and the evidence says how little: undecided then speaks neither "
    "for nor against. Distances by the features of the first standard network of the source. Beside it: without "
    "traffic signs or handwritten digits, which stand in the place of SVHN."
)
GAP = (
    "Accuracy of the robust backbone less that of the standard one, mode 0. Bars: 95 % t interval over seeds (none for "
    "one seed), and the 95 % interval of the distance; points are at its middle, the distance corrected for the bias "
    "of few images a class. Dashed: mean distance between two halves of one set."
)


def _correlations(results: Results, data: str) -> Iterator[Evidence]:
    """Of distance and gap (mean over seeds), over targets; one seed decides nothing. Beside it without what
    stands in the place of SVHN."""
    for source in results.sources_on(data):
        distances = {t: results.graph.result(f"distance/{source.name}/{t}") for t in results.targets(source)}
        gaps = {t: results.gaps(source, t, "0") for t, d in distances.items() if d is not None}
        gaps = {t: g for t, g in gaps.items() if g}
        yield from _of_targets(source.name, distances, gaps)
        without = {t: g for t, g in gaps.items() if t not in IN_PLACE_OF_SVHN}
        if len(without) < len(gaps):
            left_out = " and ".join(t for t in gaps if t not in without)
            for e in _of_targets(f"{source.name} without {left_out}", distances, without):
                yield replace(e, beside=True)


def _of_targets(name: str, distances: dict, gaps: dict[str, dict[int, float]]) -> Iterator[Evidence]:
    if len(gaps) < 3:
        return
    x = np.array([distances[t]["value"] for t in gaps])
    y = np.array([np.mean([*g.values()]) for g in gaps.values()])
    seeds = min(len(g) for g in gaps.values())
    for kind, values in (("Spearman", (rankdata(x), rankdata(y))), ("Pearson", (x, y))):
        r = correlation(*values)
        label = f"{name}, {kind}, mean gaps of {seeds} seed{'s' * (seeds > 1)}, permutation p {r['p']:.2g}"
        e = over_targets(label, r["pearson"], len(gaps), (r["p"], correlation(values[0], -values[1])["p"]))
        seen = (
            f"at {len(gaps)} targets a true correlation of 0.7 is seen {100 * power(len(gaps), 0.7):.0f} times in 100"
        )
        yield replace(e if seeds > 1 else replace(e, ends=no_interval), note=seen)


def _gap_against_distance(results: Results, data: str | None) -> Figure | None:
    """Figs 3, 7 and 8: robust less standard in mode 0 against the earth mover's distance, one panel per
    source."""
    rows = {}
    for source in results.sources_on(data):
        points = []
        for target in results.targets(source):
            distance, gaps = results.graph.result(f"distance/{source.name}/{target}"), results.gaps(source, target, "0")
            if distance is not None and gaps:
                points.append((target, distance, over_seeds(target, [*gaps.values()])))
        if points:
            rows[source.name] = points
    if not rows:
        return None
    targets = list(results.scale.transfers.targets)
    figure, axes = panels(1, len(rows), 4.6, 3.6)
    for (name, points), ax in zip(rows.items(), axes[0], strict=True):
        ax.axhline(0, color="#57606a", lw=1, ls=":")
        floors = [distance["floor"] for _, distance, _ in points]
        ax.axvline(sum(floors) / len(floors), color="#57606a", lw=1, ls="--", label="_floor")
        for target, distance, gap in points:
            i = targets.index(target)
            x, colour = distance["value"], COLOURS[i % len(COLOURS)]
            if distance["low"] is not None:
                x = (distance["low"] + distance["high"]) / 2
            ax.plot([x], [gap.value], MARKERS[i % len(MARKERS)], color=colour, label=target)
            if distance["low"] is not None:
                ax.plot([distance["low"], distance["high"]], [gap.value] * 2, color=colour, lw=1, label="_distance")
            if gap.n > 1:
                ax.plot([x, x], [gap.low, gap.high], color=colour, lw=1, label="_seeds")
        ax.set(xlabel="earth mover's distance", ylabel="accuracy gap [points]", title=name)
    legend(figure, "outside right upper", columns=1)
    return figure


CLAIMS = (
    Claim(
        id="fig-3",
        where="Fig. 3; Sec. 5",
        sentence="From ImageNet, the gap grows with the earth mover's distance of the target.",
        quantity="correlation over targets between distance and gap (robust less standard), mode 0",
        test=OVER_TARGETS,
        evidence=partial(_correlations, data="imagenet"),
    ),
    Claim(
        id="fig-7",
        where="Fig. 7; Sec. 5",
        sentence="From CIFAR-100, the gap grows with the earth mover's distance of the target.",
        quantity="as fig-3, from CIFAR-100",
        test=OVER_TARGETS,
        evidence=partial(_correlations, data="cifar100"),
    ),
    Claim(
        id="fig-8",
        where="Fig. 8; appendix E",
        sentence="From CIFAR-10, the gap grows with the earth mover's distance of the target.",
        quantity="as fig-3, from CIFAR-10",
        test=OVER_TARGETS,
        evidence=partial(_correlations, data="cifar10"),
    ),
)

FIGURES = (
    PaperFigure(
        "fig-3",
        "Fig. 3: gap against distance, from ImageNet",
        "The paper: the farther the target, the larger the gap in favour of the robust network.",
        GAP,
        ("transfer/imagenet", "distance/imagenet"),
        partial(_gap_against_distance, data="imagenet"),
        claims=("fig-3", "far-tasks", "near-tasks"),
    ),
    PaperFigure(
        "fig-7",
        "Fig. 7: gap against distance, from CIFAR-100",
        "The paper: the gap grows with the distance.",
        GAP,
        ("transfer/cifar100", "distance/cifar100"),
        partial(_gap_against_distance, data="cifar100"),
        claims=("fig-7", "far-tasks", "far-tasks-others"),
    ),
    PaperFigure(
        "fig-8",
        "Fig. 8: gap against distance, from CIFAR-10",
        "The paper: the gap grows with the distance.",
        GAP,
        ("transfer/cifar10/", "distance/cifar10/"),
        partial(_gap_against_distance, data="cifar10"),
        claims=("fig-8", "far-tasks", "far-tasks-others"),
    ),
    PaperFigure(
        "other-distances",
        "As Figs 3, 7 and 8, from sources that the paper has not",
        "Not in the paper.",
        GAP,
        ("transfer", "distance"),
        partial(_gap_against_distance, data=None),
        claims=("far-tasks", "far-tasks-others"),
        extra=True,
    ),
)
