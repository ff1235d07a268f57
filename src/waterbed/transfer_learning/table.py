"""transfer: several backbones, several target tasks, several seeds, one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import t as student
from torch import nn

from waterbed.attacks import PGD
from waterbed.data import load_dataset
from waterbed.errors import UsageError, UsageTypeError
from waterbed.evaluation import evaluate
from waterbed.models import FeatureClassifier
from waterbed.progress import Progress
from waterbed.transfer_learning.finetune import cached_trunk, finetune, score_cached


@dataclass
class TransferTable:
    """Accuracies on the targets' test sets, in percent: one row for each model, target and seed.

    A row's "history" has one record an epoch (Figs 10 to 14), with "test_clean" where ``watch`` asked for it.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)

    def to_frame(self) -> pd.DataFrame:
        """Columns model, target, mode, seed, accuracy with its Wilson interval (low, high), mean_per_class, n, lr."""
        return pd.DataFrame([{k: v for k, v in row.items() if k != "history"} for row in self.rows])

    def summary(self) -> pd.DataFrame:
        """Mean over seeds and the half-width of its 95 % t interval (nan with one seed)."""
        groups = self.to_frame().groupby(["target", "model", "mode"], sort=False)["accuracy"]
        frame = groups.agg(["mean", "std", "count"]).reset_index()
        half = [
            float(student.ppf(0.975, n - 1)) * s / math.sqrt(n) if n > 1 else math.nan
            for s, n in zip(frame["std"], frame["count"], strict=True)
        ]
        return frame.drop(columns="std").assign(half_width=half).rename(columns={"mean": "accuracy", "count": "seeds"})

    def __str__(self) -> str:
        return self.summary().to_string(index=False, float_format=lambda v: f"{v:.2f}")


def transfer(
    models: Mapping[str, FeatureClassifier],
    targets: Sequence[Any],
    mode: int | str = 0,
    seeds: Sequence[int] = (0, 1, 2),
    root: str | Path | None = None,
    progress: bool = False,
    *,
    num_train: int | None = None,
    attacks: Sequence[PGD] = (),
    num_attacked: int = 500,
    **settings: Any,
) -> TransferTable:
    """Fine-tune every model on every target and evaluate on its test set (Table 1's layout).

    Args:
        models: name -> source network.
        targets: names or folders for ``load_dataset`` (brought to each model's image size and channels), or data
            objects, used as they are.
        mode: of :func:`finetune`.
        seeds: one fine-tuning each.
        root: where named data sets lie.
        num_train: at most so many training images of each target, the same for all models and seeds.
        attacks: also attack ``num_attacked`` test images of each fine-tuned model: does the robustness survive?
        settings: anything else :func:`finetune` takes.

    Raises:
        UsageError: no models, targets or seeds; targets that cannot be loaded.
    """
    if not isinstance(models, Mapping) or isinstance(targets, str):
        raise UsageTypeError(
            "models must be a dict of name -> model, and targets a list; write {'robust': model}, ['digits']"
        )
    seeds = [int(seed) for seed in seeds]
    if not models or not targets or not seeds:
        raise UsageError(
            f"models, targets and seeds have {len(models)}, {len(targets)} and {len(seeds)} entries; pass one or more"
        )
    names = [str(t) if isinstance(t, str | Path) else t.name for t in targets]
    if len(set(names)) < len(names):
        raise UsageError(f"targets has {max(names, key=names.count)!r} twice; name each once")
    # Everything is loaded before anything is trained, so that a wrong name costs nothing.
    loaded = {
        (label, name): load_for(model, target, root) if isinstance(target, str | Path) else target
        for label, target in zip(names, targets, strict=True)
        for name, model in models.items()
    }
    if num_train is not None:
        loaded = {key: data.take(num_train, len(data.test)) for key, data in loaded.items()}
    table = TransferTable()
    total = len(models) * len(targets) * len(seeds)
    with Progress("transfer", total, progress) as shown:
        for label in names:
            for name, model in models.items():
                data = loaded[label, name]
                caches = cached_trunk(model, data, mode, seed=seeds[0], **_cache_settings(settings))
                chosen = dict(settings)
                for seed in seeds:
                    run = finetune(model, data, mode, seed=seed, caches=caches, progress=False, **chosen)
                    chosen["lr"] = run.config["lr"]  # chosen once for a backbone and a task
                    score = (
                        evaluate(run.model, data.test)
                        if caches is None
                        else score_cached(run.model, mode, data, caches)
                    )
                    table.rows.append(
                        {
                            "model": name,
                            "target": label,
                            "mode": mode,
                            "seed": seed,
                            "accuracy": float(score.clean),
                            "low": score.clean.low,
                            "high": score.clean.high,
                            "mean_per_class": score.mean_per_class,
                            "n": score.n,
                            "lr": run.config["lr"],
                            **_under_attack(run.model, data, attacks, num_attacked),
                            "history": run.history,
                        }
                    )
                    shown.advance(message=f"{label}, {name}: {score.clean}")
    return table


def _under_attack(model: nn.Module, data: Any, attacks: Sequence[PGD], num_samples: int) -> dict[str, float]:
    """Robust accuracy by the attack's name."""
    if not attacks:
        return {}
    return {name: float(a) for name, a in evaluate(model, data.test, attacks, num_samples=num_samples).robust.items()}


def _cache_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What of finetune's settings says how to cache."""
    return {key: settings[key] for key in ("augment", "views", "cache") if key in settings}


def load_for(model: nn.Module, name_or_folder: str | Path, root: str | Path | None = None) -> Any:
    """``load_dataset`` in the image size and channels that ``model`` was trained with."""
    shape = getattr(model, "input_shape", None)
    if shape is None:
        return load_dataset(name_or_folder, root)
    if shape[1] != shape[2]:
        raise UsageError(f"model.input_shape={shape} is not square; load the target yourself and pass it as data")
    return load_dataset(name_or_folder, root, size=shape[1], channels=shape[0])
