"""What the commands have kept in the folder of a run: evaluations, measures, inversions, transfers, choices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waterbed.errors import UsageError
from waterbed.training.model_card import EVALUATION, MEASURES
from waterbed.training.run_folder import ENVIRONMENT

TRANSFERS, CHOICES = "transfers.json", "choices.json"
# Beginnings of the files of a gallery of inversions, by what it shows; each is a PNG with its JSON.
INVERSIONS = {
    "inversions": "Inversions",
    "inversions-beta": "Effective images by the information that the weights keep",
    "inversions-classes": "An image of each class, found from its label alone",
    "inversions-convergence": "Convergence of inversions with and without noise on the weights",
}


@dataclass(frozen=True)
class Results:
    """The results of one run; what is not there is empty.

    Attributes:
        evaluations: of ``waterbed evaluate``, on whichever data.
        measures: by data ("" where they are the run's own), quantities by name.
        transfers: one row per fine-tuning.
        choices: by target, the rows of ``waterbed choose`` and its reason.
        inversions: key of :data:`INVERSIONS` -> picture and numbers.
        environment: of the training.
    """

    evaluations: list[dict[str, Any]] = field(default_factory=list)
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)
    transfers: list[dict[str, Any]] = field(default_factory=list)
    choices: dict[str, dict[str, Any]] = field(default_factory=dict)
    inversions: dict[str, tuple[Path, dict[str, Any]]] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


def read_results(folder: Path | None) -> Results:
    """All that commands have kept in a run folder; nothing for a run without one.

    Raises:
        UsageError: a file of theirs that is damaged.
    """
    if folder is None or not folder.is_dir():
        return Results()
    evaluations = [row for _, found in _of_every_data(folder, EVALUATION) for row in found]
    inversions = {
        kind: (folder / f"{kind}.png", _read(folder / f"{kind}.json"))
        for kind in INVERSIONS
        if (folder / f"{kind}.png").is_file() and (folder / f"{kind}.json").is_file()
    }
    environment = folder / ENVIRONMENT
    return Results(
        evaluations,
        dict(_of_every_data(folder, MEASURES)),
        _own(folder / TRANSFERS) if (folder / TRANSFERS).is_file() else [],
        _own(folder / CHOICES) if (folder / CHOICES).is_file() else {},
        inversions,
        _read(environment) if environment.is_file() else {},
    )


def _of_every_data(folder: Path, file: str) -> Iterator[tuple[str, Any]]:
    """What is kept in evaluation.json, on the run's own data, and in evaluation-NAME.json, on others."""
    stem = Path(file).stem
    for path in sorted(folder.glob(f"{stem}*.json"), key=lambda path: (path.name != file, path.name)):
        if path.name == file or path.name.startswith(f"{stem}-"):
            yield path.stem[len(stem) + 1 :], _own(path)


def _own(path: Path) -> Any:
    """The results of a run by its name: that of the folder when they were written, before it was moved, if it was."""
    content = _read(path)
    own = path.parent.resolve().name
    if own in content or len(content) == 1:
        return content.get(own, next(iter(content.values())))
    raise UsageError(f"{str(path)!r} holds no results of this run; delete it or write it again")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            return content
        problem = type(content).__name__
    except (OSError, ValueError) as error:
        problem = type(error).__name__
    raise UsageError(f"{str(path)!r} is damaged ({problem}); delete it or write it again")
