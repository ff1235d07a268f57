"""Evidence on representations and their transfer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from waterbed.transfer_learning.tradeoff import correlation
from waterbed_paper.evidence import about
from waterbed_paper.found import Evidence, Found, no_interval, over_seeds, over_targets, shared_seeds
from waterbed_paper.scale import Source

IN_PLACE_OF_SVHN = ("gtsrb", "digits")
FAR = ("fashion-mnist", "mnist", "svhn")  # of a CIFAR source
FROM_IMAGENET = ("cifar10", "cifar100", *FAR)
FINE_GRAINED = ("cub-200-2011", "fgvc-aircraft", "mit-indoor", "oxford-flowers", "stanford-cars", "stanford-dogs")


@about("fig-6")
def _entangled(found: Found) -> Iterator[Evidence]:
    value = found.reader("features", lambda r: r["soft_nearest_neighbour_loss"]["value"])
    for source in found.scale.sources:
        yield from found.steps("soft nearest neighbour loss", source, value)


@about("far-tasks")
def _far(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        far = FROM_IMAGENET if source.data == "imagenet" else FAR
        yield from _each_gap(found, source, far, "0")


@about("far-tasks-others")
def _far_others(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        yield from _each_gap(found, source, IN_PLACE_OF_SVHN, "0")


@about("near-tasks")
def _near(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        if source.data == "imagenet":
            yield from _each_gap(found, source, FINE_GRAINED, "0", -1)


@about("table-5")
def _nearly_the_source(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        if source.data == "cifar10":
            yield from _each_gap(found, source, ("cinic-imagenet",), "linear", -1)


def _each_gap(found: Found, source: Source, targets: tuple[str, ...], mode: str, sign: int = 1) -> Iterator[Evidence]:
    """Gap [points] on every one of these targets by itself, times the sign."""
    for target in found.targets(source):
        gaps = found.gaps(source, target, mode) if target in targets else {}
        if gaps:
            yield over_seeds(f"{source.name} to {target}", [sign * gap for gap in gaps.values()])


def _there_and_back(found: Found) -> tuple[dict[int, float], dict[int, float]]:
    """Gaps from CIFAR-10 to CIFAR-100 and the other way, of the first source of each, by seed."""
    names = {source.data: source for source in reversed(found.scale.sources)}
    if not {"cifar10", "cifar100"} <= set(names):
        return {}, {}
    return found.gaps(names["cifar10"], "cifar100", "0"), found.gaps(names["cifar100"], "cifar10", "0")


@about("asymmetry")
def _asymmetry(found: Found) -> Iterator[Evidence]:
    there, back = _there_and_back(found)
    seeds = shared_seeds((there, back))
    if seeds:
        yield over_seeds("CIFAR-10 to CIFAR-100, less back", [there[seed] - back[seed] for seed in seeds])


@about("complex-target")
def _complex_target(found: Found) -> Iterator[Evidence]:
    """At the eps of the tables; beside it at the others that backbones were trained at."""
    source = next((s for s in found.scale.sources if s.data == "cifar10"), None)
    for eps in sorted(source.eps, key=lambda e: e != source.robust) if source is not None else ():
        gaps = found.gaps(source, "cifar100", "0", eps) if eps > 0 else {}
        if gaps:
            yield over_seeds(f"CIFAR-10 to CIFAR-100, eps {eps:g}", [*gaps.values()], beside=eps != source.robust)


def _correlations(found: Found, data: str) -> Iterator[Evidence]:
    """Of distance and gap (mean over seeds), over targets; one seed decides nothing. Beside it without what
    stands in the place of SVHN."""
    for source in found.scale.sources:
        if source.data != data:
            continue
        distances = {t: found.graph.result(f"distance/{source.name}/{t}") for t in found.targets(source)}
        gaps = {t: found.gaps(source, t, "0") for t, d in distances.items() if d is not None}
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
        yield e if seeds > 1 else replace(e, ends=no_interval)


@about("fig-3")
def _from_imagenet(found: Found) -> Iterator[Evidence]:
    yield from _correlations(found, "imagenet")


@about("fig-7")
def _from_cifar100(found: Found) -> Iterator[Evidence]:
    yield from _correlations(found, "cifar100")


@about("fig-8")
def _from_cifar10(found: Found) -> Iterator[Evidence]:
    yield from _correlations(found, "cifar10")


def _sizes(found: Found, sign: int) -> Iterator[Evidence]:
    """Gap of the larger network less that of the smaller, where both have that sign; every target and mode."""
    for large in found.scale.sources:
        if large.larger_than is None:
            continue
        small = found.scale.source(large.larger_than)
        for mode in found.scale.transfers.modes:
            for target in found.targets(large):
                gaps = [found.gaps(source, target, mode) for source in (large, small)]
                seeds = shared_seeds(gaps)
                if seeds and all(sign * float(np.mean([*g.values()])) > 0 for g in gaps):
                    label = f"{large.name} and {small.name} to {target}, mode {mode}"
                    yield over_seeds(label, [gaps[0][seed] - gaps[1][seed] for seed in seeds])


@about("larger-network")
def _larger(found: Found) -> Iterator[Evidence]:
    yield from _sizes(found, 1)


@about("larger-network-near")
def _larger_near(found: Found) -> Iterator[Evidence]:
    yield from _sizes(found, -1)


@about("fig-14")
def _gap_by_mode(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        for mode in ("1", "2"):
            gaps = [[found.gaps(source, t, m) for m in ("0", mode)] for t in found.targets(source)]
            shrinks = [{s: abs(a[s]) - abs(b[s]) for s in shared_seeds((a, b))} for a, b in gaps]
            count, means = _by_seed(shrinks)
            if means:
                label = f"{source.name}, mean of {count} targets: mode {mode} ({_budgets(found, '0', mode)})"
                yield over_seeds(label, means)


def _budgets(found: Found, *modes: str) -> str:
    """Epochs and augmentation of the modes: where they differ, part of a difference between modes is theirs."""
    t = found.scale.transfers
    parts = [f"mode {m}: {t.epochs[m]} epochs, augmentation {t.augment.get(m, 'none')}" for m in modes]
    return "; ".join(parts)


@about("batch-norm")
def _batch_norm(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        for i, kind in enumerate(("standard", "robust")):
            count, means = _by_seed([_gain(found, source, i, target) for target in found.targets(source)])
            if means:
                label = f"{source.name}, {kind}, mean of {count} targets ({_budgets(found, '0', '1')})"
                yield over_seeds(label, means)


@about("batch-norm-simple")
def _batch_norm_by_source(found: Found) -> Iterator[Evidence]:
    targets = ("fashion-mnist", "mnist", "svhn")
    complex_source = next((s for s in found.scale.sources if s.data == "imagenet"), None)
    for source in found.scale.sources:
        if complex_source is None or not source.data.startswith("cifar"):
            continue
        for i, kind in enumerate(("standard", "robust")):
            both = [[_gain(found, s, i, target) for target in targets] for s in (source, complex_source)]
            # Sources share no network: their seeds are paired only to have as many of both.
            count, means = _by_seed(
                [{k: a[k] - b[k] for k in shared_seeds((a, b))} for a, b in zip(*both, strict=True)]
            )
            if means:
                yield over_seeds(f"{source.name} less imagenet, {kind}, mean of {count} targets", means)


def _gain(found: Found, source: Source, which: int, target: str) -> dict[int, float]:
    """Seed -> accuracy [points] in mode 1 less that in mode 0, of the standard (0) or the robust (1) backbone."""
    pairs = [found.pairs(source, found.accuracy(target, mode)) for mode in ("0", "1")]
    return {seed: pairs[1][seed][which] - pairs[0][seed][which] for seed in shared_seeds(pairs)}


def _by_seed(values: list[dict[int, float]]) -> tuple[int, list[float]]:
    """How many targets have values (seed -> value), and the mean over these targets for each seed that all have."""
    there = [v for v in values if v]
    return len(there), [float(np.mean([v[seed] for v in there])) for seed in shared_seeds(there)]


def _curves(found: Found, data: str, among: tuple[str, ...] | None = None) -> Iterator[Evidence]:
    """Share of epochs in which the gap has its final sign, less 0.9; every mode, all targets or those named."""
    for source in found.scale.sources:
        if source.data != data:
            continue
        for mode in found.scale.transfers.modes:
            shares = []
            for target in (t for t in found.targets(source) if among is None or t in among):
                read = found.reader("transfer", _test_curve, target, f"mode-{mode}")
                signs = {s: np.sign(np.subtract(b, a)) for s, (a, b) in found.pairs(source, read).items()}
                shares.append({seed: float((s == s[-1]).mean()) - 0.9 for seed, s in signs.items()})
            count, means = _by_seed(shares)
            if means:
                yield over_seeds(f"{source.name}, mode {mode}, mean of {count} targets", means)


def _test_curve(result: dict) -> list[float]:
    return [record["test_clean"] for record in result["history"]]


@about("fig-10")
def _curves_from_cifar10(found: Found) -> Iterator[Evidence]:
    yield from _curves(found, "cifar10")


@about("fig-11")
def _curves_from_cifar100(found: Found) -> Iterator[Evidence]:
    yield from _curves(found, "cifar100")


@about("fig-12")
def _curves_to_small_images(found: Found) -> Iterator[Evidence]:
    yield from _curves(found, "imagenet", FROM_IMAGENET)


@about("fig-13")
def _curves_to_fine_grained(found: Found) -> Iterator[Evidence]:
    yield from _curves(found, "imagenet", FINE_GRAINED)


@about("robust-features")
def _robust_heads(found: Found) -> Iterator[Evidence]:
    eps = max(found.scale.transfers.attack_eps, default=None)
    if eps is None:
        return
    for source in found.scale.sources:
        for target in found.targets(source):
            value = found.reader("transfer", lambda r: r[f"pgd-20 l2 eps={eps:g}"], target, "mode-linear")
            yield from found.difference(f"to {target}, PGD-20 at {eps:g}", source, value)
