"""load_dataset("hf:owner/name"): a data set of the Hugging Face Hub, or a folder that ``datasets`` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch

from waterbed.data.columns import as_images, choose_splits
from waterbed.data.folders import in_memory_if_small
from waterbed.data.images import ImageData, check_labels
from waterbed.data.task import class_names
from waterbed.errors import UsageError, check_choice

PREFIX = "hf:"
INSTALL = "pip install 'waterbed[hf]'"
OPTIONS = ("config", "train", "test", "image", "label")


def load_hub(
    address: str, root: str | Path | None, download: bool, size: int | None, channels: int | None
) -> ImageData:
    """``hf:owner/name?config=NAME&train=NAME&test=NAME&image=NAME&label=NAME``; see :func:`waterbed.load_dataset`."""
    name, _, query = address.removeprefix(PREFIX).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        check_choice(f"the option of {address!r}", option, OPTIONS)
    if not name:
        raise UsageError(f"name_or_folder={address!r} names no data set; write {PREFIX}owner/name")
    splits = _splits(name, options.get("config"), root, download)
    chosen = choose_splits(splits, address, options.get("train"), options.get("test"))
    columns = options.get("image"), options.get("label")
    joint = "&" if query else "?"
    train, test = (
        as_images(splits[split], address, *columns, lambda kind, column, _: f"{address}{joint}{kind}={column}")
        for split in chosen
    )
    for split, images in zip(chosen, (train, test), strict=True):
        if len(images) == 0:
            raise UsageError(f"{address} has no images in its split {split!r}; name another")
    train.size, train.channels = size, channels
    train.take_shape(None)
    test.size, test.channels = train.size, train.channels
    shape = tuple(train.decode(0).shape)
    classes = class_names(train, test, torch.cat([train.labels, test.labels]))
    for split, images in zip(chosen, (train, test), strict=True):
        check_labels(images.labels, len(classes), f"{address} ({split})")
    train, test = in_memory_if_small(name, train, test, shape)
    return ImageData(name, train, test, classes)


def _splits(name: str, config: str | None, root: str | Path | None, download: bool) -> Mapping[str, Any]:
    """The splits by name."""
    try:
        import datasets
    except ImportError as error:
        raise UsageError(f"name_or_folder='{PREFIX}{name}' needs the package datasets: {INSTALL}") from error
    folder = Path(name).expanduser()
    cache = None if root is None else str(Path(root).expanduser())
    try:
        if (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(folder))
        with nullcontext() if download else _offline(datasets):
            return datasets.load_dataset(str(folder) if folder.is_dir() else name, config, cache_dir=cache)
    except Exception as error:  # of the package, of Arrow or of the network
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        if folder.is_dir():
            advice = "name a folder that datasets.load_dataset reads or DatasetDict.save_to_disk wrote"
        elif "config" in reason.lower():
            advice = f"name a configuration: {PREFIX}{name}?config=NAME"
        elif download:
            advice = "check the name and the network"
        else:
            advice = "pass download=True to fetch it"
        place = "" if cache is None else f" in root={cache!r}"
        raise UsageError(f"name_or_folder='{PREFIX}{name}' is not to be read{place} ({reason}); {advice}") from error


@contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """No request leaves this machine inside the block, and the package does not warn that none did."""
    before, verbosity = datasets.config.HF_HUB_OFFLINE, datasets.logging.get_verbosity()
    datasets.config.HF_HUB_OFFLINE = True
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
        datasets.logging.set_verbosity(verbosity)
