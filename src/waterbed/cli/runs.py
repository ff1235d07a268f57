"""Opening runs with the data that they were trained on, or that an option names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from waterbed.data.images import ImageData
from waterbed.data.load import absolute, load_dataset
from waterbed.distributed import Engine
from waterbed.errors import UsageError
from waterbed.models.hub import PREFIX
from waterbed.models.states import probe
from waterbed.reporting.runs import run_names
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.transfer import load_for


def load_with_source(
    name_or_folder: str, root: str | None, download: bool, size: int | None, channels: int | None
) -> tuple[ImageData, dict[str, Any]]:
    """The data, and what the run folder records so that later commands find them again."""
    data = load_dataset(name_or_folder, root, download, size, channels)
    source: dict[str, Any] = {"name_or_folder": absolute(name_or_folder)}
    if root is not None:
        source["root"] = str(Path(root).resolve())
    return data, source


def unique_runs(paths: Sequence[str], download: bool = False) -> dict[str, Run]:
    """The runs by names that are all different, on the device that they will be used on."""
    if not paths:
        raise UsageError("runs is empty; name one run folder or more")
    fetched = [download and path.startswith(PREFIX) for path in paths]
    runs = [
        Run.from_pretrained(path, download=True) if fetch else Run.load(path)
        for path, fetch in zip(paths, fetched, strict=True)
    ]
    device = Engine().device
    for run in runs:
        run.model.to(device)
    return dict(zip(run_names(runs), runs, strict=True))


def open_runs(runs: dict[str, Run], data: str | None, root: str | None) -> Iterator[tuple[str, Run, ImageData]]:
    """The name of each run, the run on its device, and its data."""
    for name, run in runs.items():
        yield name, run, data_of(name, run, data, root)


def data_of(name: str, run: Run, data: str | None, root: str | None) -> ImageData:
    """``data`` if it is named, else what the run was trained on, in the shape that it was trained with.

    The model goes to the device that it will be used on.
    """
    loaded = _load_for_run(name, run, data, root) if "data" in run.config else _load_for_foreign(name, run, data, root)
    run.model.to(Engine().device)
    return loaded


def _load_for_run(name: str, run: Run, data: str | None, root: str | None) -> ImageData:
    """The data of a run that records its training: their shape and classes must be those it was trained on."""
    source = run.config.get("source", {"name_or_folder": run.config["data"]["name"]})
    shape, classes = (tuple(run.config["data"][key]) for key in ("shape", "classes"))
    channels, height, width = shape
    size = height if height == width else None
    try:
        loaded = load_dataset(
            source["name_or_folder"] if data is None else data,
            source.get("root") if root is None else root,
            size=size,
            channels=channels,
        )
    except UsageError as error:
        hint = "" if data is not None else f"; or name the data of run {name!r} with --data"
        raise UsageError(f"{error}{hint}") from error
    named = tuple(map(str, loaded.classes))
    if loaded.shape != shape or named != classes:
        raise UsageError(
            f"data={loaded.name!r} has classes {_listed(named)} of shape {loaded.shape}; the run {name!r} was "
            f"trained on {_listed(classes)} of {shape}: use such data, or transfer"
        )
    return loaded


def _load_for_foreign(name: str, run: Run, data: str | None, root: str | None) -> ImageData:
    """The data named, for a network that came without a record of its training; class names cannot be compared."""
    if data is None:
        raise UsageError(f"{name!r} does not record what it was trained on; name its data with --data")
    loaded = load_for(run.model, data, root)
    blank = torch.zeros(1, *loaded.shape, dtype=next(run.model.parameters()).dtype)
    outputs = probe(run.model, blank).shape[1]
    if outputs != loaded.num_classes:
        raise UsageError(
            f"data={loaded.name!r} has {loaded.num_classes} classes, {name!r} {outputs}; name its own data"
        )
    return loaded


def _listed(names: tuple[str, ...]) -> str:
    """The first few of them."""
    return ", ".join(names[:4]) + (f", ... ({len(names)})" if len(names) > 4 else "")
