"""Shifts of the distribution of images: how much of its accuracy a network keeps on corrupted ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from waterbed_paper.claims import OVER_SEEDS, Claim
from waterbed_paper.drawing import KINDS, legend, line, panels
from waterbed_paper.evidence import Evidence
from waterbed_paper.figures import SEEDS, PaperFigure
from waterbed_paper.results import Results


def kept(result: dict, name: str | None = None) -> float:
    """Accuracy on one corruption, or on all, mean over grades, in percent of that on clean images.

    >>> kept({"clean": 80.0, "corrupted": {"blur": [60.0, 40.0], "jpeg": [80.0, 60.0]}})
    75.0
    """
    names = result["corrupted"] if name is None else [name]
    return 100 * float(np.mean([np.mean(result["corrupted"][one]) for one in names])) / result["clean"]


def _evidence(results: Results) -> Iterator[Evidence]:
    """All corruptions together decide; each, and the accuracy itself, stand beside."""
    for source in results.scale.sources:
        yield from results.difference("percent kept, all corruptions", source, results.reader("shift", kept))
    for source in results.scale.sources:
        points = results.reader("shift", lambda r: kept(r) * r["clean"] / 100)
        beside = results.difference("accuracy on corrupted images [points]", source, points)
        for name in _names(results):
            value = results.reader("shift", lambda r, name=name: kept(r, name))
            beside += results.difference(f"percent kept, {name}", source, value)
        yield from (replace(e, beside=True) for e in beside)


def _names(results: Results) -> list[str]:
    """The corruptions that were run."""
    return next((list(result["corrupted"]) for _, result in results.first_of("shift")), [])


def _by_corruption(results: Results) -> Figure | None:
    """The share kept of every corruption, by the standard and the robust networks."""
    names = _names(results)
    sources = [s for s in results.scale.sources if results.pairs(s, results.reader("shift", kept))]
    if not sources:
        return None
    figure, axes = panels(1, len(sources), 4.2, 3.4)
    for source, ax in zip(sources, axes[0], strict=True):
        for label, which in KINDS.items():
            points = {}
            for name in names:
                pairs = results.pairs(source, results.reader("shift", lambda r, name=name: kept(r, name)))
                points[name] = [pair[which] for pair in pairs.values()]
            line(ax, points, label, which)
        ax.set(title=source.name, ylabel="accuracy kept [% of clean]")
        ax.tick_params("x", rotation=30)
    legend(figure)
    return figure


CLAIMS = (
    Claim(
        id="shift",
        where="Sec. 5, after eq. 11",
        sentence="A robust network is more robust to shifts of the distribution.",
        quantity="percent of its accuracy on clean test images that the robust network keeps on corrupted ones, less "
        "the same of the standard network",
        test="Mean over Gaussian noise, blur, brightness, contrast, pixelation and JPEG, at three grades each. "
        + OVER_SEEDS
        + " Each corruption stands beside, and so does the difference of the accuracies themselves, which the standard "
        "network's lead on clean images is part of. The paper says what a shift is by a derivative with respect to the "
        "data set; that it means such corruptions is our reading.",
        reading=True,
        evidence=_evidence,
    ),
)

FIGURES = (
    PaperFigure(
        "shift",
        "After eq. 11: corrupted images",
        "The paper says that it explains robustness to shifts, and shows no experiment.",
        f"Accuracy that is kept, mean over three grades of each corruption. {SEEDS}",
        ("shift",),
        _by_corruption,
        claims=("shift",),
        extra=True,
    ),
)
