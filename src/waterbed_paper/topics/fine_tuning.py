"""Fine-tuning more than the head: batch norms, the whole network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from waterbed_paper.claims import OVER_SEEDS, Claim
from waterbed_paper.drawing import KINDS, legend, line, panels
from waterbed_paper.evidence import Evidence, over_seeds, unpaired
from waterbed_paper.figures import SEEDS, PaperFigure
from waterbed_paper.results import Results, shared_seeds
from waterbed_paper.scale import Source
from waterbed_paper.tables import TransferTable
from waterbed_paper.topics.transfer import FAR


def _gap_by_mode(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        for mode in ("1", "2"):
            gaps = [[results.gaps(source, t, m) for m in ("0", mode)] for t in results.targets(source)]
            shrinks = [{s: abs(a[s]) - abs(b[s]) for s in shared_seeds((a, b))} for a, b in gaps]
            count, means = mean_over_targets(shrinks)
            if means:
                label = f"{source.name}, mean of {count} targets: mode {mode} ({_budgets(results, '0', mode)})"
                yield over_seeds(label, means)


def _budgets(results: Results, *modes: str) -> str:
    """Epochs and augmentation of the modes: where they differ, part of a difference between modes is theirs."""
    t = results.scale.transfers
    parts = [f"mode {m}: {t.epochs[m]} epochs, augmentation {t.augment.get(m, 'none')}" for m in modes]
    return "; ".join(parts)


def _batch_norm(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        for i, kind in enumerate(("standard", "robust")):
            count, means = mean_over_targets([_gain(results, source, i, target) for target in results.targets(source)])
            if means:
                label = f"{source.name}, {kind}, mean of {count} targets ({_budgets(results, '0', '1')})"
                yield over_seeds(label, means)


def _batch_norm_by_source(results: Results) -> Iterator[Evidence]:
    complex_source = next((s for s in results.scale.sources if s.data == "imagenet"), None)
    for source in results.scale.sources:
        if complex_source is None or not source.data.startswith("cifar"):
            continue
        for i, kind in enumerate(("standard", "robust")):
            both = [[_gain(results, s, i, target) for target in FAR] for s in (source, complex_source)]
            shared = [gains for gains in zip(*both, strict=True) if all(gains)]
            means = [mean_over_targets([*of_source])[1] for of_source in zip(*shared, strict=True)]
            if means and all(means):
                name = f"{source.name} less imagenet, {kind}, mean of {len(shared)} targets"
                yield unpaired(name, *means)


def _gain(results: Results, source: Source, which: int, target: str) -> dict[int, float]:
    """Seed -> accuracy [points] in mode 1 less that in mode 0, of the standard (0) or the robust (1) backbone."""
    pairs = [results.pairs(source, results.accuracy(target, mode)) for mode in ("0", "1")]
    return {seed: pairs[1][seed][which] - pairs[0][seed][which] for seed in shared_seeds(pairs)}


def mean_over_targets(values: list[dict[int, float]]) -> tuple[int, list[float]]:
    """How many targets have values (seed -> value), and the mean over these targets for each seed that all have."""
    there = [v for v in values if v]
    return len(there), [float(np.mean([v[seed] for v in there])) for seed in shared_seeds(there)]


def _modes(results: Results) -> Figure | None:
    """Fig. 14: test accuracy after fine-tuning in each mode, one row per source, one column per target."""
    rows = {}
    names = list(results.scale.transfers.modes)
    for source in results.scale.sources:
        row = {
            target: {
                kind: {m: v for m in names if (v := results.of_seeds(source, kind, results.accuracy(target, m)))}
                for kind in KINDS
            }
            for target in results.targets(source)
        }
        row = {target: kinds for target, kinds in row.items() if any(kinds.values())}
        if row:
            rows[source.name] = row
    if not rows:
        return None
    targets = list(dict.fromkeys(t for row in rows.values() for t in row))
    figure, axes = panels(len(rows), len(targets), max(2.0, 5 / len(targets)), 2.3)
    for (name, row), line_of_axes in zip(rows.items(), axes, strict=True):
        for target, ax in zip(targets, line_of_axes, strict=True):
            ax.xaxis.update_units(names)
            for kind, style in KINDS.items():
                points = row.get(target, {}).get(kind, {})
                if points:
                    line(ax, points, kind, style)
            ax.tick_params(labelsize=7)
            if ax.lines:
                ax.set_title(f"{name} to {target}", fontsize=8)
            else:
                ax.set_axis_off()
        next(ax for ax in line_of_axes if ax.lines).set_ylabel("accuracy [%]", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("mode", fontsize=8)
    legend(figure)
    return figure


CLAIMS = (
    Claim(
        id="fig-14",
        where="Fig. 14; Tables 8 to 10; appendix F",
        sentence="The gap shrinks when more than the head is fine-tuned.",
        quantity="|gap| [points] in mode 0, less that in mode 1; likewise mode 2",
        test="Mean over targets. "
        + OVER_SEEDS
        + " Where modes differ in epochs or augmentation, the evidence says so.",
        evidence=_gap_by_mode,
    ),
    Claim(
        id="batch-norm",
        where="Fig. 14; Tables 6 and 7; appendix F",
        sentence="Fine-tuning the batch norms of the whole network (mode 1) raises the accuracy above that of mode 0.",
        quantity="accuracy [points] in mode 1, less that in mode 0",
        test="For robust and standard backbones, mean over targets. " + OVER_SEEDS + " Where modes differ in epochs or "
        "augmentation, the evidence says so.",
        evidence=_batch_norm,
    ),
    Claim(
        id="batch-norm-simple",
        where="Tables 6 and 7; appendix F",
        sentence="That gain is larger for backbones trained on CIFAR than on ImageNet.",
        quantity="the gain of batch-norm from CIFAR, less that from ImageNet, on targets of both",
        test="Mean over Fashion-MNIST, MNIST and SVHN. 95 % t interval over seeds, not paired (Welch), as the two "
        "sources share no network: above 0 supports, below 0 contradicts.",
        evidence=_batch_norm_by_source,
    ),
)

FIGURES = (
    PaperFigure(
        "fig-14",
        "Fig. 14: the modes of fine-tuning",
        "The paper: the gap shrinks from mode 0 to modes 1 and 2; mode 1 gains a good deal over mode 0.",
        f"Test accuracy after fine-tuning: linear layer, with the batch norm before it (0), all batch norms (1), the "
        f"whole network (2). {SEEDS}",
        ("transfer",),
        _modes,
        claims=("fig-14", "batch-norm", "batch-norm-simple"),
    ),
)

TABLES = (
    TransferTable(
        "6",
        "Table 6: transfer from CIFAR-10 and CIFAR-100, all modes",
        ("batch-norm", "batch-norm-simple"),
        other_sources=True,
    ),
    TransferTable("7", "Table 7: transfer from ImageNet, all modes", ("batch-norm", "batch-norm-simple")),
    TransferTable("8", "Table 8: robust less standard, from CIFAR-10 and CIFAR-100", ("fig-14",), other_sources=True),
    TransferTable("9", "Table 9: robust less standard, from ImageNet", ("fig-14",)),
    TransferTable(
        "10", "Table 10: robust less standard, from ImageNet to fine-grained tasks", ("fig-14",), other_targets="none"
    ),
)
