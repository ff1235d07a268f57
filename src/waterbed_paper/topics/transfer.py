"""Transfer with a new head alone: far tasks, near tasks, and from a simple source to a more complex target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from waterbed_paper.claims import BEST_OF_SEVERAL, OVER_SEEDS, Claim
from waterbed_paper.drawing import by_eps, legend, line, panels
from waterbed_paper.evidence import Evidence, best_of, no_interval, over_seeds, unpaired
from waterbed_paper.figures import SEEDS, PaperFigure
from waterbed_paper.results import PROTOCOLS, Results, deciding, shared_seeds
from waterbed_paper.scale import Source
from waterbed_paper.tables import TransferTable

IN_PLACE_OF_SVHN = ("gtsrb", "digits")
FAR = ("fashion-mnist", "mnist", "svhn")  # of a CIFAR source
FROM_IMAGENET = ("cifar10", "cifar100", *FAR)
FINE_GRAINED = ("cub-200-2011", "fgvc-aircraft", "mit-indoor", "oxford-flowers", "stanford-cars", "stanford-dogs")


def _far(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        far = FROM_IMAGENET if source.data == "imagenet" else FAR
        yield from _each_gap(results, source, far, "0")


def _far_others(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        yield from _each_gap(results, source, IN_PLACE_OF_SVHN, "0")


def _near(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        if source.data == "imagenet":
            yield from _each_gap(results, source, FINE_GRAINED, "0", -1)


def _nearly_the_source(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        if source.data == "cifar10":
            yield from _each_gap(results, source, ("cinic-imagenet",), "linear", -1)


def _each_gap(
    results: Results, source: Source, targets: tuple[str, ...], mode: str, sign: int = 1
) -> Iterator[Evidence]:
    """Gap [points] on every one of these targets by itself, times the sign.

    The first of PROTOCOLS that was run for several seeds decides, else the first that was run; the others stand beside.
    """
    for target in (t for t in results.targets(source) if t in targets):
        gaps = {protocol: results.gaps(source, target, mode, protocol=protocol) for protocol in PROTOCOLS}
        gaps = {protocol: [*by_seed.values()] for protocol, by_seed in gaps.items() if by_seed}
        decides = deciding({protocol: [values] for protocol, values in gaps.items()})
        for protocol, values in gaps.items():
            label = f"{source.name} to {target}, {results.protocol_label(protocol)}"
            yield over_seeds(label, [sign * gap for gap in values], beside=protocol != decides)


def _asymmetry(results: Results) -> Iterator[Evidence]:
    """From the first source of each; the networks of the two have nothing in common, so their seeds are not paired."""
    names = {source.data: source for source in reversed(results.scale.sources)}
    if not {"cifar10", "cifar100"} <= set(names):
        return
    ways = {}
    for protocol in PROTOCOLS:
        there = results.gaps(names["cifar10"], "cifar100", "0", protocol=protocol)
        back = results.gaps(names["cifar100"], "cifar10", "0", protocol=protocol)
        if there and back:
            ways[protocol] = [*there.values()], [*back.values()]
    for protocol, gaps in ways.items():
        label = f"CIFAR-10 to CIFAR-100, less back, {results.protocol_label(protocol)}"
        yield unpaired(label, *gaps, beside=protocol != deciding(ways))


def _complex_target(results: Results) -> Iterator[Evidence]:
    """At the eps that does best; beside it at each, with what it costs on the source, and by other protocols."""
    source = next((s for s in results.scale.sources if s.data == "cifar10"), None)
    if source is None:
        return
    name, clean = "CIFAR-10 to CIFAR-100, ", results.reader("accuracy", lambda r: r["clean"])
    gaps = {eps: results.gaps(source, "cifar100", "0", eps) for eps in source.eps if eps > 0}
    gaps = {eps: of_seeds for eps, of_seeds in gaps.items() if of_seeds}
    if gaps:
        values = {f"eps {eps:g}": [*of_seeds.values()] for eps, of_seeds in gaps.items()}
        yield best_of(values, f"{name}{{}}, best of {len(values)} eps")
    for eps, of_seeds in gaps.items():
        e = over_seeds(f"{name}eps {eps:g}", [*of_seeds.values()], beside=True)
        costs = [standard - robust for standard, robust in results.pairs(source, clean, eps).values()]
        yield replace(e, note=f"costs {np.mean(costs):.1f} points on the source") if costs else e
    for protocol in PROTOCOLS[:-1]:
        if of_seeds := results.gaps(source, "cifar100", "0", protocol=protocol):
            label = f"{name}eps {source.robust:g}, {results.protocol_label(protocol)}"
            yield over_seeds(label, [*of_seeds.values()], beside=True)


def _generic_extractor(results: Results) -> Iterator[Evidence]:
    """The mean gap over targets: over targets, which stand for tasks to come; beside it over seeds, of these tasks.

    By the first of PROTOCOLS that was run; the others stand beside it.
    """
    for source in results.scale.sources:
        found = 0
        for protocol in PROTOCOLS:
            gaps = {t: g for t in results.targets(source) if (g := results.gaps(source, t, "0", protocol=protocol))}
            if len(gaps) > 1:
                name = f"{source.name}, mean over {', '.join(gaps)}, {results.protocol_label(protocol)}"
                e = over_seeds(name, [float(np.mean([*g.values()])) for g in gaps.values()], "target", found > 0)
                seeds = shared_seeds([*gaps.values()])
                yield e if len(seeds) > 1 else replace(e, ends=no_interval)
                over = [float(np.mean([g[seed] for g in gaps.values()])) for seed in seeds]
                if over:
                    yield over_seeds(f"{name}: over seeds, on these targets", over, beside=True)
                found += 1


def _cifar10_from_cifar100(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        if source.data == "cifar100":
            yield from _each_gap(results, source, ("cifar10",), "0", -1)


def _against_eps_of_training(results: Results) -> Figure | None:
    """Sec. 5: accuracy on the source, and after fine-tuning on each target, against the eps that the source network was
    trained at; sources of three eps or more."""
    rows = {}
    for source in results.scale.sources:
        quantities = {"the source itself, clean": {"": results.reader("accuracy", lambda r: r["clean"])}}
        for target in results.targets(source):
            names = {m: "linear layer" if m == "linear" else f"mode {m}" for m in results.scale.transfers.modes}
            quantities[target] = {names[m]: results.accuracy(target, m) for m in names if m in ("linear", "0")}
        row = {name: {k: by_eps(source, v) for k, v in kinds.items()} for name, kinds in quantities.items()}
        row = {name: {k: points for k, points in kinds.items() if len(points) > 2} for name, kinds in row.items()}
        row = {name: kinds for name, kinds in row.items() if kinds}
        if len(row) > 1:
            rows[source.name] = row
    if not rows:
        return None
    columns = 3
    each = {name: -(-len(row) // columns) for name, row in rows.items()}
    figure, axes = panels(sum(each.values()), columns, 2.9, 2.4)
    lines_of_axes = iter(axes)
    for name, row in rows.items():
        places = [ax for _ in range(each[name]) for ax in next(lines_of_axes)]
        for ax in places[len(row) :]:
            ax.set_axis_off()
        for ax, (target, kinds) in zip(places, row.items(), strict=False):
            for kind, points in kinds.items():
                line(ax, points, kind or "accuracy on the source", {"": 6, "linear layer": 2, "mode 0": 3}[kind])
            ax.set_title(f"{name}: {target}" if "" in kinds else f"{name} to {target}", fontsize=9)
            ax.set_ylabel("accuracy [%]", fontsize=8)
            ax.set_xlabel("eps of training", fontsize=8)
    legend(figure)
    return figure


CLAIMS = (
    Claim(
        id="far-tasks",
        where="Tables 1 and 2; Sec. 5; abstract",
        sentence="With a new head alone (mode 0), the robust backbone is better on tasks far from the source.",
        quantity="accuracy [points] of the robust backbone, less that of the standard one, mode 0: from CIFAR to "
        "Fashion-MNIST, MNIST and SVHN, from ImageNet also to CIFAR-10 and CIFAR-100",
        test="For every source and target by itself. " + OVER_SEEDS,
        evidence=_far,
    ),
    Claim(
        id="far-tasks-others",
        where="Sec. 5, beyond the paper's own targets",
        sentence="With a new head alone (mode 0), the robust backbone is better on other far tasks, too.",
        quantity="as far-tasks, to traffic signs or handwritten digits, which stand in the place of SVHN",
        test="For every source and target by itself. " + OVER_SEEDS,
        reading=True,
        evidence=_far_others,
    ),
    Claim(
        id="generic-extractor",
        where="Sec. 6, conclusion",
        sentence="To have one feature extractor for several tasks, it is best to train it adversarially.",
        quantity="mean over targets of the accuracy [points] of the robust backbone, less that of the standard one, "
        "mode 0",
        test="95 % t interval over the mean gaps of targets, for each source by itself: above 0 supports, below 0 "
        "contradicts. It is over targets, as the claim is about tasks that were not tried; one seed decides nothing. "
        "Beside it the same mean over seeds, on these targets alone. Which targets there are is the scale's choice.",
        evidence=_generic_extractor,
    ),
    Claim(
        id="near-tasks",
        where="Table 2; Sec. 5",
        sentence="The standard backbone is better on fine-grained tasks whose photographs resemble the source.",
        quantity="accuracy [points] of the standard backbone, less that of the robust one, mode 0, from ImageNet "
        "to Aircraft, Birds, Cars, Dogs, Flowers and Indoor",
        test="For every target by itself. " + OVER_SEEDS,
        evidence=_near,
    ),
    Claim(
        id="table-5",
        where="Table 5; appendix E",
        sentence="With nearly the same images and classes as the source, the standard backbone is better.",
        quantity="accuracy [points] of the standard backbone, less that of the robust one, linear layer alone, "
        "from CIFAR-10 to CINIC-10 without its CIFAR images",
        test=OVER_SEEDS,
        evidence=_nearly_the_source,
    ),
    Claim(
        id="near-cifar10",
        where="Table 1; Sec. 5",
        sentence="From CIFAR-100 to CIFAR-10, a near and simpler task, the standard backbone is better.",
        quantity="accuracy [points] of the standard backbone, less that of the robust one, mode 0, from CIFAR-100 to "
        "CIFAR-10",
        test="For every source by itself. " + OVER_SEEDS,
        evidence=_cifar10_from_cifar100,
    ),
    Claim(
        id="asymmetry",
        where="Table 1; Sec. 5",
        sentence="The gap is not symmetric: the robust backbone gains more, or loses less, from a simple source to "
        "a more complex target than the other way round.",
        quantity="gap [points, robust less standard] from CIFAR-10 to CIFAR-100, less that from CIFAR-100 to "
        "CIFAR-10, mode 0",
        test="95 % t interval over seeds, not paired (Welch), as the two sources share no network: above 0 supports, "
        "below 0 contradicts.",
        evidence=_asymmetry,
    ),
    Claim(
        id="complex-target",
        where="Table 1; Sec. 5",
        sentence="From a simple source to a more complex target the robust backbone is better.",
        quantity="gap [points, robust less standard] from CIFAR-10 to CIFAR-100, mode 0",
        test="The paper's eps of 1 costs another network, trained longer, another share of its accuracy on the source, "
        "so that equal eps are not equal robust networks. "
        + BEST_OF_SEVERAL
        + " Each eps stands beside it with what it "
        "costs on the source. " + OVER_SEEDS,
        evidence=_complex_target,
    ),
)

FIGURES = (
    PaperFigure(
        "transfer-by-eps",
        "Sec. 5: transfer and accuracy on the source against eps",
        "The paper: there is a trade-off between transferability and accuracy on the source (abstract). It draws none.",
        f"Accuracy on test images; eps 0 is the standard network. {SEEDS}",
        ("accuracy", "transfer"),
        _against_eps_of_training,
        claims=("far-tasks", "complex-target", "waterbed"),
        extra=True,
    ),
)

TABLES = (
    TransferTable(
        "1",
        "Table 1: transfer from CIFAR-10 and CIFAR-100, mode 0",
        ("far-tasks", "far-tasks-others", "generic-extractor", "near-cifar10", "asymmetry", "complex-target"),
        other_sources=True,
    ),
    TransferTable("2", "Table 2: transfer from ImageNet, mode 0", ("far-tasks", "near-tasks")),
    TransferTable(
        "5",
        "Table 5: from CIFAR-10 to CINIC-10 without CIFAR, linear layer alone",
        ("table-5",),
        other_sources=True,
        other_targets="all",
    ),
)
