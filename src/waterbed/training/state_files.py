"""The files of a training state: each with its checksum, and the one before beside the last."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from waterbed.errors import UsageError, UsageWarning
from waterbed.files import check_room, digest, replace_file, write_atomic

STATE, WEIGHTS = "state.pt", "weights.safetensors"
Keys = Mapping[str, type | tuple[type, ...]]
# What a training goes on from, by which a state is known.
KEYS: Keys = {
    **dict.fromkeys(("meter", "model", "optimizer", "scheduler"), dict),
    "history": list,
    "rate": (int, float),
    "rng": torch.Tensor,
}
FINISHED: Keys = {"model": dict, "history": list}  # of a training that is written once, at its end


def write_state(folder: Path, state: dict[str, Any], name: str = STATE) -> None:
    """Write a state with its checksum; the one before is kept as previous-state.pt."""
    buffer = BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    file = folder / name
    write_atomic(folder / f"next-{name}", digest([content]).encode() + b"\n" + content)
    if file.is_file():
        replace_file(file, folder / f"previous-{name}")
    replace_file(folder / f"next-{name}", file)


def check_states_fit(folder: Path, state: int, weights: int) -> None:
    """Raise :class:`UsageError` unless a run's folder has room for three states, as while the third is written, and for
    the weights, of so many bytes each."""
    files = (folder / name for name in (STATE, f"previous-{STATE}", WEIGHTS))
    check_room(folder, 3 * state + weights - sum(file.stat().st_size for file in files if file.is_file()))


def finish_writing(folder: Path) -> None:
    """Make the last rename of :func:`write_state`, where a process was stopped before it."""
    if (folder / f"next-{STATE}").is_file() and not (folder / STATE).exists():
        replace_file(folder / f"next-{STATE}", folder / STATE)


def read_state(folder: Path, keys: Keys = KEYS) -> dict[str, Any] | None:
    """The last state that is whole, or None before the first; warns where that is not the last one written.

    Raises:
        UsageError: there are states, and none is whole.
    """
    files = [folder / STATE, folder / f"previous-{STATE}"]
    there = [file for file in files if file.exists()]
    for file in there:
        state = _read(file, keys)
        if state is None:
            continue
        if file != files[0]:
            what = "is torn or no state" if files[0] in there else "is missing"
            warnings.warn(f"{str(files[0])!r} {what}; going on from the state before it", UsageWarning, stacklevel=2)
        return state
    if there:
        raise UsageError(
            f"the training states in {str(folder)!r} are damaged; choose another out=, or delete the folder to train "
            "again"
        )
    return None


def _read(file: Path, keys: Keys) -> dict[str, Any] | None:
    """The state, or None if the file is none: empty, torn, of another type."""
    if not file.is_file():
        return None
    checksum, _, content = file.read_bytes().partition(b"\n")
    if digest([content]).encode() != checksum:
        return None
    try:
        state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # torch.load raises many types for what torch.save did not write
        return None
    whole = isinstance(state, dict) and all(isinstance(state.get(key), kind) for key, kind in keys.items())
    return state if whole else None
