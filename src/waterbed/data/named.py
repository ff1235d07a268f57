"""Data sets of the catalogue: where they are stored, how they are downloaded, and whether a copy is complete."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from waterbed.data.catalog import Source
from waterbed.data.folders import Arrays, Files, LabelledFiles, from_arrays, from_files, read_folder
from waterbed.data.idx import find_idx
from waterbed.data.images import ImageData
from waterbed.data.readers import READERS
from waterbed.errors import UsageError
from waterbed.files import expanded

# Arguments with which torchvision's classes download both splits; classes not listed take ``train``.
_TRAIN_OR_NOT: list[dict[str, Any]] = [{"train": True}, {"train": False}]
_PARTS: dict[str, list[dict[str, Any]]] = {
    "SVHN": [{"split": "train"}, {"split": "test"}],
    "GTSRB": [{"split": "train"}, {"split": "test"}],
    "ImageNet": [{"split": "train"}, {"split": "val"}],
    "Flowers102": [{}],
    "FGVCAircraft": [{}],
    "Caltech101": [{}],
}


def data_root(root: str | Path | None = None) -> Path:
    """The folder with the named sets: ``root``, else $WATERBED_DATA, else ``~/.cache/waterbed/data``.

    Raises:
        UsageError: ``root`` is not a folder.

    >>> data_root(".").name
    ''
    """
    if root is None:
        return Path(os.environ.get("WATERBED_DATA", Path.home() / ".cache" / "waterbed" / "data"))
    folder = expanded(root, "root")
    if not folder.is_dir():
        raise UsageError(f"root={str(root)!r} is not a folder; create it, or pass the one with the data")
    return folder


def locate(source: Source, root: Path) -> Path | None:
    """The folder that holds a set, judged by file names alone; None if there is none. Opens no file.

    A set is either as it unpacks, in ``<root>/<its folder>`` or in ``<root>/<name>``, or arranged by hand in
    ``<root>/<name>``: as ``train/<class>/*`` and ``test/<class>/*``, or as the four idx files of MNIST.
    """
    own, unpacked = root / source.name, root / source.folder
    for place in (own, own / source.folder, unpacked) if source.name in READERS else ():
        if (place / source.marker).exists():
            return place
    if _by_hand(own):
        return own
    return unpacked if source.marker and (unpacked / source.marker).exists() else None


def load_named(source: Source, root: Path, download: bool, size: int | None, channels: int | None) -> ImageData:
    """A set of the catalogue that is not embedded; see :func:`waterbed.load_dataset`."""
    size = source.size if size is None else size
    place = locate(source, root)
    if source.name not in READERS and not _by_hand(root / source.name):
        place = root / source.folder
        task: Files | Arrays = _torchvision_arrays(source, root, download)
    else:
        if place is None and download:
            _fetch(source, root)
            place = locate(source, root)
        if place is None:
            raise UsageError(_missing(source, root))
        task = _read(source, place, root)
    _check_complete(source, task, place, root)
    if isinstance(task, Arrays):
        return from_arrays(source.name, task, size, channels, source.flip, source.metric)
    if source.name in READERS:
        channels = channels or source.channels  # saves opening every file to see whether all are grey
    return from_files(source.name, task, size, channels, source.flip, source.metric)


def _by_hand(folder: Path) -> bool:
    return ((folder / "train").is_dir() and (folder / "test").is_dir()) or bool(find_idx(folder))


def _missing(source: Source, root: Path) -> str:
    for place in (root / source.folder, root / source.name):
        if place.is_dir():  # torchvision takes it for complete and would not download it again
            return (
                f"the data set {source.name!r} in {str(place)!r} is not complete: {source.marker} is missing; remove "
                f"what is unpacked there and get it again: {_remedy(source, root)}"
            )
    return f"the data set {source.name!r} is not in root={str(root)!r}; {_remedy(source, root)}"


def _remedy(source: Source, root: Path) -> str:
    by_hand = f"{source.name}/train/<class>/* and {source.name}/test/<class>/*"
    return f"{source.instructions(root)}, or put {by_hand} in {str(root)!r}"


def _read(source: Source, place: Path, root: Path) -> Files | Arrays:
    if source.name not in READERS or not (place / source.marker).exists():
        return read_folder(place)
    try:
        return READERS[source.name](place)
    except UsageError:
        raise
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"the file lists of the data set {source.name!r} in {str(place)!r} cannot be read "
            f"({type(error).__name__}: {error}); get it again: {source.instructions(root)}"
        ) from error


def _check_complete(source: Source, task: Files | Arrays, place: Path, root: Path) -> None:
    """Raise :class:`UsageError` unless the set has the catalogue's sizes; only files that exist are counted."""
    count = (lambda part: len(part[1])) if isinstance(task, Arrays) else _existing
    sizes = count(task.train), count(task.test), len(task.classes)
    complete = source.train_size, source.test_size, source.classes
    if sizes == complete:
        return
    text = "{:,} training and {:,} test images of {:,} classes"
    how = "remove what is unpacked there and get it again"
    if _by_hand(place):
        how = "pass that folder instead of the name to use it as is, or put the whole set there"
    raise UsageError(
        f"the data set {source.name!r} in {str(place)!r} has {text.format(*sizes)}, a complete one has "
        f"{text.format(*complete)}; {how}: {source.instructions(root)}"
    )


def _existing(files: LabelledFiles) -> int:
    """How many of the files exist, with one listing per folder."""
    names = {folder: set(os.listdir(folder)) if folder.is_dir() else set() for folder in {p.parent for p, _ in files}}
    return sum(path.name in names[path.parent] for path, _ in files)


def _fetch(source: Source, root: Path) -> None:
    """Download and unpack a set with torchvision (ImageNet: unpack the archives that are there)."""
    from torchvision import datasets

    if source.torchvision is None:
        raise UsageError(f"download=True cannot fetch the data set {source.name!r}; {_remedy(source, root)}")
    arguments: dict[str, Any] = {"root": str(root), "download": True}
    if source.torchvision == "ImageNet":
        arguments = {"root": str(root / source.folder)}
    try:
        root.mkdir(parents=True, exist_ok=True)
        for part in _PARTS[source.torchvision]:
            getattr(datasets, source.torchvision)(**arguments, **part)
    except (RuntimeError, OSError, EOFError) as error:
        raise UsageError(
            f"the data set {source.name!r} cannot be downloaded to root={str(root)!r} ({_first_line(error)}); "
            f"{_remedy(source, root)}"
        ) from error


def _torchvision_arrays(source: Source, root: Path, download: bool) -> Arrays:
    """A set of small images, which torchvision downloads, verifies and reads."""
    from torchvision import datasets

    reader = getattr(datasets, source.torchvision)
    try:
        if download:
            root.mkdir(parents=True, exist_ok=True)
        parts = _PARTS.get(source.torchvision, _TRAIN_OR_NOT)
        train, test = (reader(root=str(root), download=download, **part) for part in parts)
    except (RuntimeError, OSError, EOFError) as error:
        raise UsageError(
            f"the data set {source.name!r} is not complete in root={str(root)!r} ({_first_line(error)}); "
            f"{_remedy(source, root)}"
        ) from error
    classes = tuple(str(c) for c in getattr(train, "classes", range(source.classes)))
    return Arrays(_arrays(train), _arrays(test), classes)


def _arrays(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a torchvision data set as (N, H, W) or (N, C, H, W), and its labels."""
    images = np.asarray(dataset.data)
    if images.ndim == 4 and images.shape[-1] == 3:  # CIFAR keeps channels last, SVHN first
        images = images.transpose(0, 3, 1, 2)
    return images, np.asarray(dataset.labels if hasattr(dataset, "labels") else dataset.targets)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
