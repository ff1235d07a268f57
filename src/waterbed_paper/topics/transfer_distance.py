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
from waterbed_paper.probe_results import PAPERS, TUNED, ProbeResults
from waterbed_paper.results import PROTOCOLS, Results
from waterbed_paper.scale import Source
from waterbed_paper.topics.transfer import IN_PLACE_OF_SVHN

OVER_TARGETS = (
    "Spearman and Pearson of the mean gaps over seeds, with Fisher's 95 % interval over targets (few, so it is wide): "
    "above 0 supports, below 0 contradicts, if the one-sided permutation p-value agrees (at most 2.5 %); one seed "
    "decides nothing. Few targets have little power, and the evidence says how little: undecided then speaks neither "
    "for nor against. Where the source was probed on further targets, the tuned linear probe decides, as it has the "
    "most of them, and mode 0 stands beside it. Distances by the features of the first standard network of the source, "
    "corrected for the bias of few images a class. Beside what decides: without traffic signs or handwritten digits, "
    "which stand in the place of SVHN; and with variants, the same images with coarser classes, which are not further "
    "targets."
)
GAP = (
    "Accuracy of the robust backbone less that of the standard one: by the tuned linear probe where the source was "
    "probed on further targets, else in mode 0. Bars: 95 % t interval over seeds (none for one seed), and the 95 % "
    "interval of the distance; points are at the distance corrected for the bias of few images a class. Hollow: "
    "variants of another target (its images with coarser classes). Dashed: mean distance between two halves of one set."
)
ByTarget = dict[str, dict[int, float]]


def _ways(results: Results, source: Source) -> dict[str, ByTarget]:
    """How heads were trained -> target -> seed -> gap, of targets with a distance; those with several seeds first."""
    probes, ways = ProbeResults(results), {}
    if source in probes.sources:
        for probe in (TUNED, PAPERS):
            gaps = {t: probes.gaps(source, t, probe) for t in probes.targets(source, further=True)}
            ways[f"linear probe, {probe.label}"] = gaps
    for protocol in PROTOCOLS:
        gaps = {t: results.gaps(source, t, "0", protocol=protocol) for t in results.targets(source)}
        ways[f"mode 0, {results.protocol_label(protocol)}"] = gaps
    ways = {way: {t: g for t, g in gaps.items() if g and _distance(results, source, t)} for way, gaps in ways.items()}
    ways = {way: gaps for way, gaps in ways.items() if gaps}
    return dict(sorted(ways.items(), key=lambda item: min(map(len, item[1].values())) < 2))


def _distance(results: Results, source: Source, target: str) -> dict[str, float] | None:
    return results.graph.result(f"distance/{source.name}/{target}")


def _middle(distance: dict[str, float]) -> float:
    """Corrected for the bias of few images a class."""
    if distance.get("corrected") is not None:
        return distance["corrected"]
    low, high = distance.get("low"), distance.get("high")
    return distance["value"] if low is None or high is None else (low + high) / 2


def _correlations(results: Results, data: str) -> Iterator[Evidence]:
    """Of distance and gap (mean over seeds), over targets; one seed decides nothing."""
    variants = {t for t, of in results.scale.probes.further.items() if of}
    for source in results.sources_on(data):
        distances = {t: _middle(d) for t in _all_targets(results) if (d := _distance(results, source, t))}
        for i, (way, all_gaps) in enumerate(_ways(results, source).items()):
            gaps = {t: g for t, g in all_gaps.items() if t not in variants}
            name = f"{source.name}, {way}"
            for e in _of_targets(name, distances, gaps):
                yield replace(e, beside=i > 0)
            without = {t: g for t, g in gaps.items() if t not in IN_PLACE_OF_SVHN}
            left_out = " and ".join(t for t in gaps if t not in without)
            others = [(f"{name}, without {left_out}", without)] if left_out else []
            others += [(f"{name}, with variants", all_gaps)] if len(gaps) < len(all_gaps) else []
            for label, more in others if i == 0 else ():
                for e in _of_targets(label, distances, more):
                    yield replace(e, beside=True)


