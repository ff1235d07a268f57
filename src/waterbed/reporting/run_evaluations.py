"""The accuracies of runs on the page about them: the summary at the top, and every evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waterbed.evaluation.radii import attack_order, by_radius
from waterbed.plots import curves_with_intervals
from waterbed.reporting.page import Picture, Section, Table
from waterbed.reporting.results import Results
from waterbed.training.run_folder import Run

Found = Mapping[str, Results]


def in_short(runs: Mapping[str, Run], results: Found) -> Section:
    """One row per run: what was trained how, and the accuracies there are."""
    facts = {name: _facts(run) for name, run in runs.items()}
    columns = ["run", "network", "data", "objective", "epochs"]
    values = [dict.fromkeys(of_run[i] for of_run in facts.values()) for i in range(len(columns) - 1)]
    shared = [i for i, different in enumerate(values) if len(different) == 1 and len(runs) > 1]
    text = ", ".join(f"{columns[i + 1]} {value}" for i in shared for value in values[i] if value)
    rows = [
        [name, *(fact for i, fact in enumerate(of_run) if i not in shared), *_accuracies(runs[name], results[name])]
        for name, of_run in facts.items()
    ]
    heads = [column for i, column in enumerate(columns) if i - 1 not in shared]
    caption = "Of several attacks the strongest. Intervals at 95 % over test images; without, as watched in training."
    table = Table(caption, [*heads, "clean [%]", "under attack [%]", "attack"], rows)
    return Section("In short", [f"All: {text}."] if text else [], [table], id="in-short")


def _facts(run: Run) -> list[str]:
    architecture = getattr(run.model, "architecture", None) or {}
    objective = run.config.get("objective", {})
    attack = objective.get("attack", objective)
    eps = f", {attack.get('norm', '')} eps {attack['eps']:g}" if isinstance(attack.get("eps"), int | float) else ""
    return [
        architecture.get("name", type(run.model).__name__),
        run.config.get("data", {}).get("name", ""),
        f"{objective.get('name', '')}{eps}",
        str(len(run.history) or ""),
    ]


def _accuracies(run: Run, found: Results) -> list[str]:
    """Clean and under the strongest attack, of the evaluation on most images; else as watched during training."""
    own = [e for e in found.evaluations if _data_of(e) in ("", run.config.get("data", {}).get("name", _data_of(e)))]
    if not own:
        return [_percent(run.record.get("test_clean")), _percent(run.record.get("test_robust")), ""]
    best = max(own, key=lambda e: e["n"])
    attacks = {k: a for e in own if e["n"] == best["n"] for k, a in e["robust"].items() if a is not None}
    strongest = min(attacks.items(), key=lambda item: item[1]["value"], default=None)
    under = ["", ""] if strongest is None else [_with_interval(strongest[1]), strongest[0]]
    return [_with_interval(best["clean"]), *under]


def accuracy_section(results: Found) -> Section | None:
    """Every accuracy that was evaluated, by data and attack, with pictures over eps; None without evaluations."""
    tables, pictures, text = [], [], []
    several_data = list(dict.fromkeys(_data_of(e) for found in results.values() for e in found.evaluations))
    for data in several_data:
        cells = {name: _by_attack(found, data) for name, found in results.items()}
        names = [name for name, of_run in cells.items() if of_run]
        attacks = sorted({a for name in names for a in cells[name]}, key=attack_order)
        sizes = sorted({a["n"] for name in names for a in cells[name].values()})
        rows = [
            [attack, *(_with_interval(cells[n][attack]) if attack in cells[n] else "" for n in names)]
            for attack in attacks
        ]
        on = f" of {data}" if data else ""
        images = " or ".join(f"{n:,}" for n in sizes)
        tables.append(Table(f"Accuracy [%] on {images} test images{on}, with 95 % intervals", ["", *names], rows))
        pictures += _over_eps(cells, on)
    for name, found in results.items():
        for evaluation in found.evaluations:
            if "masking" in evaluation:
                text.append(
                    f"{name}, {evaluation['norm']} eps {evaluation['eps']:g}: {evaluation['masking']['verdict']}."
                )
    return Section("Accuracy", text, tables, pictures, id="accuracy") if tables else None


def _by_attack(found: Results, data: str) -> dict[str, dict[str, Any]]:
    """Attack ("clean" for none) -> its accuracy on most images."""
    by_attack: dict[str, dict[str, Any]] = {}
    for evaluation in found.evaluations:
        if _data_of(evaluation) == data:
            for attack, accuracy in {"clean": evaluation["clean"], **evaluation["robust"]}.items():
                if accuracy is not None and accuracy["n"] >= by_attack.get(attack, accuracy)["n"]:
                    by_attack[attack] = accuracy
    return by_attack


def _over_eps(cells: Mapping[str, Mapping[str, dict[str, Any]]], on: str) -> list[Picture]:
    """One picture for each attack that was run at two radii or more, the clean accuracy at 0."""
    curves = {name: by_radius(of_run) for name, of_run in cells.items()}
    pictures = []
    for kind in dict.fromkeys(kind for of_run in curves.values() for kind in of_run):
        series = {
            name: [(eps, a["value"], a["low"], a["high"]) for eps, a in of_run.get(kind, {}).items()]
            for name, of_run in curves.items()
        }
        ends = [
            f"{name} from {points[0][1]:.1f} % at eps {points[0][0]:g} to {points[-1][1]:.1f} % at {points[-1][0]:g}"
            for name, points in series.items()
            if points
        ]
        pictures.append(
            Picture(
                curves_with_intervals(series, f"eps of {kind}", "accuracy [%]"),
                f"Accuracy under {kind} against its radius{on}; bars: 95 % intervals.",
                f"Line plot of accuracy under {kind}: {'; '.join(ends)}.",
                drawing=True,
            )
        )
    return pictures


def _data_of(evaluation: Mapping[str, Any]) -> str:
    return evaluation.get("settings", {}).get("data") or ""


def _with_interval(accuracy: Mapping[str, Any]) -> str:
    return f"{accuracy['value']:.1f} [{accuracy['low']:.1f}, {accuracy['high']:.1f}]"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
