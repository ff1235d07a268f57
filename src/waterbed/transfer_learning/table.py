"""TransferTable: the accuracies of several backbones on several target tasks, with several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import t as student

from waterbed.errors import UsageError
from waterbed.evaluation.accuracy import Accuracy
from waterbed.plots import intervals
from waterbed.tables import html_table


@dataclass
class TransferTable:
    """Accuracies on the targets' test sets, in percent: one row per model, target and seed.

    A row's "history" has one record per epoch (Figs 10 to 14), with "test_clean" if ``watch`` was set.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)

    def to_frame(self) -> pd.DataFrame:
        """Columns model, target, mode, seed, accuracy, low and high (Wilson), mean_per_class, metric, n, protocol,
        solver, lr, weight_decay, strength, edge.

        ``metric`` says which of the two accuracies the literature reports for the target; ``edge`` at which end of the
        candidates the chosen rate, decay or strength lies, if it does: beyond it a better one may lie.

        With ``attacks``, also num_attacked and the accuracy under each, by its name; with ``num_bounded``, both sides
        of the two valid forms of Lemma 5.1 and their standard errors (_stderr), in nats/pixel^2: fisher_labels never
        exceeds fisher_labels_bound, nor fisher_noisy_logits fisher_features (:class:`waterbed.FisherBounds` defines
        them).
        """
        return pd.DataFrame([{k: v for k, v in row.items() if k != "history"} for row in self.rows])

    def summary(self, column: str = "accuracy") -> pd.DataFrame:
        """Mean of a column over seeds, with two intervals that say different things, and what they rest on.

        ``half_width`` is that of the 95 % t interval over seeds, ``seeds`` of them (nan with one): how much another
        fine-tuning would differ. ``low`` and ``high`` are the 95 % Wilson interval of the mean as a share of ``n`` test
        images: how much other images would. All seeds share their images, so more seeds do not narrow it. A mean over
        classes has none (nan).
        """
        frame = self.to_frame()
        images = {"mean_per_class": "", **dict.fromkeys(self.attacks, "num_attacked")}.get(column, "n")
        frame["n"] = frame.get(images, math.nan)
        groups = frame.groupby(["target", "model", "mode"], sort=False)
        rows = [
            {**dict(zip(("target", "model", "mode"), key, strict=True)), **_summarised(rows[column], rows["n"], column)}
            for key, rows in groups
        ]
        return pd.DataFrame(rows)

    def layout(self, column: str = "accuracy") -> pd.DataFrame:
        """The layout of Table 1: one row per model, one column per target.

        A cell is "mean ± half-width over seeds [low, high], n", the last two over test images, where known.

        >>> row = {"model": "robust", "target": "digits", "mode": 0, "n": 108}
        >>> rows = [{**row, "seed": s, "accuracy": 90.0 + s} for s in (0, 1)]
        >>> print(TransferTable(rows).layout())  # doctest: +NORMALIZE_WHITESPACE
        target                           digits
        model
        robust  90.50 ± 6.35 [83.8, 94.9], n 108
        """
        frame = self.summary(column)
        cells = [
            f"{row[column]:.2f}"
            + ("" if math.isnan(row["half_width"]) else f" ± {row['half_width']:.2f}")
            + ("" if math.isnan(row["n"]) else f" [{row['low']:.1f}, {row['high']:.1f}], n {row['n']:.0f}")
            for row in frame.to_dict("records")
        ]
        wide = frame.assign(cell=cells).pivot(index="model", columns="target", values="cell")
        return wide.loc[frame["model"].unique(), frame["target"].unique()]

    @property
    def attacks(self) -> list[str]:
        """The columns with accuracies under attack."""
        return [name for name in self.to_frame().columns if name.startswith("pgd-")]

    def plot(self, column: str = "accuracy") -> Figure:
        """A panel per target with the mean of every model and its 95 % interval over test images.

        Raises:
            UsageError: no rows, or several modes, which are drawn one at a time.
        """
        if len({row["mode"] for row in self.rows}) != 1:
            raise UsageError(f"the table has {len(self.rows)} rows of several modes or none; draw one mode at a time")
        summary = self.summary(column).set_index(["target", "model"])
        targets, models = (list(dict.fromkeys(row[key] for row in self.rows)) for key in ("target", "model"))
        missing = (math.nan,) * 3
        panels = {
            f"{target} [%]": [
                tuple(summary.loc[(target, model), [column, "low", "high"]])
                if (target, model) in summary.index
                else missing
                for model in models
            ]
            for target in targets
        }
        return intervals(models, panels, columns=4)

    def _repr_html_(self) -> str:
        if not self.rows:
            return html_table(["model"], [], "No fine-tunings")
        layout = self.layout().reset_index()
        caption = "Accuracy [%] ± 95 % over seeds [95 % over test images], n test images"
        return html_table(list(layout.columns), layout.itertuples(index=False), caption)

    def __str__(self) -> str:
        if not self.rows:
            return "no fine-tunings"
        return self.summary().to_string(index=False, float_format=lambda v: f"{v:.2f}")


def _summarised(values: pd.Series, images: pd.Series, column: str) -> dict[str, float]:
    """Mean over seeds, half of its t interval, and its Wilson interval over the test images that all seeds share."""
    seeds, mean = len(values), float(values.mean())
    half = float(student.ppf(0.975, seeds - 1)) * float(values.std()) / math.sqrt(seeds) if seeds > 1 else math.nan
    n = float(images.min())
    over_images = None if math.isnan(n) else Accuracy(round(mean * n / 100), int(n))
    low, high = (math.nan, math.nan) if over_images is None else (over_images.low, over_images.high)
    return {column: mean, "seeds": seeds, "half_width": half, "low": low, "high": high, "n": n}


def half_over_images(*groups: Sequence[tuple[float, int]]) -> float:
    """Half of the 95 % interval of a difference of two accuracies [points] over test images, by the normal law.

    It is that for different images: for the same ones it would be narrower wherever both tend to be right together.

    Args:
        groups: for each of the two, (accuracy [%], test images) of its seeds.

    >>> round(half_over_images([(50.0, 100)], [(50.0, 100)]), 2)
    13.86
    """
    variances = []
    for group in groups:
        share = sum(accuracy for accuracy, _ in group) / len(group) / 100
        variances.append(share * (1 - share) / group[0][1])
    return 100 * NormalDist().inv_cdf(0.975) * math.sqrt(sum(variances))
