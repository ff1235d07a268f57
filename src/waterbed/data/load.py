"""load_dataset: by name (embedded or torchvision's) or from a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from waterbed.data.catalog import CATALOG, Source
from waterbed.data.idx import find_idx, read_idx_folder
from waterbed.data.images import GREY_MODES, FolderImages, ImageData, TensorImages, adapt, read_image
from waterbed.errors import UsageError, UsageTypeError, check_choice, check_count
from waterbed.progress import track

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
IN_MEMORY_BYTES = 2**31
LARGEST_SIDE = 4096


def load_dataset(
    name_or_folder: str | Path,
    root: str | Path | None = None,
    download: bool = False,
    size: int | None = None,
    channels: int | None = None,
) -> ImageData:
    """Load a classification task as images in [0, 1].

    Args:
        name_or_folder: "fashion-mini" or "digits" (embedded, offline); "cifar10", "cifar100", "mnist",
            "fashion-mnist" or "svhn" (read from ``root``); or a folder with ``train/<class>/*`` and
            ``test/<class>/*``, or with the four idx files of MNIST, gzipped or not. A name comes first: for a
            folder that is called like one, write ``./digits``.
        root: where named sets lie; by default the environment variable WATERBED_DATA, else
            ``~/.cache/waterbed/data``.
        download: fetch a named set that is missing (torchvision does it).
        size: side of the square images that come out: antialiased resize of the short side, centre crop.
        channels: 1 (grey) or 3 (RGB); by default what the images have.

    Returns:
        :class:`ImageData`: ``train`` and ``test`` yield ``(float32 (C, H, W) in [0, 1], int)``. Sets of up
        to 2 GiB are held in memory as bytes; larger folders are decoded when read.

    Raises:
        UsageError: unknown name, missing or empty folder, corrupt file, fewer than two classes.

    >>> data = load_dataset("digits", size=16)
    >>> data.shape, data.num_classes, len(data.train), len(data.test)
    ((1, 16, 16), 10, 1437, 360)
    """
    if size is not None:
        check_count("size", size, at_least=4)
        if size > LARGEST_SIDE:
            raise UsageError(f"size={size} is more than {LARGEST_SIDE} pixels; pass a smaller one")
    if channels is not None:
        check_choice("channels", channels, (1, 3))
    if not isinstance(name_or_folder, str | Path):
        raise UsageTypeError(f"name_or_folder={name_or_folder!r} must be a name or a path")
    name = str(name_or_folder)
    if name in _EMBEDDED:
        (train, test), classes = _EMBEDDED[name]()
        return _from_arrays(name, train, test, classes, size, channels, CATALOG[name].flip)
    if name in CATALOG:
        return _named(CATALOG[name], _root(root), download, size, channels)
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return _folder(folder, folder.resolve().name, size, channels, flip=False)
    if folder.exists():
        raise UsageError(f"name_or_folder={name!r} is a file; name the folder with train/ and test/ in it")
    if os.sep in name or name.startswith("."):
        raise UsageError(f"name_or_folder={name!r} does not exist; make the folder with train/<class>/ in it")
    check_choice("name_or_folder", name, CATALOG)
    raise AssertionError("unreachable")


def _root(root: str | Path | None) -> Path:
    if root is not None:
        if not Path(root).expanduser().is_dir():
            raise UsageError(f"root={str(root)!r} is not a folder; make it, or name the one with the data")
        return Path(root).expanduser()
    return Path(os.environ.get("WATERBED_DATA", Path.home() / ".cache" / "waterbed" / "data"))


# Embedded sets.


def _fashion_mini() -> tuple[tuple, tuple[str, ...]]:
    with resources.files("waterbed.data").joinpath("embedded/fashion_mini.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        train = arrays["train_images"], arrays["train_labels"]
        test = arrays["test_images"], arrays["test_labels"]
    return (train, test), _FASHION_CLASSES


def _digits() -> tuple[tuple, tuple[str, ...]]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    x_train, x_test, y_train, y_test = train_test_split(
        images, bunch.target, test_size=360, stratify=bunch.target, random_state=0
    )
    return ((x_train, y_train), (x_test, y_test)), tuple("0123456789")


_FASHION_CLASSES = tuple(
    ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
)
_EMBEDDED: dict[str, Callable] = {"fashion-mini": _fashion_mini, "digits": _digits}


def _from_arrays(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    classes: tuple[str, ...],
    size: int | None,
    channels: int | None,
    flip: bool,
) -> ImageData:
    """From uint8 (N, H, W) or (N, C, H, W) arrays."""

    def part(images: np.ndarray, labels: np.ndarray) -> TensorImages:
        x = torch.as_tensor(np.array(images))
        x = x.unsqueeze(1) if x.ndim == 3 else x
        return TensorImages(adapt(x, size, channels), torch.as_tensor(np.array(labels)).long())

    return ImageData(name, part(*train), part(*test), classes, flip)


# Sets that torchvision reads.


def _named(source: Source, root: Path, download: bool, size: int | None, channels: int | None) -> ImageData:
    folder = root / source.name
    if (folder / "train").is_dir() or find_idx(folder):
        return _folder(folder, source.name, size, channels, source.flip)
    from torchvision import datasets

    reader = getattr(datasets, source.torchvision)
    splits = [{"split": s} for s in ("train", "test")] if source.name == "svhn" else [{"train": True}, {"train": False}]
    try:
        if download:
            root.mkdir(parents=True, exist_ok=True)
        train, test = (reader(root=str(root), download=download, **split) for split in splits)
    except (RuntimeError, OSError) as error:
        raise UsageError(
            f"the data set {source.name!r} is not complete in root={str(root)!r} ({_first_line(error)}); "
            f"{source.obtain}, or put {source.name}/train/<class>/* and {source.name}/test/<class>/* there"
        ) from error
    classes = tuple(str(c) for c in getattr(train, "classes", range(source.classes)))
    return _from_arrays(source.name, _arrays(train), _arrays(test), classes, size, channels, source.flip)


def _arrays(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a torchvision data set as (N, H, W) or (N, C, H, W), and its labels."""
    images = np.asarray(dataset.data)
    if images.ndim == 4 and images.shape[-1] == 3:  # CIFAR keeps channels last, SVHN first
        images = images.transpose(0, 3, 1, 2)
    return images, np.asarray(dataset.labels if hasattr(dataset, "labels") else dataset.targets)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


# Folders.


def _folder(folder: Path, name: str, size: int | None, channels: int | None, flip: bool) -> ImageData:
    if find_idx(folder):
        train, test = read_idx_folder(folder)
        labels = sorted({int(c) for c in np.unique(train[1])} | {int(c) for c in np.unique(test[1])})
        classes = tuple(str(c) for c in range(labels[-1] + 1))
        return _from_arrays(name, train, test, classes, size, channels, flip)
    for split in ("train", "test"):
        if not (folder / split).is_dir():
            raise UsageError(
                f"name_or_folder={str(folder)!r} has no subfolder {split!r}; arrange it as train/<class>/* and "
                "test/<class>/*"
            )
    classes = tuple(sorted(p.name for p in (folder / "train").iterdir() if p.is_dir()))
    unknown = {p.name for p in (folder / "test").iterdir() if p.is_dir()} - set(classes)
    if unknown:
        raise UsageError(f"{str(folder / 'test')!r} has class {min(unknown)!r}, which train lacks; add it there")
    if len(classes) < 2:
        raise UsageError(
            f"name_or_folder={str(folder)!r} has {len(classes)} class folder(s) in train; a classifier needs "
            "two or more"
        )
    files = {split: _list_files(folder / split, classes) for split in ("train", "test")}
    channels, shape = _probe([path for part in files.values() for path, _ in part], size, channels)
    total = sum(map(len, files.values())) * channels * shape[0] * shape[1]
    parts: dict[str, Dataset] = {}
    for split, listed in files.items():
        parts[split] = FolderImages(listed, channels, size)
        if total <= IN_MEMORY_BYTES:
            parts[split] = _in_memory(parts[split], f"reading {name}/{split}")
    return ImageData(name, parts["train"], parts["test"], classes, flip)


def _list_files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    listed = []
    for label, class_name in enumerate(classes):
        place = folder / class_name
        found = sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES) if place.is_dir() else []
        if not found and folder.name == "train":
            raise UsageError(f"the class folder {str(place)!r} has no images; add some or remove it")
        listed += [(path, label) for path in found]
    if not listed:
        raise UsageError(f"the folder {str(folder)!r} has no images; add some")
    return listed


def _probe(paths: list[Path], size: int | None, channels: int | None) -> tuple[int, tuple[int, int]]:
    """Channels and (H, W) from the file headers; images of several sizes need ``size``."""
    grey, shapes = True, set()
    for path in paths:
        try:
            with Image.open(path) as image:
                grey = grey and image.mode in GREY_MODES
                turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientation on its side
                shapes.add((image.width, image.height) if turned else (image.height, image.width))
        except OSError:
            read_image(path)  # says what is wrong with it
            raise
        if size is None and len(shapes) > 1:
            (h, w), (h2, w2) = sorted(shapes)
            raise UsageError(
                f"size=None, but the images have several sizes ({h} x {w}, {h2} x {w2} at {str(path)!r}); pass size="
            )
    return channels or (1 if grey else 3), (size, size) if size else shapes.pop()


def _in_memory(images: FolderImages, description: str) -> TensorImages:
    first = images.decode(images.files[0][0])
    decoded = torch.empty((len(images), *first.shape), dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:
        tensors = pool.map(images.decode, (path for path, _ in images.files))
        shown = len(images) > 5000
        for i, tensor in enumerate(track(tensors, description, total=len(images), enabled=shown)):
            decoded[i] = tensor
    labels: Tensor = torch.tensor([label for _, label in images.files])
    return TensorImages(decoded, labels)
