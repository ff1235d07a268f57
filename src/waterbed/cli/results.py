"""Where commands keep their results: in the folder of each run, or in one file for all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from waterbed.cli.output import add_to_json, is_first_process, note
from waterbed.files import check_output, expanded, is_json_of, write_atomic
from waterbed.plots import is_our_png
from waterbed.reporting.results import CHOICES, TRANSFERS
from waterbed.training.model_card import EVALUATION, MEASURES
from waterbed.training.run_folder import Run


def is_evaluation(content: bytes) -> bool:
    """Whether a file is one of ``waterbed evaluate``: accuracies by the names of runs."""
    return _all_of(content, {"clean", "robust"})


def is_measures(content: bytes) -> bool:
    """Whether a file is one of ``waterbed measure``: estimates by the names of runs."""
    return _all_of(content, {"weight_norm"})


def is_transfers(content: bytes) -> bool:
    """Whether a file is one that ``waterbed transfer`` keeps in a run folder."""
    return _all_of(content, {"target", "mode", "seed"})


def is_choices(content: bytes) -> bool:
    """Whether a file is one that ``waterbed choose`` keeps in a run folder."""
    try:
        return all("reason" in choice for of_run in json.loads(content).values() for choice in of_run.values())
    except (ValueError, AttributeError, TypeError):
        return False


RECOGNISED = {EVALUATION: is_evaluation, MEASURES: is_measures, TRANSFERS: is_transfers, CHOICES: is_choices}


class Kept:
    """The results of a command by run, written as soon as each is there.

    Args:
        kind: EVALUATION, MEASURES, TRANSFERS or CHOICES, also the name of the file in a run's folder.
        out: one file for all runs instead; what it holds of others stays.
        force: replace whatever file there is.
        data: named by the user in place of the run's own: their results get a file of their own.
    """

    def __init__(self, kind: str, out: str | None, force: bool, runs: dict[str, Run], data: str | None) -> None:
        self.kind, self.out, self.data = kind, out, data
        self.written: dict[str, None] = {}
        for name, run in runs.items():  # before the work
            path = self.file(run)
            if path is not None:
                check_output(path, RECOGNISED[kind], force)
            elif kind in (EVALUATION, MEASURES):
                note(f"no folder to keep the results of {name} in; --out FILE does")

    def file(self, run: Run) -> Path | None:
        """Where the results of a run go; None without a folder of its own to write to."""
        if self.out is not None:
            return expanded(self.out)
        if run.path is None or run.path.is_file() or not os.access(run.path, os.W_OK):
            return None
        other = "" if self.data is None else f"-{Path(self.data).name}"
        return run.path / f"{Path(self.kind).stem}{other}.json"

    def add(self, name: str, run: Run, result: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Add a run's result to its file: of an evaluation or of measures all, of transfers the rows, of choices each
        by its target."""
        path = self.file(run)
        if path is None:
            return
        if self.out is None:
            name = path.parent.resolve().name
            add_to_json(path, {name: [result] if self.kind == EVALUATION else result}, MERGED[self.kind])
        else:
            plain = {k: v for k, v in result.items() if k != "settings"} if isinstance(result, dict) else result
            add_to_json(path, {name: plain})
        self.written[str(path)] = None


def _merged_evaluations(before: Any, now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the same weights with other settings stay."""
    before = before if isinstance(before, list) else [before]
    same = [b for b in before if b.get("settings", {}).get("epoch") == now[0]["settings"]["epoch"]]
    return [b for b in same if b["settings"] != now[0]["settings"]] + now


def _merged_measures(before: Any, now: dict[str, Any]) -> dict[str, Any]:
    """Other quantities of the same weights stay."""
    return {**before, **now} if before.get("weight_norm") == now["weight_norm"] else now


def _merged_transfers(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the same weights by other settings stay."""

    def asked(row: dict[str, Any]) -> list[Any]:
        return [row.get(key) for key in ("target", "mode", "seed", "protocol", "settings")]

    new = [asked(row) for row in now]
    return [row for row in before if row.get("epoch") == now[0]["epoch"] and asked(row) not in new] + now


MERGED = {
    EVALUATION: _merged_evaluations,
    MEASURES: _merged_measures,
    TRANSFERS: _merged_transfers,
    CHOICES: lambda before, now: {**before, **now},
}


class KeptPictures:
    """The pictures of inversions, each with its numbers, copied into the folder of every run that can be written to.

    Args:
        pattern: name of a run -> stem of its files in ``out``.
        kind: stem of the files in the run's folder.
        force: replace files of these names that are not ours.
    """

    def __init__(self, runs: dict[str, Run], out: str, pattern: str, kind: str, force: bool) -> None:
        self.files: dict[Path, Path] = {}
        for name, run in runs.items():
            if run.path is None or run.path.is_file() or not os.access(run.path, os.W_OK):
                continue
            for suffix, is_ours in ((".png", is_our_png), (".json", is_json_of("settings"))):
                target = check_output(run.path / f"{kind}{suffix}", is_ours, force)
                self.files[target] = expanded(out) / f"{pattern.format(name)}{suffix}"

    def copy(self) -> Iterable[Path]:
        """Copy them once they are drawn; returns the copies."""
        for target, file in self.files.items() if is_first_process() else ():
            write_atomic(target, file.read_bytes())
        return self.files


def _all_of(content: bytes, keys: set[str]) -> bool:
    try:
        entries = list(json.loads(content).values())
    except (ValueError, AttributeError):
        return False
    rows = [row for entry in entries for row in (entry if isinstance(entry, list) else [entry])]
    return bool(rows) and all(isinstance(row, dict) and keys <= set(row) for row in rows)
