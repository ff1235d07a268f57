"""Inversions of images: by robust and standard networks, with noise drawn once, and effective images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from waterbed.reporting.page import Picture
from waterbed_paper.claims import BEST_OF_SEVERAL, OVER_SEEDS, Claim
from waterbed_paper.evidence import Evidence, best_of, no_interval, over_seeds
from waterbed_paper.figures import PaperFigure
from waterbed_paper.results import Results, Value
from waterbed_paper.scale import Network, Source

MODES = ("plain", "variational", "effective")


def _inversion(results: Results) -> Iterator[Evidence]:
    yield from _recognised(results, "own", "")


def _inversion_elsewhere(results: Results) -> Iterator[Evidence]:
    task = results.scale.inversions.elsewhere
    if task is not None:
        yield from _recognised(results, "elsewhere", f", {task}")


def _recognised(results: Results, which: str, on: str) -> Iterator[Evidence]:
    """Which original an inversion resembles most, of both networks; beside it SSIM to its own.

    The former is over images, each with its mean over seeds: shares of few images are often the same for all seeds. One
    more image without a difference keeps a width where all images agree. One seed has no interval here either.
    """
    identified = results.reader("inversions", lambda r: np.array(r[f"{which}/plain"]["identified"], dtype=float))
    for source in results.scale.sources:
        pairs = results.pairs(source, identified).values()
        if pairs:
            label = f"{source.name}: share of inversions most like their own original{on}"
            images = [*np.mean([robust - standard for standard, robust in pairs], axis=0)]
            ends = over_seeds(label, [*images, 0.0], "image").ends if len(pairs) > 1 else no_interval
            shares = ", ".join(f"{100 * np.mean([pair[i] for pair in pairs]):.0f} %" for i in (1, 0))
            note = f"robust and standard: {shares}"
            yield Evidence(label, float(np.mean(images)), ends, len(images), "image", note=note)
        unlike = unlikeness(results, f"{which}/plain")
        for e in results.difference(f"1 - SSIM{on}", source, unlike, robust_less_standard=False):
            yield replace(e, beside=True)


def unlikeness(results: Results, which: str) -> Value:
    """1 - SSIM to the original, mean over images."""
    return results.reader("inversions", lambda r: 1 - float(np.mean(r[which]["ssim"])))


def _noise_once(results: Results) -> Iterator[Evidence]:
    """The size of noise that does best decides; each size by itself stands beside it.

    A size that fewer networks have than the inversions' own is left out until they have it.
    """
    for source in results.scale.sources:
        gains = {beta: results.pairs(source, _gain(results, beta)) for beta in _betas(results)}
        most = max(map(len, gains.values()))
        gains = {beta: pairs for beta, pairs in gains.items() if len(pairs) == most > 0}
        for i, kind in ((1, "robust"), (0, "standard")) if gains else ():
            values = {_size(results, source, beta, i): [p[i] for p in pairs.values()] for beta, pairs in gains.items()}
            name, beside = f"{source.name}, {kind}: 1 - SSIM, ", kind == "standard"
            if len(values) > 1:
                yield best_of(values, f"{name}best of {len(values)} sizes of noise ({{}})", beside=beside)
            for size, of_seeds in values.items():
                yield over_seeds(f"{name}{size}", of_seeds, beside=beside or len(values) > 1)


def _betas(results: Results) -> list[float]:
    i = results.scale.inversions
    return sorted({i.beta, *i.other_betas})


def _gain(results: Results, beta: float) -> Value:
    """What noise of one beta, drawn once, takes from 1 - SSIM, mean over images."""

    def value(network: Network) -> float | None:
        inversions, sizes = results.of("inversions", network), results.of("noise-sizes", network)
        usual = beta == results.scale.inversions.beta
        if inversions is None or (sizes is None and not usual):
            return None
        noisy = inversions["own/variational"] if usual else sizes[f"{beta:g}"]
        return float(np.mean(np.subtract(noisy["ssim"], inversions["own/plain"]["ssim"])))

    return value


def _size(results: Results, source: Source, beta: float, which: int) -> str:
    """Such as "beta 1e-08, noise 31 % of |w|", the mean over seeds of the standard (0) or the robust (1) networks."""
    if beta == results.scale.inversions.beta:
        size = results.reader("inversions", lambda r: r["noise_size"])
    else:
        size = results.reader("noise-sizes", lambda r: r[f"{beta:g}"]["noise_size"])
    mean = float(np.mean([pair[which] for pair in results.pairs(source, size).values()]))
    return f"beta {beta:g}, noise {100 * mean:.2g} % of |w|"


def _effective_images(results: Results) -> Iterator[Evidence]:
    """1 - SSIM of effective images less that of plain inversions, and less that with noise drawn once, of the robust
    networks; beside it of the standard ones."""
    for source in results.scale.sources:
        unlike = {m: [*results.pairs(source, unlikeness(results, f"own/{m}")).values()] for m in MODES}
        for i, kind in ((1, "robust"), (0, "standard")) if unlike["effective"] else ():
            size = _size(results, source, results.scale.inversions.beta, i)
            for other, less in (("plain", ""), ("variational", ", less that with noise drawn once")):
                values = [x[i] - y[i] for x, y in zip(unlike["effective"], unlike[other], strict=True)]
                name = f"{source.name}, {kind}: 1 - SSIM, {size}{less}"
                yield over_seeds(name, values, beside=kind == "standard")
        yield from _on_target(results, source)


def _on_target(results: Results, source: Source) -> Iterator[Evidence]:
    """The same with the noise on the target, as eq. 10 prints it."""
    readers = {m: results.reader("noise-target", lambda r, m=m: 1 - float(np.mean(r[m]["ssim"]))) for m in MODES}
    unlike = {m: [*results.pairs(source, reader).values()] for m, reader in readers.items()}
    for i, kind in ((1, "robust"), (0, "standard")) if unlike["plain"] else ():
        for other, less in (("plain", ""), ("variational", ", less that with noise drawn once")):
            values = [x[i] - y[i] for x, y in zip(unlike["effective"], unlike[other], strict=True)]
            yield over_seeds(
                f"{source.name}, {kind}: 1 - SSIM, noise on the target (eq. 10){less}", values, beside=True
            )


def _inverted(results: Results, task: str) -> Iterator[Picture]:
    """What the experiments drew of inversions on the own test images or on those from elsewhere, by the standard and
    the robust network of the first seed."""
    for source in results.scale.sources:
        for eps in (0.0, source.robust):
            result = results.of("inversions", source.network(eps))
            if result is None or f"{task}/picture" not in result:
                continue
            file = results.graph.place.out / "pictures" / result[f"{task}/picture"]
            if not file.is_file():
                continue
            name = f"{source.name}, {f'eps {eps:g}' if eps else 'standard network'}"
            numbers = _likeness({mode: result[f"{task}/{mode}"] for mode in MODES}, result[f"{task}/grey_ssim"])
            rows = "Rows of images from the top: originals, then plain, variational and effective inversions"
            yield Picture(file, f"{name}. {numbers}", f"{rows}, by {name}. {numbers}", wide=True)


def _likeness(modes: dict[str, dict[str, list[float]]], grey: list[float]) -> str:
    """How like the originals the inversions are, by mode."""
    similar = ", ".join(f"{mode} {np.mean(results['ssim']):.2f}" for mode, results in modes.items())
    own = ", ".join(f"{mode} {sum(results['identified'])}" for mode, results in modes.items())
    return (
        f"SSIM to the original, mean of {len(grey)} images: {similar} (a grey square {np.mean(grey):.2f}). Most like "
        f"their own original of all: {own}."
    )


CLAIMS = (
    Claim(
        id="inversion",
        where="Sec. 1 and 4; Figs 1 and 9",
        sentence="Inverting a robust representation shows the image, inverting a standard one shows noise.",
        quantity="share of inversions that correlate more with their own original than with any other, of the robust "
        "network, less that of the standard one; from the same start, after the same number of steps",
        test="95 % interval over images, each a mean over seeds, with one more image without a difference, so that "
        "it keeps a width: above 0 supports, below 0 contradicts. Beside it 1 - SSIM to the original, standard less "
        "robust, which does not decide: a grey square has more of it with most photographs than an inversion that "
        "shows the object (figures say how much).",
        evidence=_inversion,
    ),
    Claim(
        id="inversion-elsewhere",
        where="Sec. 1 and 4",
        sentence="Inverting a robust representation shows images of other data sets, too, and better than a "
        "standard one.",
        quantity="as inversion, on images of a data set that the networks were not trained on",
        test="As there: above 0 supports, below 0 contradicts.",
        evidence=_inversion_elsewhere,
    ),
    Claim(
        id="fig-1-noise-once",
        where="Fig. 1, rows 2 and 3; Sec. 4; Algorithm 1; abstract",
        sentence="Noise on the weights, drawn once before the inversion, brings the image closer to the original.",
        quantity="1 - SSIM to the original of plain inversions, less that with noise drawn once",
        test="The paper gives no size of noise, and several are tried; another may do otherwise. "
        + BEST_OF_SEVERAL
        + " Mean over images. The robust network decides, as the paper inverts it; the standard one and each size "
        "by itself stand beside it. " + OVER_SEEDS,
        evidence=_noise_once,
    ),
    Claim(
        id="fig-1-effective",
        where="Fig. 1, row 4; Def. 4.1; Algorithm 2",
        sentence="Effective images keep less of the original than plain inversions.",
        quantity="1 - SSIM to the original of effective images, less that of plain inversions; and less that of "
        "inversions with noise of equal size drawn once",
        test="Mean over images, one beta. Both must agree: where fresh noise costs no more likeness than the same "
        "noise drawn once, it is noise as such that costs it, and not that the image is what all of its draws agree "
        "on. The robust network decides (Def. 4.1 asks for one); the standard one stands beside it. Noise is on the "
        "network that is inverted, as in Algorithm 2; eq. 10, which has it on the target, stands beside it. "
        + OVER_SEEDS,
        evidence=_effective_images,
    ),
)

FIGURES = (
    PaperFigure(
        "fig-1",
        "Fig. 1: inversions of test images",
        "The paper: ResNet-50; noise drawn once improves the image, effective images keep what the classifier uses.",
        "",
        ("inversions/", "noise-sizes", "noise-target"),
        files=partial(_inverted, task="own"),
        claims=("inversion", "fig-1-noise-once", "fig-1-effective"),
    ),
    PaperFigure(
        "fig-1-elsewhere",
        "Sec. 4: inversions of images from another data set",
        "The paper says so, and shows no picture.",
        "",
        ("inversions/",),
        files=partial(_inverted, task="elsewhere"),
        claims=("inversion-elsewhere",),
    ),
)
