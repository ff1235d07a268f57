"""What is known of the features of runs, on the page about them: inversions, transfers, choices; and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waterbed.reporting.page import Picture, Section, Table
from waterbed.reporting.results import INVERSIONS, Results
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.choice import SCORES
from waterbed.transfer_learning.table import TransferTable

Found = Mapping[str, Results]
COMMANDS = {
    "evaluations": "evaluate",
    "measures": "measure",
    "inversions": "invert",
    "transfers": "transfer",
}


def inversion_section(results: Found) -> Section | None:
    """The pictures of every run, one kind after the other."""
    pictures = [
        Picture(file, f"{name}: {heading[0].lower()}{heading[1:]}. {_settings(numbers)}", f"{heading} by {name}.", True)
        for kind, heading in INVERSIONS.items()
        for name, found in results.items()
        if kind in found.inversions
        for file, numbers in [found.inversions[kind]]
    ]
    if not pictures:
        return None
    text = "Images that the network cannot tell from the originals: found by descent on the pixels, from noise."
    return Section("Inversions", [text], pictures=pictures, id="inversions")


def _settings(numbers: Mapping[str, Any]) -> str:
    """On which data, how many steps, and how close each mode came."""
    settings = numbers["settings"]
    data = settings.get("data") or numbers.get("data")
    parts = [f"{settings['steps']} steps" if "steps" in settings else "", f"images of {data}" if data else ""]
    modes = [
        f"{mode} SSIM {sum(of_mode['ssim']) / len(of_mode['ssim']):.2f}"
        for mode, of_mode in numbers.items()
        if isinstance(of_mode, Mapping) and of_mode.get("ssim")
    ]
    return "; ".join(filter(None, (*parts, ", ".join(modes)))) + "."


def transfer_section(results: Found) -> Section | None:
    """Accuracy of every run on every target, by mode and protocol; None without fine-tunings."""
    rows = [{**row, "model": name} for name, found in results.items() for row in found.transfers]
    if not rows:
        return None
    tables, pictures = [], []
    for mode, protocol in dict.fromkeys((row["mode"], row["protocol"]) for row in rows):
        part = TransferTable([row for row in rows if (row["mode"], row["protocol"]) == (mode, protocol)])
        how = f"mode {mode}, protocol {protocol}"
        for column, title in {"accuracy": "Test accuracy", **{a: f"Accuracy under {a}" for a in part.attacks}}.items():
            layout = part.layout(column).fillna("").reset_index()
            caption = f"{title} [%], {how}: ± half a 95 % interval over seeds [95 % interval over n test images]"
            cells = [list(map(str, row)) for row in layout.itertuples(index=False)]
            tables.append(Table(caption, list(map(str, layout.columns)), cells))
        if len(results) > 1:
            pictures.append(_drawn(part, how))
    return Section("Transfer", tables=tables, pictures=pictures, id="transfer")


def _drawn(table: TransferTable, how: str) -> Picture:
    """A panel per target with every network's mean and its interval over test images."""
    targets, names = (list(dict.fromkeys(row[key] for row in table.rows)) for key in ("target", "model"))
    caption = f"Test accuracy after fine-tuning, {how}; lines: 95 % intervals over test images."
    alt = f"Accuracies of {', '.join(names)} on {', '.join(targets)}, as in the table."
    return Picture(table.plot(), caption, alt, len(targets) > 2, drawing=True)


def choice_section(results: Found) -> Section | None:
    """How the runs were ranked for each target, once for all that were compared; None without a ranking."""
    sections = {}
    for found in results.values():
        for target, choice in found.choices.items():
            rows = [[row["backbone"], *(_score(row, score) for score in SCORES)] for row in choice["rows"]]
            labels = ["backbone", *(label for label, _ in SCORES.values())]
            caption = f"Scores on {choice['num_samples']:,} images with 95 % intervals; higher is better"
            sections[target, choice["reason"]] = Section(target, [choice["reason"]], [Table(caption, labels, rows)])
    return Section("Choice of a backbone", sections=list(sections.values()), id="choice") if sections else None


def _score(row: Mapping[str, Any], score: str) -> str:
    """A score with its interval; nothing where it has none, as LEEP without a source's own classes."""
    if row.get(score) is None:
        return ""
    low, high = row[f"{score}_low"], row[f"{score}_high"]
    return f"{row[score]:.3g}" + ("" if low is None or high is None else f" [{low:.3g}, {high:.3g}]")


def missing_section(runs: Mapping[str, Run], results: Found) -> Section | None:
    """The commands for what is not known of some run, where there is anything."""
    lines = []
    for part, command in COMMANDS.items():
        lacking = [str(run.path) for name, run in runs.items() if run.path and not getattr(results[name], part)]
        if lacking:
            lines.append(f"waterbed {command} {' '.join(lacking)}")
    folded = {f"Commands for {len(lines)} parts of this page": lines} if lines else {}
    text = ["Each command keeps its results in the run folders, from where the next report takes them."]
    return Section("What is not known yet", text, folded=folded, id="missing") if lines else None
