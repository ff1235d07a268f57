"""Inversions against the eps of training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from waterbed.reporting.page import Picture
from waterbed_paper.claims import BEST_OF_SEVERAL, OVER_SEEDS, Claim
from waterbed_paper.drawing import against_eps
from waterbed_paper.evidence import Evidence, best_of
from waterbed_paper.figures import SEEDS, PaperFigure
from waterbed_paper.results import Results, Value
from waterbed_paper.topics.inversion import MODES, unlikeness


def _best_eps(results: Results) -> Iterator[Evidence]:
    unlike = unlikeness(results, "own/plain")
    for source in results.scale.sources:
        by_seed = [results.by_eps(source, unlike, seed) for seed in range(max(source.seeds.values()))]
        by_seed = [values for values in by_seed if len(values) > 2]
        shared = sorted(set.intersection(*(set(values) for values in by_seed))) if by_seed else []
        if len(shared) > 2:
            gains = {f"{e:g}": [min(v[shared[0]], v[shared[-1]]) - v[e] for v in by_seed] for e in shared[1:-1]}
            tried = ", ".join(f"{e:g}" for e in shared)
            yield best_of(gains, f"{source.name}: 1 - SSIM, best eps between {{}} (of {tried})")


def _inversion_quality(results: Results) -> Figure | None:
    """Fig. 9 in numbers: similarity of inversions to the original against eps, and the size of the noise."""

    def value(mode: str) -> Value:
        return results.reader("inversions", lambda r: float(np.mean(r[f"own/{mode}"]["ssim"])))

    size = "noise [% of |w|]"
    quantities = {f"SSIM, {mode}": lambda s, m=mode: value(m) for mode in MODES}
    noise = results.reader("inversions", lambda r: 100 * r["noise_size"])
    return against_eps(results, {**quantities, size: lambda s: noise})


def _inverted_by_eps(results: Results) -> Iterator[Picture]:
    """The same images inverted by the networks of every eps, first seed."""
    for source in results.scale.sources:
        id = f"inversions-by-eps/{source.name}"
        result = results.graph.result(id) if id in results.graph.nodes else None
        file = None if result is None else results.graph.place.out / "pictures" / result["picture"]
        if file is not None and file.is_file():
            similar = ", ".join(f"{name} {np.mean(row['ssim']):.2f}" for name, row in result["rows"].items())
            text = f"SSIM to the original, mean of the images shown: {similar}."
            rows = f"Rows of images from the top: originals, then plain inversions by {', '.join(result['rows'])}"
            yield Picture(file, f"{source.name}, plain inversions. {text}", f"{rows}; {source.name}. {text}", wide=True)


CLAIMS = (
    Claim(
        id="fig-9",
        where="Fig. 9, caption; appendix D",
        sentence="One eps of training between the smallest and the largest inverts best: below it the network is "
        "too irregular, above it details are lost.",
        quantity="the smaller 1 - SSIM of those at the smallest and at the largest eps, less the least between",
        test="Among the eps that all seeds have; a best eps above the largest is not excluded. "
        + BEST_OF_SEVERAL
        + " Mean "
        "over images. " + OVER_SEEDS,
        evidence=_best_eps,
    ),
)

FIGURES = (
    PaperFigure(
        "fig-9",
        "Fig. 9: inversions against eps",
        "The paper: one eps between the smallest and the largest inverts best.",
        "Similarity to the original (1: equal), mean over images; on the right the size of the noise of the "
        "variational and effective inversions, which at one beta grows with eps, so that these two panels change by "
        f"both. Under the pictures of Fig. 1 stands what a grey square has. {SEEDS}",
        ("inversions",),
        _inversion_quality,
        _inverted_by_eps,
        ("fig-9", "inversion"),
    ),
)
