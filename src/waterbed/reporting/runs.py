"""report: an HTML page that tells all that is known of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from waterbed.environment import environment
from waterbed.errors import UsageError
from waterbed.files import check_output, expanded, starts_with
from waterbed.reporting.page import PAGE_MARK, write_page
from waterbed.reporting.results import read_results
from waterbed.reporting.run_evaluations import accuracy_section, in_short
from waterbed.reporting.run_features import choice_section, inversion_section, missing_section, transfer_section
from waterbed.reporting.run_training import environment_section, measure_section, settings_section, training_section
from waterbed.text import printable
from waterbed.training.run_folder import Run


def report(runs: Sequence[Run | str | Path], out: str | Path = "report.html", force: bool = False) -> Path:
    """Write one HTML page about runs: what differs between them, and everything that was found out about each.

    That is what ``waterbed evaluate``, ``measure``, ``invert``, ``transfer`` and ``choose`` have kept in the run
    folders, beside settings, learning curves and the measures recorded on the way. The page names the commands for
    what is not there.

    Args:
        runs: one or more :class:`Run` objects or run folders.
        out: the file to write, ending in .html; it needs no other file and loads nothing.
        force: replace a file that is no page of ours.

    Returns:
        The path of the file.

    Raises:
        UsageError: ``runs`` is empty, one of them is not a run folder or holds a damaged file, or ``out`` does not end
            in .html or is a file of your own.
    """
    out = expanded(out)
    if out.suffix != ".html":
        raise UsageError(f"out={str(out)!r} must end in .html")
    check_output(out, starts_with(PAGE_MARK), force)
    loaded = [run if isinstance(run, Run) else Run.load(run) for run in runs]
    if not loaded:
        raise UsageError("runs is empty; pass at least one run")
    named = dict(zip(run_names(loaded), loaded, strict=True))
    results = {name: read_results(run.path) for name, run in named.items()}
    sections = [
        in_short(named, results),
        settings_section(named),
        accuracy_section(results),
        training_section(named),
        measure_section(named, results),
        inversion_section(results),
        transfer_section(results),
        choice_section(results),
        environment_section(results),
        missing_section(named, results),
    ]
    title = f"{len(named)} runs side by side" if len(named) > 1 else f"The run {next(iter(named))}"
    write_page(out, title, ", ".join(named), [s for s in sections if s is not None], environment())
    return out


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
