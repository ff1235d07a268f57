"""Accuracy after each epoch of fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from waterbed_paper.claims import OVER_SEEDS, Claim
from waterbed_paper.drawing import COLOURS, KINDS, MARKERS, legend, panels
from waterbed_paper.evidence import Evidence, over_seeds
from waterbed_paper.figures import PaperFigure
from waterbed_paper.results import Results, Value
from waterbed_paper.topics.fine_tuning import mean_over_targets
from waterbed_paper.topics.transfer import FINE_GRAINED, FROM_IMAGENET

CURVES = (
    "Accuracy on test images after each epoch, one line per seed: on all of them for the linear layer and mode 0, on "
    "at most 500 for modes 1 and 2."
)


def _curves(results: Results, data: str, among: tuple[str, ...] | None = None) -> Iterator[Evidence]:
    """Share of epochs in which the gap has its final sign, less 0.9; every mode, all targets or those named."""
    for source in results.sources_on(data):
        for mode in results.scale.transfers.modes:
            shares = []
            for target in (t for t in results.targets(source) if among is None or t in among):
                pairs = results.pairs(source, _test_curve(results, target, mode))
                signs = {s: np.sign(np.subtract(b, a)) for s, (a, b) in pairs.items()}
                shares.append({seed: float((s == s[-1]).mean()) - 0.9 for seed, s in signs.items()})
            count, means = mean_over_targets(shares)
            if means:
                yield over_seeds(f"{source.name}, mode {mode}, mean of {count} targets", means)


def _test_curve(results: Results, target: str, mode: str) -> Value:
    def curve(result: dict[str, Any]) -> list[float]:
        return [record["test_clean"] for record in result["history"]]

    return results.reader("transfer", curve, target, f"mode-{mode}")


def _draw_curves(results: Results, data: str | None) -> Figure | None:
    """Figs 10 to 13: test accuracy after each epoch of fine-tuning, one row per mode, one column per target."""
    rows = []
    for source in results.sources_on(data):
        for mode in results.scale.transfers.modes:
            row = {
                target: {kind: results.of_seeds(source, kind, _test_curve(results, target, mode)) for kind in KINDS}
                for target in results.targets(source)
            }
            if any(any(kinds.values()) for kinds in row.values()):
                rows.append((f"{source.name}\nmode {mode}", row))
    if not rows:
        return None
    targets = list(dict.fromkeys(t for _, row in rows for t in row))
    figure, axes = panels(len(rows), len(targets), max(1.9, 6.4 / len(targets)), 1.9)
    for (name, row), line_of_axes in zip(rows, axes, strict=True):
        for target, ax in zip(targets, line_of_axes, strict=True):
            for kind, style in KINDS.items():
                for i, history in enumerate(row.get(target, {}).get(kind, [])):
                    label = f"{kind}" if i == 0 else "_seed"
                    look = {"ls": "--" if style == 0 else "-", "marker": MARKERS[style], "ms": 2.5, "lw": 1.1}
                    ax.plot(range(1, len(history) + 1), history, color=COLOURS[style], label=label, **look)
            ax.set_title(f"{name.replace(chr(10), ', ')}\nto {target}", fontsize=7)
            ax.tick_params(labelsize=7)
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if not ax.lines:
                ax.text(0.5, 0.5, "not run", ha="center", va="center", transform=ax.transAxes, color="#57606a")
        line_of_axes[0].set_ylabel("accuracy [%]", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("epoch", fontsize=8)
    legend(figure)
    return figure


# The captions of Figs 10 to 13 claim nothing; this is what such curves can show.
CLAIMS = tuple(
    Claim(
        id=f"fig-{figure}",
        where=f"Fig. {figure}; appendix F (our reading: the caption claims nothing)",
        sentence=f"From {name}, the backbone that is better at the end of fine-tuning is better all along.",
        quantity="share of epochs in which the gap in validation accuracy has its final sign, less 0.9",
        test=f"{targets}, every mode by itself. {OVER_SEEDS}",
        evidence=partial(_curves, data=data, among=among),
        reading=True,
    )
    for figure, name, data, among, targets in (
        (10, "CIFAR-10", "cifar10", None, "Mean over targets"),
        (11, "CIFAR-100", "cifar100", None, "Mean over targets"),
        (
            12,
            "ImageNet",
            "imagenet",
            FROM_IMAGENET,
            "Mean over the targets of Table 9 (the caption does not say which are drawn)",
        ),
        (
            13,
            "ImageNet",
            "imagenet",
            FINE_GRAINED,
            "Mean over the targets of Table 10 (the caption does not say which are drawn)",
        ),
    )
)

FIGURES = (
    *(
        PaperFigure(
            f"fig-{number}",
            f"{title} while fine-tuning, from {name}",
            "The paper draws validation accuracy per epoch, and claims nothing of it.",
            CURVES,
            only,
            partial(_draw_curves, data=data),
            claims=(f"fig-{number}", "fig-13") if number == "12" else (f"fig-{number}",),
        )
        for number, title, name, data, only in (
            ("10", "Fig. 10: accuracy", "CIFAR-10", "cifar10", ("transfer/cifar10/",)),
            ("11", "Fig. 11: accuracy", "CIFAR-100", "cifar100", ("transfer/cifar100",)),
            ("12", "Figs 12 and 13: accuracy", "ImageNet", "imagenet", ("transfer/imagenet",)),
        )
    ),
    PaperFigure(
        "other-curves",
        "As Figs 10 to 13, from sources that the paper has not",
        "Not in the paper.",
        CURVES,
        ("transfer",),
        partial(_draw_curves, data=None),
        extra=True,
    ),
)
