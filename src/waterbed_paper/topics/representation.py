"""How the classes lie in the representation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from waterbed_paper.claims import OVER_SEEDS, Claim
from waterbed_paper.drawing import panels
from waterbed_paper.evidence import Evidence
from waterbed_paper.figures import PaperFigure
from waterbed_paper.results import Results

COLOURED = 10  # classes; more colours could not be told apart


def _entangled(results: Results) -> Iterator[Evidence]:
    value = results.reader("features", lambda r: r["soft_nearest_neighbour_loss"]["value"])
    for source in results.scale.sources:
        yield from results.steps("soft nearest neighbour loss", source, value)


def _representations(results: Results) -> Figure | None:
    """Fig. 6: t-SNE of the features of test images, coloured by class, one panel per eps."""
    by_network = {}
    for source in results.scale.sources:
        for eps in source.eps:
            result = results.of("features", source.network(eps))
            if result is not None:
                by_network[f"{source.name}, {f'eps {eps:g}' if eps else 'standard'}"] = result
    if not by_network:
        return None
    columns = min(3, len(by_network))
    figure, axes = panels(-(-len(by_network) // columns), columns, 3.1, 3.3)
    for ax in axes.flat[len(by_network) :]:
        ax.set_axis_off()
    for (name, result), ax in zip(by_network.items(), axes.flat, strict=False):
        labels, points = np.array(result["labels"]), np.array(result["t_sne"])
        coloured = labels < COLOURED
        ax.scatter(*points[~coloured].T, color="#d0d7de", s=6, lw=0)
        ax.scatter(*points[coloured].T, c=labels[coloured], cmap="tab10", vmin=0, vmax=COLOURED - 1, s=9, lw=0)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        numbers = f"soft NN loss {_short(result['soft_nearest_neighbour_loss']['value'])} nats\n10-NN "
        numbers += f"{_short(result['neighbours'])} %, silhouette {_short(result['silhouette'])}"
        ax.set_title(f"{name}\n{numbers}", fontsize=9)
    return figure


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


CLAIMS = (
    Claim(
        id="fig-6",
        where="Fig. 6; Sec. 5",
        sentence="The larger the eps of training, the more the classes are entangled in the representation.",
        quantity="soft nearest neighbour loss of the features on test images at each eps of training, less that at "
        "the eps before",
        test="Every step of eps by itself. " + OVER_SEEDS + " A t-SNE picture shows it, and does not decide.",
        evidence=_entangled,
    ),
)

FIGURES = (
    PaperFigure(
        "fig-6",
        "Fig. 6: classes in the representation",
        "The paper: as eps grows, features become less discriminative.",
        "t-SNE of the features of test images, first seed, one colour per class (of more than ten the first ten, the "
        "others grey). Above each panel numbers that need no t-SNE: soft nearest neighbour loss (higher: more "
        "entangled), accuracy of 10 nearest neighbours, silhouette.",
        ("features",),
        _representations,
        claims=("fig-6",),
    ),
)
