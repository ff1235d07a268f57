"""The file of a long comparison: one line per fine-tuning, written as it finishes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from filelock import FileLock

from waterbed.data.images import TensorImages
from waterbed.errors import UsageError
from waterbed.files import digest, expanded, make_folder, write_atomic
from waterbed.training.config import UNRECORDED, TrainConfig

FINGERPRINTED_IMAGES = 256
ADDRESS = " at 0x"
WITHOUT_EFFECT = {*UNRECORDED, "callbacks"} - {"precision"}  # on the numbers of a fine-tuning


class RowsFile:
    """Rows of finished fine-tunings, looked up by what was asked for; in memory only if ``path`` is None.

    One file may hold several modes, networks and tasks: rows of other settings stay in it.

    Raises:
        UsageError: the file is not one of these.

    >>> rows = RowsFile(None)
    >>> rows.add({"seed": 0}, {"accuracy": 90.0})
    >>> rows.find({"seed": 0}), rows.find({"seed": 1})
    ({'accuracy': 90.0}, None)
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else expanded(path)
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path is None:
            return
        make_folder(self.path.parent)
        if self.path.exists():
            self.rows = self._read(self.path)

    def find(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The row of a finished fine-tuning with these settings, or None."""
        return self.rows.get(_key(asked))

    def add(self, asked: dict[str, Any], row: dict[str, Any]) -> None:
        """Add a row; the file is replaced as a whole and keeps what other processes have added in the meantime."""
        self.rows[_key(asked)] = row
        if self.path is None:
            return
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            if self.path.exists():
                self.rows = self._read(self.path) | self.rows
            lines = [json.dumps({"asked": json.loads(key), "row": row}) + "\n" for key, row in self.rows.items()]
            write_atomic(self.path, "".join(lines).encode())

    @staticmethod
    def _read(path: Path) -> dict[str, dict[str, Any]]:
        try:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            return {_key(line["asked"]): line["row"] for line in lines}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{str(path)!r} holds no rows of a transfer ({type(error).__name__}); name another file, or remove it"
            ) from error


def _identifying(data: Any) -> Iterator[bytes | str]:
    for part in (data.train, data.test):
        if isinstance(part, TensorImages):
            yield part.images.contiguous().numpy().tobytes()
            yield part.labels.numpy().tobytes()
            continue
        for path, label in getattr(part, "files", ()):
            yield f"{path.name} {path.stat().st_size} {label}"
        for i in torch.linspace(0, len(part) - 1, min(FINGERPRINTED_IMAGES, len(part))).long().tolist():
            x, y = part[i]
            yield torch.as_tensor(x).contiguous().numpy().tobytes()
            yield str(int(y))


def data_fingerprint(data: Any) -> dict[str, Any]:
    """Name, counts and a hash of the images and labels, which tells apart two data sets of one name.

    Images in memory are all hashed; of image files, the names and sizes of all and the pixels of some.
    """
    return {
        "name": str(data.name),
        "train": len(data.train),
        "test": len(data.test),
        "classes": [str(c) for c in data.classes],
        "images": digest(_identifying(data))[:16],
    }


def _key(asked: dict[str, Any]) -> str:
    """What was asked for, less what does not change the numbers."""
    if isinstance(asked.get("settings"), dict):
        settings = {name: value for name, value in asked["settings"].items() if name not in WITHOUT_EFFECT}
        asked = {**asked, "settings": settings}
    return json.dumps(asked, sort_keys=True, default=_in_words)


def _in_words(value: Any) -> Any:
    """An object as far as it is the same in another process; one that only its address tells is never found again, as
    another may be at that address by then."""
    if isinstance(value, TrainConfig):
        return {f.name: getattr(value, f.name) for f in fields(value) if f.name not in WITHOUT_EFFECT}
    words = repr(value)
    if ADDRESS not in words:
        return words
    if callable(getattr(value, "config", None)):
        return {"name": getattr(value, "name", type(value).__qualname__), **value.config()}
    name = getattr(value, "__qualname__", "<")  # a lambda or a local function may be another one next time
    return f"{words}, {uuid4()}" if "<" in name else f"{value.__module__}:{name}"
