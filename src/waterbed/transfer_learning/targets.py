"""Target tasks in the image shape of a network."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from waterbed.data import load_dataset
from waterbed.errors import UsageError


def load_for(model: nn.Module, name_or_folder: str | Path, root: str | Path | None = None) -> Any:
    """``load_dataset`` in the image size and channels that ``model`` was trained with."""
    return target_loader(root)(model, name_or_folder)


def target_loader(root: str | Path | None = None) -> Callable[[nn.Module, str | Path], Any]:
    """:func:`load_for` that reads a set once for all networks of one image shape."""

    @cache
    def load(name_or_folder: str | Path, shape: tuple[int, int, int] | None) -> Any:
        size = {} if shape is None else {"size": shape[1], "channels": shape[0]}
        return load_dataset(name_or_folder, root, **size)

    def load_in_its_shape(model: nn.Module, name_or_folder: str | Path) -> Any:
        shape = getattr(model, "input_shape", None)
        if shape is not None and shape[1] != shape[2]:
            raise UsageError(f"model.input_shape={shape} is not square; load the target yourself and pass it as data")
        return load(name_or_folder, shape)

    return load_in_its_shape
