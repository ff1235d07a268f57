"""Folders of images, one subfolder per class: decoded on access, or held in memory if they are small enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from waterbed.data.decoding import header, image_files
from waterbed.data.encoded import common_size
from waterbed.data.idx import find_idx, read_idx_folder
from waterbed.data.images import FolderImages, ImageData, TensorImages, adapt
from waterbed.errors import UsageError
from waterbed.progress import track
from waterbed.text import printable

IN_MEMORY_BYTES = 2**31

LabelledFiles = list[tuple[Path, int]]
LabelledArray = tuple[np.ndarray, np.ndarray]


class Files(NamedTuple):
    """The image files of a task with their labels, 0 .. len(classes) - 1."""

    train: LabelledFiles
    test: LabelledFiles
    classes: tuple[str, ...]


class Arrays(NamedTuple):
    """The images of a task, uint8 (N, H, W) or (N, C, H, W), with their labels (N,), 0 .. len(classes) - 1."""

    train: LabelledArray
    test: LabelledArray
    classes: tuple[str, ...]


def read_folder(folder: Path) -> Files | Arrays:
    """The task in a folder: four idx files, or ``train/<class>/*`` and ``test/<class>/*``."""
    if find_idx(folder):
        train, test = read_idx_folder(folder)
        largest = max(int(labels.max(initial=0)) for _, labels in (train, test))
        return Arrays(train, test, tuple(str(c) for c in range(largest + 1)))
    return list_folder(folder)


def list_folder(folder: Path, parts: tuple[str, str] = ("train", "test")) -> Files:
    """The image files of ``<part>/<class>/*``.

    Raises:
        UsageError: a part is missing, a class is empty, there are fewer than two, or the test part has a class that
            the training part lacks.
    """
    for part in parts:
        if not (folder / part).is_dir():
            raise UsageError(
                f"name_or_folder={str(folder)!r} has no subfolder {part!r}; arrange it as {parts[0]}/<class>/* and "
                f"{parts[1]}/<class>/*"
            )
    train, test = (folder / part for part in parts)
    classes = class_folders(train)
    unknown = set(class_folders(test)) - set(classes)
    if unknown:
        raise UsageError(f"{str(test)!r} has class {min(unknown)!r}, which {parts[0]} lacks; add it there")
    if len(classes) < 2:
        raise UsageError(
            f"name_or_folder={str(folder)!r} has {len(classes)} class folder(s) in {parts[0]}; a classifier needs "
            "two or more"
        )
    files = Files(list_classes(train, classes), list_classes(test, classes), classes)
    empty = set(range(len(classes))) - {label for _, label in files.train}
    if empty:
        raise UsageError(f"the class folder {str(train / classes[min(empty)])!r} has no images; add some or remove it")
    if not files.test:
        raise UsageError(f"the folder {str(test)!r} has no images in folders named like the classes; add some")
    return files._replace(classes=tuple(map(printable, classes)))


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the subfolders, sorted."""
    try:
        return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))
    except OSError as error:
        raise UsageError(
            f"the folder {str(error.filename)!r} cannot be listed ({error.strerror}); change its permissions"
        ) from error


def list_classes(folder: Path, classes: tuple[str, ...], pattern: str = "*") -> LabelledFiles:
    """The image files below ``folder/<class>``, class by class and sorted; a missing class folder adds none."""
    return [
        (path, label)
        for label, name in enumerate(classes)
        if (folder / name).is_dir()
        for path in image_files(folder / name, pattern)
    ]


def from_files(
    name: str, files: Files, size: int | None, channels: int | None, flip: bool = False, metric: str = "top-1"
) -> ImageData:
    """A task from image files, decoded into memory if that takes at most :data:`IN_MEMORY_BYTES`.

    Without ``size`` or ``channels`` the header of every file is read to determine them.
    """
    if size is None or channels is None:
        channels, size, shape = _probe([path for path, _ in files.train + files.test], size, channels)
    else:
        shape = (size, size)
    train, test = (FolderImages(part, channels, size, files.classes) for part in (files.train, files.test))
    train, test = in_memory_if_small(name, train, test, (channels, *shape))
    return ImageData(name, train, test, files.classes, flip, metric)


def in_memory_if_small(name: str, train: Any, test: Any, shape: Sequence[int]) -> tuple[Dataset, Dataset]:
    """Data sets of images of one shape (C, H, W) with ``decode(index)`` and ``labels``, decoded into memory if both
    together take at most :data:`IN_MEMORY_BYTES`."""
    if (len(train) + len(test)) * math.prod(shape) > IN_MEMORY_BYTES:
        return train, test
    return _in_memory(train, f"reading {name}/train"), _in_memory(test, f"reading {name}/test")


def from_arrays(
    name: str, arrays: Arrays, size: int | None, channels: int | None, flip: bool = False, metric: str = "top-1"
) -> ImageData:
    """A task from arrays, resized and converted as :func:`waterbed.data.images.adapt` does.

    >>> part = np.zeros((3, 8, 8), dtype=np.uint8), np.array([0, 1, 0])
    >>> from_arrays("blank", Arrays(part, part, ("a", "b")), size=4, channels=None).shape
    (1, 4, 4)
    """

    def part(images: np.ndarray, labels: np.ndarray) -> TensorImages:
        x = torch.as_tensor(np.array(images))
        x = x.unsqueeze(1) if x.ndim == 3 else x
        return TensorImages(adapt(x, size, channels), torch.as_tensor(np.array(labels)).long(), arrays.classes)

    return ImageData(name, part(*arrays.train), part(*arrays.test), arrays.classes, flip, metric)


def _probe(paths: list[Path], size: int | None, channels: int | None) -> tuple[int, int | None, tuple[int, int]]:
    """Channels, size and (H, W) from the file headers; images of several sizes get a size, and a warning says so."""
    headers = [header(str(path)) for path in paths]
    channels = channels or (1 if all(grey for grey, _ in headers) else 3)
    size = size or common_size([size for _, size in headers])
    return channels, size, (size, size) if size else headers[0][1]


def _in_memory(images: Any, description: str) -> TensorImages:
    first = images.decode(0)
    decoded = torch.empty((len(images), *first.shape), dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:
        tensors = pool.map(images.decode, range(len(images)))
        slow = len(images) > 5000  # enough to be worth a progress bar
        for i, tensor in enumerate(track(tensors, description, total=len(images), enabled=slow)):
            decoded[i] = tensor
    return TensorImages(decoded, images.labels, images.classes)
