"""Does a robust backbone gain more on more distant tasks (Figs 3, 7, 8)? Accuracy gaps against distance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import pearsonr, spearmanr
from scipy.stats import t as student

from waterbed.errors import UsageError
from waterbed.plots import MARKERS, panels
from waterbed.tables import html_table
from waterbed.text import plain
from waterbed.transfer_learning.table import TransferTable, half_over_images

MOST_PERMUTATIONS = 5040


@dataclass(frozen=True)
class TradeOff:
    """Accuracy gaps between each backbone and the baseline, and their correlation with the distance of the target.

    Attributes:
        gaps: one row per model and target: model, target, distance, gap in percentage points (mean over seeds,
            paired), half_width of its 95 % t interval (nan with one seed), seeds, half_over_images
            (:func:`~waterbed.transfer_learning.table.half_over_images`; nan where n is not known).
        correlations: one row per model: pearson and spearman between distance and gap over the targets, and p, the
            permutation p-value of the Pearson correlation (one-sided: the gap grows with the distance).
        baseline: the backbone that the others are compared with.
    """

    gaps: pd.DataFrame
    correlations: pd.DataFrame
    baseline: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        content = {key: getattr(self, key).to_dict("records") for key in ("gaps", "correlations")}
        return {"baseline": self.baseline, **content}

    def plot(self) -> Figure:
        """The gap against the distance, one colour per backbone; bars: 95 % intervals over seeds."""
        figure, ((ax,),) = panels(size=(7, 4.5))
        for i, (model, rows) in enumerate(self.gaps.groupby("model", sort=False)):
            ax.errorbar(
                rows["distance"],
                rows["gap"],
                yerr=rows["half_width"].fillna(0),
                fmt=MARKERS[i % len(MARKERS)],
                capsize=3,
                label=plain(model),
            )
        ends = self.gaps.assign(end=self.gaps["gap"] + self.gaps["half_width"].fillna(0))
        highest = ends.groupby("target").agg({"distance": "first", "end": "max"}).sort_values("distance")
        room, before, level = 0.12 * float(np.ptp(highest["distance"])), -math.inf, 0
        for target, row in highest.iterrows():
            level = level + 1 if row["distance"] - before < room else 0  # labels of close neighbours are staggered
            before = row["distance"]
            ax.annotate(
                plain(target),
                (row["distance"], row["end"]),
                xytext=(0, 5 + 12 * level),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        ax.axhline(0, color="k", lw=0.8)
        ax.margins(x=0.1, y=0.15)
        ax.set(xlabel="distance from the source task", ylabel=f"accuracy minus that of {plain(self.baseline)} [points]")
        ax.legend(frameon=False, fontsize=8)
        return figure

    def _repr_html_(self) -> str:
        rows = [
            (
                g.model,
                g.target,
                f"{g.distance:.4g}",
                f"{g.gap:+.2f}" + (f" ± {g.half_width:.2f}" if g.seeds > 1 else ""),
            )
            for g in self.gaps.itertuples()
        ]
        found = "; ".join(
            f"{c.model}: Pearson {c.pearson:.2f}, Spearman {c.spearman:.2f}, p {c.p:.3f} over {c.targets} targets"
            for c in self.correlations.itertuples()
        )
        caption = f"Accuracy minus that of {self.baseline} [points], ± half a 95 % interval over seeds. {found}"
        return html_table(["model", "target", "distance", "gap"], rows, caption)


def trade_off(table: TransferTable, distances: Mapping[str, float], baseline: str = "standard") -> TradeOff:
    """Compare every model of the table with ``baseline``, target by target, and correlate the gaps with distance.

    Args:
        table: of :func:`waterbed.transfer`, in one mode.
        distances: target -> distance from the source task, by one extractor.

    Raises:
        UsageError: a baseline that is not in the table, a target without a distance, several modes.

    >>> accuracy = {("standard", "near"): 80, ("robust", "near"): 79, ("standard", "far"): 60, ("robust", "far"): 65}
    >>> rows = [{"model": m, "target": t, "mode": 0, "seed": 0, "accuracy": a} for (m, t), a in accuracy.items()]
    >>> trade_off(TransferTable(rows), {"near": 1.0, "far": 5.0}).gaps[["target", "gap"]].values.tolist()
    [['near', -1.0], ['far', 5.0]]
    """
    frame = table.to_frame()
    if baseline not in set(frame["model"]):
        raise UsageError(f"baseline={baseline!r} is not in the table; name one of {sorted(set(frame['model']))}")
    if frame["mode"].nunique() > 1:
        raise UsageError("table holds several modes; compare one at a time")
    missing = sorted(set(frame["target"]) - set(distances))
    if missing:
        raise UsageError(f"distances lacks {missing}; measure them with dataset_distance")
    wide = frame.pivot(index=["target", "seed"], columns="model", values="accuracy")
    rows = []
    for model in dict.fromkeys(frame["model"]):
        if model == baseline:
            continue
        for target in dict.fromkeys(frame["target"]):
            differences = (wide.loc[target, model] - wide.loc[target, baseline]).to_numpy()
            n = len(differences)
            half = float(student.ppf(0.975, n - 1)) * differences.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
            rows.append(
                {
                    "model": model,
                    "target": target,
                    "distance": float(distances[target]),
                    "gap": float(differences.mean()),
                    "half_width": half,
                    "seeds": n,
                    "half_over_images": _over_images(frame[frame["target"] == target], model, baseline),
                }
            )
    gaps = pd.DataFrame(rows)
    correlations = [
        {"model": model, "targets": len(part), **correlation(part["distance"].to_numpy(), part["gap"].to_numpy())}
        for model, part in gaps.groupby("model", sort=False)
    ]
    return TradeOff(gaps, pd.DataFrame(correlations), baseline)


def _over_images(frame: pd.DataFrame, *models: str) -> float:
    """Half of the interval of two models' gap on one target over its test images."""
    if "n" not in frame or frame["n"].isna().any():
        return math.nan
    groups = [frame[frame["model"] == model] for model in models]
    return half_over_images(*(list(zip(group["accuracy"], group["n"], strict=True)) for group in groups))


def correlation(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Pearson and Spearman correlations, and the one-sided permutation p-value of Pearson's; nan for fewer than three
    targets or a constant.
    """
    if len(x) < 3 or x.std() == 0 or y.std() == 0:
        return {"pearson": math.nan, "spearman": math.nan, "p": math.nan}
    observed = float(pearsonr(x, y).statistic)
    if math.factorial(len(x)) <= MOST_PERMUTATIONS:
        orders = list(permutations(range(len(x))))
    else:
        generator = np.random.default_rng(0)
        orders = [generator.permutation(len(x)) for _ in range(MOST_PERMUTATIONS)]
    centred = (x - x.mean()) / (x.std() * y.std() * len(x))
    chance = np.array([centred @ y[list(order)] for order in orders])
    p = float((chance >= observed - 1e-12).mean())
    return {"pearson": observed, "spearman": float(spearmanr(x, y).statistic), "p": p}
