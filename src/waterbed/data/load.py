"""load_dataset: an embedded set, a set of the catalogue, or a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

import numpy as np

from waterbed.data.catalog import CATALOG
from waterbed.data.folders import Arrays, from_arrays, from_files, read_folder
from waterbed.data.huggingface import PREFIX, load_hub
from waterbed.data.images import ImageData
from waterbed.data.named import data_root, load_named
from waterbed.data.shards import are_shards, load_shards
from waterbed.errors import UsageError, UsageTypeError, check_choice, check_count
from waterbed.files import expanded
from waterbed.text import printable

SMALLEST_SIDE, LARGEST_SIDE = 4, 4096


def load_dataset(
    name_or_folder: str | Path,
    root: str | Path | None = None,
    download: bool = False,
    size: int | None = None,
    channels: int | None = None,
) -> ImageData:
    """Load a classification task as images in [0, 1].

    Args:
        name_or_folder: "fashion-mini" or "digits" (embedded, offline); a name that ``waterbed data`` lists, such as
            "cifar10" or "stanford-cars" (read from ``root``); or a folder with ``train/<class>/*`` and
            ``test/<class>/*``, or with the four idx files of MNIST, gzipped or not. Names take precedence: for a
            folder called ``digits``, write ``./digits``. Or "hf:owner/name", a data set of the Hugging Face Hub (extra
            ``hf``; also a folder that the package ``datasets`` reads); to choose what is not unique, append
            ``?config=NAME&train=NAME&test=NAME&image=NAME&label=NAME``, its configuration, splits and columns. Or a
            pattern of WebDataset shards, such as ``shards/{train,test}-*.tar`` or
            ``train-{000..127}.tar::val-{000..003}.tar``: each example an image and a .cls, the parts told by the words
            train, test or val in the names.
        root: the folder with the named sets; by default that of the environment variable WATERBED_DATA, or else
            ``~/.cache/waterbed/data``. For "hf:", the cache of ``datasets``.
        download: download a missing named set, if torchvision can; fetch one from the Hub, of which otherwise only the
            local cache is read.
        size: side of the square images in pixels: antialiased resize of the short side, then a centre crop. By
            default images of one size keep it, and those of several get one (the median of their short sides, at most
            224), which a warning names; named sets of photographs come as 224 x 224 (``CATALOG[name].size``).
        channels: 1 (grey) or 3 (RGB); by default those of the images; of named sets, those of the catalogue.

    Returns:
        :class:`ImageData`: ``train`` and ``test`` yield ``(float32 (C, H, W) in [0, 1], int)``. Sets of up
        to 2 GiB are held in memory as bytes; larger ones are decoded on access.

    Raises:
        UsageError: unknown name, missing or empty folder, corrupt file, fewer than two classes, or a named set whose
            image and class counts differ from the catalogue's.

    >>> data = load_dataset("digits", size=16)
    >>> data.shape, data.num_classes, len(data.train), len(data.test)
    ((1, 16, 16), 10, 1437, 360)
    """
    if size is not None:
        check_count("size", size, at_least=SMALLEST_SIDE)
        if size > LARGEST_SIDE:
            raise UsageError(f"size={size} is more than {LARGEST_SIDE} pixels; pass a smaller one")
    if channels is not None:
        check_choice("channels", channels, (1, 3))
    if not isinstance(name_or_folder, str | Path):
        raise UsageTypeError(f"name_or_folder={name_or_folder!r} must be a name or a path")
    data = _load(name_or_folder, root, download, size, channels)
    if min(data.shape[1:]) < SMALLEST_SIDE:
        shown = " x ".join(map(str, data.shape[1:]))
        raise UsageError(
            f"name_or_folder={str(name_or_folder)!r} has images of {shown} pixels; pass size={SMALLEST_SIDE} or more"
        )
    return data


def _load(
    name_or_folder: str | Path, root: str | Path | None, download: bool, size: int | None, channels: int | None
) -> ImageData:
    name = str(name_or_folder)
    if name.startswith(PREFIX):
        return load_hub(name, root, download, size, channels)
    if are_shards(name):
        return load_shards(name, size, channels)
    if name in _EMBEDDED:
        return from_arrays(name, _EMBEDDED[name](), size, channels, CATALOG[name].flip, CATALOG[name].metric)
    if name in CATALOG:
        return load_named(CATALOG[name], data_root(root), download, size, channels)
    folder = expanded(name_or_folder, "name_or_folder")
    if folder.is_dir():
        task = read_folder(folder)
        read = from_arrays if isinstance(task, Arrays) else from_files
        return read(printable(folder.resolve().name), task, size, channels)
    if folder.exists():
        raise UsageError(f"name_or_folder={name!r} is a file; pass the folder that contains train/ and test/")
    if os.sep in name or name.startswith("."):
        raise UsageError(f"name_or_folder={name!r} does not exist; create it with train/<class>/ and test/<class>/")
    near = get_close_matches(name, CATALOG, 1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    raise UsageError(
        f"name_or_folder={name!r} is neither a folder nor a data set known by name{meant}; the known ones are "
        f"{', '.join(CATALOG)}"
    )


def absolute(name_or_folder: str) -> str:
    """The argument of :func:`load_dataset` that means the same from any working folder.

    >>> absolute("digits"), absolute("hf:owner/name"), absolute("/a/train-*.tar::/b/test-*.tar")
    ('digits', 'hf:owner/name', '/a/train-*.tar::/b/test-*.tar')
    """
    if printable(name_or_folder) != name_or_folder:
        raise UsageError(
            f"name_or_folder={name_or_folder!r} has characters that are not text, so a run could not name its data; "
            "rename it"
        )
    if name_or_folder in CATALOG:
        return name_or_folder
    if name_or_folder.startswith(PREFIX):
        name, mark, query = name_or_folder.removeprefix(PREFIX).partition("?")
        folder = Path(name).expanduser()
        return f"{PREFIX}{folder.resolve() if folder.is_dir() else name}{mark}{query}"
    return "::".join(str(expanded(part, "name_or_folder").resolve()) for part in name_or_folder.split("::"))


def _fashion_mini() -> Arrays:
    with resources.files("waterbed.data").joinpath("embedded/fashion_mini.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        train = arrays["train_images"], arrays["train_labels"]
        test = arrays["test_images"], arrays["test_labels"]
    return Arrays(train, test, _FASHION_CLASSES)


def _digits() -> Arrays:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    x_train, x_test, y_train, y_test = train_test_split(
        images, bunch.target, test_size=360, stratify=bunch.target, random_state=0
    )
    return Arrays((x_train, y_train), (x_test, y_test), tuple("0123456789"))


_FASHION_CLASSES = tuple(
    ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
)
_EMBEDDED: dict[str, Callable[[], Arrays]] = {"fashion-mini": _fashion_mini, "digits": _digits}
