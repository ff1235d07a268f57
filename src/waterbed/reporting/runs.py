"""report: an HTML page about one or several runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waterbed.environment import environment
from waterbed.errors import UsageError
from waterbed.files import check_output, expanded, starts_with
from waterbed.information.measure import QUANTITIES
from waterbed.plots import curves, curves_with_errors
from waterbed.reporting.page import PAGE_MARK, Picture, Section, Table, write_page
from waterbed.text import printable
from waterbed.training.callbacks import stderr_key
from waterbed.training.run_folder import Run

WATCHED = {
    "train_accuracy": "training accuracy",
    "validation_clean": "validation, clean",
    "validation_robust": "validation, robust",
    "test_clean": "test, clean",
    "test_robust": "test, robust",
}


def report(runs: Sequence[Run | str | Path], out: str | Path = "report.html", force: bool = False) -> Path:
    """Write an HTML page about runs: their settings, results, learning curves and the measures recorded on the way.

    Args:
        runs: one or more :class:`Run` objects or run folders.
        out: the file to write, ending in .html.
        force: replace a file that is no page of ours.

    Returns:
        The path of the file.

    Raises:
        UsageError: ``runs`` is empty, one of them is not a run folder, or ``out`` does not end in .html or is a
            file of your own.
    """
    out = expanded(out)
    if out.suffix != ".html":
        raise UsageError(f"out={str(out)!r} must end in .html")
    check_output(out, starts_with(PAGE_MARK), force)
    loaded = [run if isinstance(run, Run) else Run.load(run) for run in runs]
    if not loaded:
        raise UsageError("runs is empty; pass at least one run")
    names = run_names(loaded)
    settings = Table(
        "Settings", ["setting", *names], [[key, *(_setting(r, key) for r in loaded)] for key in _keys(loaded)]
    )
    records = [run.record for run in loaded]
    keys = [k for k in ("epoch", "loss", "weight_norm", *WATCHED) if any(k in record for record in records)]
    results = Table(
        "At the selected epoch (accuracies in percent)",
        ["", *names],
        [[WATCHED.get(k, k.replace("_", " ")), *(_number(record.get(k)) for record in records)] for k in keys],
    )
    pictures = [
        Picture(
            curves(series, "epoch", "accuracy [%]"),
            f"{name}: accuracies after each epoch.",
            f"Line plot of the accuracies of {name} over {len(run.history)} epochs.",
        )
        for name, run in zip(names, loaded, strict=True)
        if (series := _series(run))
    ]
    sections = [Section("Results", tables=[results], pictures=pictures)]
    dynamics = _dynamics(dict(zip(names, loaded, strict=True)))
    if dynamics:
        sections.append(Section("Measures over training", pictures=dynamics))
    sections.append(Section("Settings", tables=[settings]))
    write_page(out, "Waterbed: trainings", f"{len(loaded)} run(s): {', '.join(names)}.", sections, environment())
    return out


def _dynamics(runs: Mapping[str, Run]) -> list[Picture]:
    """One picture for each quantity of :data:`QUANTITIES` that the runs recorded as they trained."""
    pictures = []
    for quantity, (meaning, _) in QUANTITIES.items():
        series = {
            name: [
                (record["epoch"], record[quantity], record.get(stderr_key(quantity), math.nan))
                for record in run.history
                if quantity in record
            ]
            for name, run in runs.items()
        }
        series = {name: points for name, points in series.items() if points}
        if series:
            pictures.append(
                Picture(
                    curves_with_errors(series, "epoch", quantity),
                    f"{meaning}. Bars: 95 % intervals over images.",
                    f"Line plot of {quantity} over the epochs of {', '.join(series)}.",
                )
            )
    return pictures


def run_names(runs: Sequence[Run]) -> list[str]:
    """A short name for each run, that of its folder or file, numbered where several are equal."""
    paths = [run.path for run in runs]
    names = [printable(p.stem if p.is_file() else p.resolve().name) if p else "run" for p in paths]
    unique: list[str] = []
    for i, name in enumerate(names):
        number = i + 1
        numbered = name if names.count(name) == 1 else f"{name} ({number})"
        while numbered in unique or (numbered != name and numbered in names):
            number += 1
            numbered = f"{name} ({number})"
        unique.append(numbered)
    return unique


def _keys(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(key for run in runs for key in run.config))


def _setting(run: Run, key: str) -> str:
    value: Any = run.config.get(key, "")
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items() if not isinstance(v, list))
    return str(value)


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}"


def _series(run: Run) -> dict[str, list[float]]:
    return {
        label: [record[key] for record in run.history]
        for key, label in WATCHED.items()
        if run.history and all(key in record for record in run.history)
    }
