"""The file of a long evaluation: what broke each image, batch by batch, so that it resumes where it stopped."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.distributed import gathered, is_main
from waterbed.errors import UsageError
from waterbed.files import digest, expanded, locked, make_folder, write_atomic

SCHEMA = 1


@dataclass
class BatchRecord:
    """The results of one batch of B images.

    Attributes:
        images: hash of images and labels.
        indices: (B,) their places in the data set.
        fell_to: (B,) the first attack that broke each image, None if none has.
        done: names of the finished stages.
        evidence: of gradient masking (:func:`waterbed.evaluation.gradient_masking.gather_evidence`).
        warnings: of AutoAttack.
    """

    images: str
    indices: list[int]
    fell_to: list[str | None]
    done: list[str] = field(default_factory=list)
    evidence: dict[str, list[bool]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class EvaluationFile:
    """The results of an evaluation with given settings; in memory only if ``path`` is None.

    An evaluation that was started without AutoAttack may be resumed with it. Of several processes each has all records,
    and the first writes them. It is used in a ``with``, inside which no other evaluation can write the file.

    Raises:
        UsageError: the file is not an evaluation, or one with other settings, other weights or another AutoAttack; or
            another process is writing it.
    """

    def __init__(self, path: str | Path | None, settings: dict[str, Any], autoattack: str | None) -> None:
        self.path = None if path is None else expanded(path)
        self.settings, self.autoattack = settings, autoattack
        self._records: dict[int, BatchRecord] = {}
        self._held = ExitStack()

    def __enter__(self) -> EvaluationFile:
        recorded: list[BatchRecord] = []
        if self.path is not None:
            make_folder(self.path.parent)
            if is_main():
                lock = self.path.with_name(f".{self.path.name}.lock")
                self._held.enter_context(locked(lock, wait=False, guarded=self.path))
            if self.path.exists():
                recorded = self._read(self.path)
        self._records = dict(enumerate(gathered(recorded)[0]))
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._held.close()

    @property
    def batches(self) -> list[BatchRecord]:
        """The records so far, in the order of the batches."""
        return [self._records[number] for number in sorted(self._records)]

    def before(self, record: BatchRecord) -> list[BatchRecord]:
        """The records of the batches before this one."""
        return list(itertools.takewhile(lambda batch: batch is not record, self.batches))

    def batch(self, number: int, indices: Tensor, x: Tensor, y: Tensor) -> BatchRecord:
        """The record of a batch, new or as it was saved; :class:`UsageError` if it was saved for other images."""
        images = _hash(x, y)
        record = self._records.setdefault(number, BatchRecord(images, indices.tolist(), [None] * len(y)))
        if record.images != images:
            raise UsageError(
                f"out={str(self.path)!r} holds an evaluation on other images (batch {number} differs); "
                "choose another out= or pass the data it was started on"
            )
        return record

    def exchange(self, finished: int | None) -> None:
        """Give the others the record of the batch in which this one ``finished`` a stage, take theirs, and save.

        Every process must call this.
        """
        news = gathered(None if finished is None else (finished, self._records[finished]))
        self._records |= dict(item for item in news if item is not None and item[0] != finished)
        if any(item is not None for item in news):
            self.save()

    def save(self, report: dict[str, Any] | None = None) -> None:
        """Write all records, and the ``report`` once the evaluation has finished."""
        if self.path is None or not is_main():
            return
        content = {
            "schema": SCHEMA,
            "settings": self.settings,
            "autoattack": self.autoattack,
            "report": report,
            "batches": [asdict(batch) for batch in self.batches],
        }
        write_atomic(self.path, (json.dumps(content) + "\n").encode())

    def _read(self, path: Path) -> list[BatchRecord]:
        out = str(path)
        try:
            content = json.loads(path.read_text())
            settings, autoattack = {"schema": content["schema"], **content["settings"]}, content["autoattack"]
            batches = [BatchRecord(**batch) for batch in content["batches"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"out={out!r} exists and is not an evaluation to resume; choose another out=") from error
        for key, now in {"schema": SCHEMA, **self.settings}.items():
            if settings.get(key) != now:
                raise UsageError(
                    f"out={out!r} holds an evaluation with {key}={settings.get(key)!r}, not {now!r}; choose another "
                    "out= or the recorded setting"
                )
        if autoattack not in (None, self.autoattack):
            now = self.autoattack or "AutoAttack is left out"
            raise UsageError(
                f"out={out!r} holds an evaluation with {autoattack}, now {now}; choose another out= or the same"
            )
        return batches


def fingerprint(model: nn.Module) -> str:
    """A hash of the model's class, weights and buffers.

    >>> layer = nn.Linear(2, 2)
    >>> before = fingerprint(layer)
    >>> _ = layer.weight.data.add_(1)
    >>> fingerprint(layer) == before
    False
    """
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    return digest([type(model).__qualname__, *(name + _hash(tensor) for name, tensor in tensors)])[:16]


def _hash(*tensors: Tensor) -> str:
    """A hash of the tensors' types, shapes and bits."""

    def parts() -> Iterator[bytes | str]:
        for tensor in tensors:
            yield f"{tensor.dtype} {tuple(tensor.shape)}"
            yield tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()

    return digest(parts())[:16]
