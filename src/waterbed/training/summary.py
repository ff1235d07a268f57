"""A run in a few words and one picture, for its repr and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from waterbed.errors import UsageError
from waterbed.plots import MARKERS, panels, whole_numbers

WATCHED = {
    "train_accuracy": "training images",
    "validation_clean": "held out",
    "validation_robust": "held out, attacked",
    "test_clean": "test images",
    "test_robust": "test images, attacked",
}
REPORTED = ("loss", "validation_clean", "validation_robust", "test_clean", "test_robust")


def summary(
    model: nn.Module, history: Sequence[Any], path: Path | None, config: Mapping[str, Any], record: Mapping[str, Any]
) -> dict[str, str]:
    """Path, network, data, objective and epochs of a run, and the last numbers of ``record``; what is known of them."""
    architecture = getattr(model, "architecture", None) or {}
    facts = {
        "path": None if path is None else str(path),
        "network": architecture.get("name", type(model).__name__),
        "data": config.get("data", {}).get("name"),
        "objective": config.get("objective", {}).get("name"),
        "epochs": str(len(history)),
        **{name: f"{record[name]:.4g}" for name in REPORTED if record.get(name) is not None},
    }
    return {name: value for name, value in facts.items() if value is not None}


def history_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracies after each epoch, and beside them the loss; :class:`UsageError` without an epoch."""
    if not history:
        raise UsageError("the run has no epoch to draw; train it with fit, or load a run folder")
    figure, ((accuracies, losses),) = panels(1, 2, (9, 3.2))
    for i, (key, label) in enumerate(WATCHED.items()):
        points = [(record["epoch"], record[key]) for record in history if record.get(key) is not None]
        if points:
            accuracies.plot(*zip(*points, strict=True), marker=MARKERS[i % len(MARKERS)], markersize=4, label=label)
    accuracies.set(xlabel="epoch", ylabel="accuracy [%]")
    if accuracies.lines:
        accuracies.legend(frameon=False, fontsize=8)
    losses.plot([r["epoch"] for r in history], [r["loss"] for r in history], marker="o", markersize=4)
    losses.set(xlabel="epoch", ylabel="training loss")
    for ax in (accuracies, losses):
        whole_numbers(ax)
    return figure
