"""The file of a long comparison: one line per fine-tuning, written as it finishes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from waterbed.data.images import TensorImages
from waterbed.errors import UsageError
from waterbed.files import digest, make_folder, write_atomic

FINGERPRINTED_IMAGES = 256


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
        self.path = None if path is None else Path(path).expanduser()
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
    return json.dumps(asked, sort_keys=True, default=repr)
