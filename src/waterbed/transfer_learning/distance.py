"""Distance between tasks: the earth mover's distance between class means (sec. 5, after Cui et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ot
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from waterbed.data.task import as_task
from waterbed.devices import seeded_generator
from waterbed.errors import UsageError, check_count
from waterbed.models.features import extract_features
from waterbed.models.heads import with_features
from waterbed.plots import COLOURS, panels
from waterbed.tables import html_table
from waterbed.text import plain


def class_emd(
    features_a: Tensor, labels_a: Tensor, features_b: Tensor, labels_b: Tensor, min_source_count: int = 0
) -> float:
    """Earth mover's distance between two labelled sets of features, in units of the features.

    Each class is represented by its mean feature, with weight n_c / N; the ground distance is Euclidean, neither
    squared nor normalised; the transport problem is solved exactly, in float64. The distance is symmetric, while
    accuracy gaps between tasks are not. It scales with the features, so only distances by one extractor are comparable.
    Two halves of one data set are not at distance 0.

    Args:
        features_a, labels_a: (N, d) and (N,) of the source, from one fixed extractor and the training set.
        features_b, labels_b: the same for the target.
        min_source_count: source classes with fewer images are left out (Cui et al. use 200).

    Raises:
        UsageError: shapes that do not match, values that are not finite, no class left.

    >>> a, y = torch.randn(20, 3), torch.arange(20) % 2
    >>> round(class_emd(a, y, a + torch.tensor([3.0, 4.0, 0.0]), y), 5)
    5.0
    """
    check_count("min_source_count", min_source_count, at_least=0)
    means_a, weights_a = _class_means(features_a, labels_a, "features_a", min_source_count)
    means_b, weights_b = _class_means(features_b, labels_b, "features_b", 0)
    if means_a.shape[1] != means_b.shape[1]:
        raise UsageError(
            f"features_a has {means_a.shape[1]} features and features_b {means_b.shape[1]}; use one extractor for both"
        )
    cost = np.linalg.norm(means_a[:, None] - means_b[None], axis=2)
    return float(ot.emd2(weights_a, weights_b, cost))


@dataclass(frozen=True)
class DatasetDistance:
    """Distance between two tasks with what is needed to interpret it; ``float(d)`` is ``d.value``.

    Attributes:
        value: :func:`class_emd` of the training-set features.
        corrected: 2 ``value`` less the mean of the bootstrap: the distance of the two populations. ``value`` is too
            large on average, as every class mean is off by chance in some direction of its own: by a few percent at 50
            images a class. Compare sets with different numbers of images a class by this one.
        stderr, low, high: bootstrap over images: standard error and basic 95 % interval of the populations' distance.
            It is about ``corrected``; ``value`` may lie above it.
        floor: the distance between two random halves of one data set, averaged over the two: what two samples of the
            same task come to.
        n: numbers of images of the two sets.
        method: which extractor and how many resamples.
        seed: of the halves and resamples.
    """

    value: float
    stderr: float
    low: float
    high: float
    floor: float
    n: tuple[int, int]
    method: str
    seed: int
    corrected: float

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return (
            f"{self.value:.4g}; without the bias of class means {self.corrected:.4g} "
            f"[{self.low:.4g}, {self.high:.4g}]; floor {self.floor:.3g} (n = {self.n}, {self.method})"
        )

    def plot(self) -> Figure:
        """The corrected distance with its 95 % interval, the distance as measured, and the floor."""
        return distances_figure({"distance": self})

    def _repr_html_(self) -> str:
        rows = [
            ("corrected for the bias of class means", f"{self.corrected:.4g} [{self.low:.4g}, {self.high:.4g}]"),
            ("as measured", f"{self.value:.4g}"),
            ("floor: two halves of one set", f"{self.floor:.3g}"),
        ]
        caption = f"Distance of {self.n[0]:,} and {self.n[1]:,} images; {self.method}"
        return html_table(["", "distance, 95 % interval"], rows, caption)


DRAWN = (
    ("corrected", "corrected", {"marker": "o", "color": COLOURS[0]}),
    ("value", "as measured", {"marker": "D", "color": COLOURS[1], "fillstyle": "none"}),
    ("floor", "floor", {"marker": "x", "color": COLOURS[6]}),
)


def distances_figure(distances: Mapping[str, DatasetDistance]) -> Figure:
    """Distances by the names of the pairs: corrected with its interval, and beside it the floor of two halves."""
    figure, ((ax,),) = panels(size=(2.8 + 0.07 * max(map(len, distances)) + 2, 1.2 + 0.35 * len(distances)))
    rows = range(len(distances))
    for i, d in enumerate(distances.values()):
        ax.plot([d.low, d.high], [i, i], color=COLOURS[0], linewidth=1.5)
    style = {"linestyle": "", "markersize": 6, "markeredgewidth": 1.5}
    for attribute, label, look in DRAWN:
        ax.plot([getattr(d, attribute) for d in distances.values()], rows, label=label, **style, **look)
    ax.set(xlabel="distance, 95 % interval", yticks=rows, yticklabels=[plain(name) for name in distances])
    ax.set_ylim(len(distances) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.grid(axis="y", visible=False)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure


def dataset_distance(
    data_a: Any,
    data_b: Any,
    extractor: nn.Module,
    num_samples: int | None = None,
    min_source_count: int = 0,
    num_resamples: int = 200,
    seed: int = 0,
    progress: bool = False,
    *,
    workers: int = 0,
) -> DatasetDistance:
    """Earth mover's distance between the class means of two data sets' training images (sec. 5).

    Name the extractor when you quote a distance: distances by different extractors are not comparable (the paper does
    not say which it used).

    Args:
        data_a, data_b: what ``load_dataset`` returns, in the extractor's image shape, or what :func:`waterbed.as_task`
            takes; a is the source.
        extractor: a network with ``features(x)``, or any classifier that :func:`waterbed.wrap` takes.
        num_samples: images of each, drawn with ``seed``; all training images by default.
        min_source_count: source classes with fewer images are left out.
        num_resamples: bootstrap resamples.
        workers: processes that decode images, for data too large for memory.

    Raises:
        UsageError: fewer than 20 resamples, images that do not fit the extractor, no class left.

    >>> import waterbed as wb
    >>> digits, clothes = (wb.load_dataset(name, size=8).take(60, 10) for name in ("digits", "fashion-mini"))
    >>> model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    >>> d = dataset_distance(digits, clothes, model, num_resamples=20)
    >>> d.n, d.low <= d.high
    ((60, 60), True)
    """
    check_count("num_resamples", num_resamples, at_least=20)
    if num_samples is not None:
        check_count("num_samples", num_samples)
    data_a, data_b = as_task(data_a), as_task(data_b)
    network, sets = with_features(extractor, getattr(data_a, "shape", None)), []
    for data in (data_a, data_b):
        total, indices = len(data.train), None
        if num_samples is not None and num_samples < total:
            indices = torch.randperm(total, generator=seeded_generator(seed))[:num_samples]
        features, labels = extract_features(network, data, progress=progress, indices=indices, workers=workers)
        sets.append((features.double(), labels))
    generator = seeded_generator(seed)
    (_, ya), (_, yb) = sets
    value, draws = bootstrap(sets, num_resamples, generator, min_source_count)
    low, high = 2 * value - np.quantile(draws, [0.975, 0.025])
    floors = []
    for x, y in sets:
        order = torch.randperm(len(y), generator=generator)
        one, two = order[: len(y) // 2], order[len(y) // 2 :]
        floors.append(class_emd(x[one], y[one], x[two], y[two]))
    name = (getattr(extractor, "architecture", None) or {}).get("name", type(extractor).__name__)
    return DatasetDistance(
        value,
        float(draws.std(ddof=1)),
        max(0.0, float(low)),
        float(high),
        sum(floors) / 2,
        (len(ya), len(yb)),
        f"class EMD by {name}, {num_resamples} resamples",
        seed,
        max(0.0, 2 * value - float(draws.mean())),
    )


def bootstrap(
    sets: list[tuple[Tensor, Tensor]], num_resamples: int, generator: torch.Generator, min_source_count: int = 0
) -> tuple[float, np.ndarray]:
    """The distance of two sets of (features (N, d), labels (N,)), and that of their resamples, (num_resamples,).

    A resample has the chance of its images on top of that of the images there are, so that its distance is larger, on
    average, by about as much as theirs is larger than that of the populations.
    """
    (xa, ya), (xb, yb) = sets
    draws = []
    for _ in range(num_resamples):
        a, b = (torch.randint(0, len(y), (len(y),), generator=generator) for y in (ya, yb))
        draws.append(class_emd(xa[a], ya[a], xb[b], yb[b], min_source_count))
    return class_emd(xa, ya, xb, yb, min_source_count), np.array(draws)


def _class_means(features: Tensor, labels: Tensor, name: str, least: int) -> tuple[np.ndarray, np.ndarray]:
    x = torch.as_tensor(features).detach().double().cpu().numpy()
    y = torch.as_tensor(labels).detach().cpu().numpy()
    if x.ndim != 2 or y.shape != (len(x),) or len(x) == 0:
        raise UsageError(f"{name} has shape {x.shape} and its labels {y.shape}; pass (N, d) and (N,), N >= 1")
    if not np.isfinite(x).all():
        raise UsageError(f"{name} has values that are NaN or infinite; remove them")
    classes, counts = np.unique(y, return_counts=True)
    large_enough = counts >= least
    if not large_enough.any():
        raise UsageError(f"min_source_count={least} leaves no class of {name}; the largest has {counts.max()} images")
    means = np.stack([x[y == c].mean(0) for c in classes[large_enough]])
    return means, counts[large_enough] / counts[large_enough].sum()