def _all_targets(results: Results) -> list[str]:
    probes = results.scale.probes
    return list(dict.fromkeys((*results.scale.transfers.targets, *probes.targets, *probes.further)))


def _of_targets(name: str, distances: dict[str, float], gaps: ByTarget) -> Iterator[Evidence]:
    if len(gaps) < 3:
        return
    x = np.array([distances[t] for t in gaps])
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
    """Figs 3, 7 and 8: robust less standard against the earth mover's distance, one panel per source."""
    ways = {source.name: (source, _ways(results, source)) for source in results.sources_on(data)}
    rows = {name: (source, *next(iter(found.items()))) for name, (source, found) in ways.items() if found}
    if not rows:
        return None
    targets = _all_targets(results)
    figure, axes = panels(1, len(rows), 4.6, 3.6)
    for (name, (source, way, gaps)), ax in zip(rows.items(), axes[0], strict=True):
        ax.axhline(0, color="#57606a", lw=1, ls=":")
        distances = {target: _distance(results, source, target) or {} for target in gaps}
        floor = float(np.mean([distance["floor"] for distance in distances.values()]))
        ax.axvline(floor, color="#57606a", lw=1, ls="--", label="_floor")
        for target, distance in distances.items():
            gap, x, i = over_seeds(target, [*gaps[target].values()]), _middle(distance), targets.index(target)
            colour = COLOURS[i % len(COLOURS)]
            # The same colour again has another marker.
            marker = MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]
            hollow = bool(results.scale.probes.further.get(target))
            ax.plot([x], [gap.value], marker, color=colour, mfc="none" if hollow else colour, label=target)
            if distance["low"] is not None:
                ax.plot([distance["low"], distance["high"]], [gap.value] * 2, color=colour, lw=1, label="_distance")
            if gap.n > 1:
                ax.plot([x, x], [gap.low, gap.high], color=colour, lw=1, label="_seeds")
        ax.set_title(f"{name}: {way}", fontsize=9)
        ax.set(xlabel="earth mover's distance", ylabel="accuracy gap [points]")
    legend(figure, "outside right upper", columns=1)
    return figure


CLAIMS = (
    Claim(
        id="fig-3",
        where="Fig. 3; Sec. 5",
        sentence="From ImageNet, the gap grows with the earth mover's distance of the target.",
        quantity="correlation over targets between distance and gap (robust less standard) with the backbone frozen",
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
        ("transfer/imagenet", "protocols/imagenet", "probe/imagenet", "distance/imagenet"),
        partial(_gap_against_distance, data="imagenet"),
        claims=("fig-3", "far-tasks", "near-tasks"),
    ),
    PaperFigure(
        "fig-7",
        "Fig. 7: gap against distance, from CIFAR-100",
        "The paper: the gap grows with the distance.",
        GAP,
        ("transfer/cifar100", "protocols/cifar100", "probe/cifar100", "distance/cifar100"),
        partial(_gap_against_distance, data="cifar100"),
        claims=("fig-7", "far-tasks", "far-tasks-others"),
    ),
    PaperFigure(
        "fig-8",
        "Fig. 8: gap against distance, from CIFAR-10",
        "The paper: the gap grows with the distance.",
        GAP,
        ("transfer/cifar10/", "protocols/cifar10/", "probe/cifar10/", "distance/cifar10/"),
        partial(_gap_against_distance, data="cifar10"),
        claims=("fig-8", "far-tasks", "far-tasks-others"),
    ),
    PaperFigure(
        "other-distances",
        "As Figs 3, 7 and 8, from sources that the paper has not",
        "Not in the paper.",
        GAP,
        ("transfer", "protocols", "probe", "distance"),
        partial(_gap_against_distance, data=None),
        claims=("far-tasks", "far-tasks-others"),
        extra=True,
    ),
)
