"""The paper's figures of inversion; each takes what was found, and has nothing where nothing was run for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from waterbed.reporting.page import Picture
from waterbed_paper.drawing import COLOURS, against_eps, legend, panels
from waterbed_paper.found import Found
from waterbed_paper.scale import Network

MODES = ("plain", "variational", "effective")


def inverted(found: Found, task: str) -> Iterator[Picture]:
    """What the experiments drew of inversions on the own test images or on those from elsewhere, by the standard and
    the robust network of the first seed."""
    for source in found.scale.sources:
        for eps in (0.0, source.robust):
            result = found.of("inversions", Network(source.name, "adversarial" if eps else "standard", eps, 0))
            if result is None or f"{task}/picture" not in result:
                continue
            file = found.graph.place.out / "pictures" / result[f"{task}/picture"]
            if not file.is_file():
                continue
            name = f"{source.name}, {f'eps {eps:g}' if eps else 'standard network'}"
            numbers = _numbers({mode: result[f"{task}/{mode}"] for mode in MODES}, result[f"{task}/grey_ssim"])
            rows = "Rows of images from the top: originals, then plain, variational and effective inversions"
            yield Picture(file, f"{name}. {numbers}", f"{rows}, by {name}. {numbers}", wide=True)


def inverted_by_eps(found: Found) -> Iterator[Picture]:
    """The same images inverted by the networks of every eps, first seed."""
    for source in found.scale.sources:
        id = f"inversions-by-eps/{source.name}"
        result = found.graph.result(id) if id in found.graph.nodes else None
        file = None if result is None else found.graph.place.out / "pictures" / result["picture"]
        if file is not None and file.is_file():
            similar = ", ".join(f"{name} {np.mean(row['ssim']):.2f}" for name, row in result["rows"].items())
            said = f"SSIM to the original, mean of the images shown: {similar}."
            rows = f"Rows of images from the top: originals, then plain inversions by {', '.join(result['rows'])}"
            yield Picture(file, f"{source.name}, plain inversions. {said}", f"{rows}; {source.name}. {said}", wide=True)


def _numbers(modes: dict[str, dict[str, list[float]]], grey: list[float]) -> str:
    """How like the originals the inversions are, by mode."""
    similar = ", ".join(f"{mode} {np.mean(found['ssim']):.2f}" for mode, found in modes.items())
    own = ", ".join(f"{mode} {sum(found['identified'])}" for mode, found in modes.items())
    return (
        f"SSIM to the original, mean of {len(grey)} images: {similar} (a grey square {np.mean(grey):.2f}). Most like "
        f"their own original of all: {own}."
    )


def convergence(found: Found) -> Figure | None:
    """Fig. 2: loss against iterations, on the network that is inverted and on the clean one."""
    studies = {
        f"{n.source}, {'standard' if n.eps == 0 else f'eps {n.eps:g}'}": result
        for source in found.scale.sources
        for n in source.networks()
        if n.objective in ("standard", "adversarial") and (result := found.of("convergence", n)) is not None
    }
    if not studies:
        return None
    figure, axes = panels(len(studies), 2, 4.4, 3.2)
    kinds = {"losses": "network being inverted", "clean_losses": "clean network"}
    for (name, result), row in zip(studies.items(), axes, strict=True):
        for ax, (key, kind) in zip(row, kinds.items(), strict=True):
            for i, arm in enumerate(result["arms"]):
                low, middle, high = np.array(arm["quartiles"][key], dtype=float).T
                colour = "#000000" if i == 0 else COLOURS[(i - 1) % (len(COLOURS) - 1)]
                style = ("-", "--", "-.", ":")[i % 4]
                ax.plot(arm["steps"], middle, color=colour, ls=style, lw=1.6, label=arm["arm"])
                ax.fill_between(arm["steps"], low, high, color=colour, alpha=0.1, lw=0)
            ax.set(yscale="log", xlabel="iteration", ylabel="|f(r) - z|² / |z|²", title=f"{name}: {kind}")
            ax.set_xscale("symlog", linthresh=1)  # the start is step 0
            ax.set_xlim(left=0)
    legend(figure, columns=3)
    return figure


def inversion_quality(found: Found) -> Figure | None:
    """Fig. 9 in numbers: similarity of inversions to the original against eps, and the size of the noise."""

    def value(mode: str):
        return found.reader("inversions", lambda r: float(np.mean(r[f"own/{mode}"]["ssim"])))

    size = "noise [% of |w|]"
    quantities = {f"SSIM, {mode}": lambda s, m=mode: value(m) for mode in MODES}
    noise = found.reader("inversions", lambda r: 100 * r["noise_size"])
    return against_eps(found, {**quantities, size: lambda s: noise})
