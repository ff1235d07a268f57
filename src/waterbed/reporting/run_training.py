"""The trainings of runs on the page about them: settings that differ, curves over each other, measures on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from waterbed.information.measure import QUANTITIES
from waterbed.plots import curves_with_errors
from waterbed.reporting.page import Picture, Section, Table
from waterbed.reporting.results import Results
from waterbed.training.callbacks import stderr_key
from waterbed.training.run_folder import Run

WATCHED = {
    "train_accuracy": "training accuracy [%]",
    "validation_clean": "accuracy on held-out images [%]",
    "validation_robust": "accuracy on attacked held-out images [%]",
    "test_clean": "accuracy on test images [%]",
    "test_robust": "accuracy on attacked test images [%]",
    "loss": "training loss",
    "weight_norm": "weight norm",
}
WIDE_RANGE = 20.0  # the greatest value over the least, from which an axis is logarithmic


def settings_section(runs: Mapping[str, Run]) -> Section | None:
    """The settings that differ, and all of them folded away; None where no run records any."""
    configs = {name: _leaves(run.config) for name, run in runs.items()}
    keys = list(dict.fromkeys(key for config in configs.values() for key in config))
    if not keys:
        return None
    rows = [[key, *(config.get(key, "") for config in configs.values())] for key in keys]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    every = Table("Settings of the trainings", ["setting", *runs], rows, summary=f"All {len(rows)} settings")
    if len(runs) == 1:
        return Section("Settings", tables=[every], id="settings")
    text = [] if differing else ["The settings are the same."]
    differ = [Table("Settings that differ", ["setting", *runs], differing)] if differing else []
    return Section("What differs", text, [*differ, every], id="settings")


def training_section(runs: Mapping[str, Run]) -> Section | None:
    """Curves of all runs over each other, and the numbers of the epoch whose weights were kept."""
    records = {name: run.record for name, run in runs.items()}
    keys = [k for k in ("epoch", *WATCHED) if any(record.get(k) is not None for record in records.values())]
    if not keys:
        return None
    rows = [[WATCHED.get(key, key), *(_number(record.get(key)) for record in records.values())] for key in keys]
    table = Table("At the epoch whose weights were kept", ["", *runs], rows)
    pictures = [
        picture
        for key, label in WATCHED.items()
        if (picture := _overlaid(runs, lambda r, key=key: (r.get(key), math.nan), label, f"After each epoch: {label}."))
    ]
    return Section("Training", tables=[table], pictures=pictures, id="training")


def measure_section(runs: Mapping[str, Run], results: Mapping[str, Results]) -> Section | None:
    """Every measure of the finished networks, and those recorded in training as curves; None where there are none."""
    tables = []
    for data in dict.fromkeys(data for found in results.values() for data in found.measures):
        measured = {name: found.measures[data] for name, found in results.items() if data in found.measures}
        names = dict.fromkeys(quantity for of_run in measured.values() for quantity in of_run)
        rows = [[_with_unit(q, measured), *(_estimate(of_run.get(q)) for of_run in measured.values())] for q in names]
        on = f", on {data}" if data else ""
        caption = f"Measures{on}; ± one standard error over images (and over probes, if any)"
        tables.append(Table(caption, ["quantity", *measured], rows))
    known = {quantity for found in results.values() for of_run in found.measures.values() for quantity in of_run}
    meanings = [f"{quantity}: {meaning}." for quantity, (meaning, _) in QUANTITIES.items() if quantity in known]
    pictures = []
    for quantity, (meaning, _) in QUANTITIES.items():

        def point(record: Mapping[str, Any], quantity: str = quantity) -> tuple[float | None, float]:
            return record.get(quantity), record.get(stderr_key(quantity), math.nan)

        picture = _overlaid(runs, point, quantity, f"{meaning}. Bars: 95 % intervals over images.")
        pictures += [picture] if picture else []
    if not tables and not pictures:
        return None
    text = ["The curves are what was recorded during training."] if pictures else []
    folded = {"What the quantities are": meanings} if meanings else {}
    return Section("Measures", text, tables, pictures, id="measures", folded=folded, prose=True)


def environment_section(results: Mapping[str, Results]) -> Section | None:
    """Where the runs were trained."""
    environments = {name: _leaves(found.environment) for name, found in results.items() if found.environment}
    if not environments:
        return None
    keys = dict.fromkeys(key for of_run in environments.values() for key in of_run)
    rows = [[key, *(of_run.get(key, "") for of_run in environments.values())] for key in keys]
    table = Table("Software and machine of each training", ["", *environments], rows, summary="Software and machine")
    return Section("Where they were trained", tables=[table], id="trained-in")


def _overlaid(
    runs: Mapping[str, Run],
    point: Callable[[Mapping[str, Any]], tuple[float | None, float]],
    label: str,
    caption: str,
) -> Picture | None:
    """One line per run of what ``point`` finds, (value, standard error), in each epoch's record; None without any."""
    series = {
        name: [(r["epoch"], *found) for r in run.history if (found := point(r))[0] is not None]
        for name, run in runs.items()
    }
    if not any(series.values()):
        return None
    ends = [f"{name} from {p[0][1]:.3g} to {p[-1][1]:.3g}" for name, p in series.items() if p]
    alt = f"Line plot of {label} over epochs: {'; '.join(ends)}."
    values = [value for points in series.values() for _, value, _ in points]
    log = min(values) > 0 and max(values) > WIDE_RANGE * min(values)
    return Picture(curves_with_errors(series, "epoch", label, log=log), caption, alt, drawing=True)


def _leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Every setting by its path, as text: {"objective": {"eps": 0.5}} has "objective.eps"."""
    leaves: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            listed = isinstance(value, list | tuple)
            leaves[f"{prefix}{key}"] = ", ".join(map(_text, value)) if listed else _text(value)
    return leaves


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _with_unit(quantity: str, measured: Mapping[str, Mapping[str, Any]]) -> str:
    estimate = next(of_run[quantity] for of_run in measured.values() if quantity in of_run)
    return f"{quantity} [{estimate['unit']}]" if isinstance(estimate, Mapping) and estimate["unit"] else quantity


def _estimate(estimate: Any) -> str:
    """Value and errors of a measure, or a plain number."""
    if not isinstance(estimate, Mapping):
        return _number(estimate)
    stderr, probes = estimate.get("stderr"), estimate.get("probe_stderr")
    error = "" if stderr is None else f" ± {stderr:.2g}"
    return f"{_number(estimate['value'])}{error}" + (f" ± {probes:.2g} (probes)" if probes else "")


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}"
