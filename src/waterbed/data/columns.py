"""Hugging Face ``Dataset`` objects with a column of images and one of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from waterbed.data.encoded import EncodedImages
from waterbed.errors import UsageError, UsageTypeError, check_choice

TEST_SPLITS = ("test", "validation", "valid", "val")
UNLABELLED = -1

Advice = Callable[[str, str, str], str]  # "image" or "label", its column, the other's -> what to write to choose it


def is_table(dataset: Any) -> bool:
    """Whether it is a ``datasets.Dataset`` (or its streaming sibling), which need not be imported to know."""
    return all(hasattr(dataset, name) for name in ("features", "column_names", "cast_column"))


def as_images(
    table: Any, argument: str, image: str | None = None, label: str | None = None, advice: Advice | None = None
) -> Dataset:
    """The table as a map-style data set of (float32 (C, H, W) in [0, 1], int).

    The columns are found by the types of their features: the one of images, and the one of class labels (else of whole
    numbers). A transform of the table (``set_transform``) is applied, and must keep the column of images; other formats
    make no difference.

    Args:
        image, label: the names of the columns, where several would do.
        advice: what an error advises.

    Raises:
        UsageTypeError: a stream, or labels that are text.
        UsageError: no such column, or several.
    """
    if not hasattr(table, "__len__"):
        raise UsageTypeError(
            f"{argument}={type(table).__name__} is a stream; load it with streaming=False, or write shards and name "
            "them to load_dataset"
        )
    features = table.features
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    labels = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"] or [
        name for name, feature in features.items() if str(getattr(feature, "dtype", "")).startswith(("int", "uint"))
    ]
    advice = advice or (lambda kind, column, other: f"{argument}.select_columns({[column, other]})")
    image = _the_one("image", image, images, features, argument, lambda c: advice("image", c, (labels or ["label"])[0]))
    label = _the_one("label", label, labels, features, argument, lambda c: advice("label", c, image))
    kind = TransformedColumns if (table.format or {}).get("type") == "custom" else ColumnImages
    return kind(table, image, label)


def _the_one(
    kind: str, named: str | None, found: list[str], features: Any, argument: str, advice: Callable[[str], str]
) -> str:
    """The column named, or the only one found."""
    if named is not None:
        check_choice(f"the {kind} column of {argument}", named, features)
        return named
    if not found:
        listed = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
        cast = "cast_column(NAME, datasets.Image())" if kind == "image" else "class_encode_column(NAME)"
        raise UsageError(f"{argument} has no {kind} column, only {listed}; make one with {cast}")
    if len(found) > 1:
        listed = ", ".join(map(repr, found))
        raise UsageError(f"{argument} has several {kind} columns ({listed}); choose one: {advice(found[0])}")
    return found[0]


def choose_splits(
    tables: Mapping[str, Any], argument: str, train: str | None = None, test: str | None = None
) -> tuple[str, str]:
    """The splits to train and to test on: those named, else "train" and the first of :data:`TEST_SPLITS` with labels.

    Raises:
        UsageError: a name that is no split, or splits of other names.
    """
    for name in (train, test):
        if name is not None:
            check_choice(f"the split of {argument}", name, tables)
    labelled = [name for name in TEST_SPLITS if name in tables and not _without_labels(tables[name])]
    train, test = train or "train", test or next(iter(labelled), None)
    if train not in tables or test is None:
        raise UsageError(
            f"{argument} has the splits {', '.join(tables)}; name those to train and to test on: a pair "
            "(data['NAME'], data['NAME']), or hf:owner/name?train=NAME&test=NAME"
        )
    return train, test


def _without_labels(table: Any) -> bool:
    """Whether all class labels are -1, as in the test splits of competitions."""
    labels = [name for name, feature in table.features.items() if type(feature).__name__ == "ClassLabel"]
    return any(set(_column(table, name).tolist()) == {UNLABELLED} for name in labels)


def _column(table: Any, name: str) -> np.ndarray:
    """A column of numbers or text, read without touching an image."""
    return np.asarray(table.select_columns([name]).with_format("numpy")[name][:])


class _Columns(Dataset):
    """A table, its two columns and its labels."""

    def __init__(self, table: Any, image: str, label: str) -> None:
        self.table, self.image, self.label = table, image, label
        names = getattr(table.features[label], "names", None)
        self.classes = None if names is None else tuple(names)
        values = _column(table, label)
        if values.dtype.kind not in "iu":
            raise UsageTypeError(
                f"the label column {label!r} holds {values[:1].tolist()}, not whole numbers from 0: number its values "
                f"with class_encode_column({label!r})"
            )
        self.labels = torch.from_numpy(values.astype(np.int64))


class ColumnImages(_Columns, EncodedImages):
    """A table whose images are decoded here, from the bytes it holds."""

    def __init__(self, table: Any, image: str, label: str) -> None:
        from datasets import Image

        super().__init__(table, image, label)
        self.table = table.with_format(None).cast_column(image, Image(decode=False))

    def content(self, index: int) -> tuple[str, bytes]:
        """Row and column of an image, and its bytes."""
        cell = self.table[index][self.image]
        if cell is None:
            raise UsageError(f"row {index} of data has no image in column {self.image!r}; filter such rows out")
        name = f"row {index} of column {self.image!r}"
        return name, Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]


class TransformedColumns(_Columns):
    """A table with a transform of the user's, which gives the images."""

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        row = self.table[index]
        if self.image not in row:
            raise UsageError(
                f"the transform of data gives {', '.join(row)}, without the image column {self.image!r}; let it put a "
                "float tensor (C, H, W) in [0, 1] there"
            )
        return row[self.image], int(self.labels[index])
