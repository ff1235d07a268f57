"""TransferTable: the accuracies of several backbones on several target tasks, with several seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from scipy.stats import t as student


@dataclass
class TransferTable:
    """Accuracies on the targets' test sets, in percent: one row per model, target and seed.

    A row's "history" has one record per epoch (Figs 10 to 14), with "test_clean" if ``watch`` was set.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)

    def to_frame(self) -> pd.DataFrame:
        """Columns model, target, mode, seed, accuracy, low and high (Wilson), mean_per_class, metric, n, lr.

        ``metric`` says which of the two accuracies the literature reports for the target.

        With ``attacks``, also the accuracy under each, by its name; with ``num_bounded``, both sides of the two valid
        forms of Lemma 5.1 and their standard errors (_stderr), in nats/pixel^2: fisher_labels never exceeds
        fisher_labels_bound, nor fisher_noisy_logits fisher_features (:class:`waterbed.FisherBounds` defines them).
        """
        return pd.DataFrame([{k: v for k, v in row.items() if k != "history"} for row in self.rows])

    def summary(self, column: str = "accuracy") -> pd.DataFrame:
        """Mean of a column over seeds and the half-width of its 95 % t interval (nan with one seed)."""
        groups = self.to_frame().groupby(["target", "model", "mode"], sort=False)[column]
        frame = groups.agg(["mean", "std", "count"]).reset_index()
        half = [
            float(student.ppf(0.975, n - 1)) * s / math.sqrt(n) if n > 1 else math.nan
            for s, n in zip(frame["std"], frame["count"], strict=True)
        ]
        return frame.drop(columns="std").assign(half_width=half).rename(columns={"mean": column, "count": "seeds"})

    def layout(self, column: str = "accuracy") -> pd.DataFrame:
        """The layout of Table 1: one row per model, one column per target; "mean ± half-width", or a single value.

        >>> rows = [{"model": "robust", "target": "digits", "mode": 0, "seed": s, "accuracy": 90.0 + s} for s in (0, 1)]
        >>> print(TransferTable(rows).layout())  # doctest: +NORMALIZE_WHITESPACE
        target         digits
        model
        robust  90.50 ± 6.35
        """
        frame = self.summary(column)
        cells = [
            f"{mean:.2f}" + ("" if math.isnan(half) else f" ± {half:.2f}")
            for mean, half in zip(frame[column], frame["half_width"], strict=True)
        ]
        wide = frame.assign(cell=cells).pivot(index="model", columns="target", values="cell")
        return wide.loc[frame["model"].unique(), frame["target"].unique()]

    @property
    def attacks(self) -> list[str]:
        """The columns with accuracies under attack."""
        return [name for name in self.to_frame().columns if name.startswith("pgd-")]

    def __str__(self) -> str:
        if not self.rows:
            return "no fine-tunings"
        return self.summary().to_string(index=False, float_format=lambda v: f"{v:.2f}")
