"""A data set that is read by index, of what a user passes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from waterbed.data.columns import as_images, is_table
from waterbed.errors import UsageError, UsageTypeError


def map_style(dataset: Any, argument: str = "dataset", shape: Sequence[int] | None = None) -> Any:
    """A data set that is read by index; of a ``DataLoader`` the one it draws from, of a Hugging Face ``Dataset``
    its columns of images and labels, decoded to the shape (C, H, W), else to one that suits them, and of a pair of
    tensors or arrays (images (N, C, H, W), labels (N,)) the data set that they are.

    Warns where the loader draws other examples, or other batches of them, than its data set has.

    Raises:
        UsageTypeError: there is no length or no access by index.
        UsageError: a table in which columns cannot be told; more images than labels.

    >>> map_style(DataLoader([(0, 1), (2, 3)], shuffle=True))
    [(0, 1), (2, 3)]
    """
    if isinstance(dataset, DataLoader):
        lost = _lost(dataset)
        if lost:
            warnings.warn(
                f"{argument}: of a DataLoader its dataset is read, all of it and in an order of ours; its "
                f"{' and '.join(lost)} {'has' if len(lost) == 1 else 'have'} no effect here",
                stacklevel=3,
            )
        dataset = dataset.dataset
    if is_table(dataset):
        dataset = as_images(dataset, argument)
        if hasattr(dataset, "take_shape") and len(dataset):
            dataset.take_shape(shape)
    if isinstance(dataset, str):
        raise UsageTypeError(f"{argument}={dataset!r} is a name; take train or test of load_dataset({dataset!r})")
    if isinstance(dataset, tuple | list) and len(dataset) == 2 and isinstance(dataset[0], Tensor | np.ndarray):
        images, labels = map(torch.as_tensor, dataset)
        if len(images) != len(labels):
            raise UsageError(f"{argument} has {len(images)} images and {len(labels)} labels; pass as many of both")
        dataset = TensorDataset(images, labels)
    by_index = hasattr(dataset, "__len__") and (hasattr(dataset, "__getitem__") or hasattr(dataset, "batch"))
    if isinstance(dataset, IterableDataset | dict) or not by_index:
        raise UsageTypeError(
            f"{argument}={type(dataset).__name__} must be a map-style data set, with a length and examples by index, "
            "such as data.test or TensorDataset(images, labels); WebDataset shards are named to load_dataset"
        )
    return dataset


def _lost(loader: DataLoader) -> list[str]:
    """What a loader does to its data set beside putting examples of it together, each once."""
    lost = []
    sampler = loader.sampler
    drawn_once = isinstance(sampler, RandomSampler) and not sampler.replacement
    every = type(sampler) is SequentialSampler or (drawn_once and len(sampler) == len(loader.dataset))
    if not isinstance(loader.dataset, IterableDataset) and not every:
        lost.append(f"sampler ({type(sampler).__name__})")
    if loader.batch_size is None and loader.batch_sampler is not None:
        lost.append(f"batch_sampler ({type(loader.batch_sampler).__name__})")
    if loader.batch_size is not None and loader.collate_fn is not default_collate:
        lost.append("collate_fn")
    return lost


def base_of(dataset: Any) -> Any:
    """The data set that a subset was taken from."""
    return base_of(dataset.dataset) if isinstance(dataset, Subset) else dataset


def names_of(dataset: Any) -> tuple[str, ...] | None:
    """The names of the classes that a data set knows, or None.

    >>> import waterbed as wb
    >>> names_of(wb.load_dataset("fashion-mini").test)[:2]
    ('T-shirt', 'Trouser')
    """
    base = base_of(dataset)
    names = None if getattr(base, "target_transform", None) else getattr(base, "classes", None)
    return tuple(str(name) for name in names) if isinstance(names, list | tuple) else None
