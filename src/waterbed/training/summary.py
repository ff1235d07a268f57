"""A run in a few words, for its repr and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

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
