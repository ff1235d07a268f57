"""What a user's own data set gives: examples that can be read by index, and a batch of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate

from waterbed.errors import UsageError, UsageTypeError

RESIZING = "Compose([Resize(64), CenterCrop(64), ToTensor()])"


def map_style(dataset: Any, argument: str = "dataset") -> Any:
    """A data set that is read by index; of a ``DataLoader`` the one it draws from.

    Warns where the loader draws other examples, or other batches of them, than its data set has.

    Raises:
        UsageTypeError: there is no length or no access by index.

    >>> map_style(DataLoader([(0, 1), (2, 3)], shuffle=True))
    [(0, 1), (2, 3)]
    """
    if isinstance(dataset, DataLoader):
        lost = _lost(dataset)
        if lost:
            warnings.warn(
                f"{argument}: of a DataLoader its dataset is read, all of it and in an order of ours; its "
                f"{' and '.join(lost)} have no effect here",
                stacklevel=3,
            )
        dataset = dataset.dataset
    by_index = hasattr(dataset, "__len__") and (hasattr(dataset, "__getitem__") or hasattr(dataset, "batch"))
    if isinstance(dataset, IterableDataset | dict | str) or not by_index:
        raise UsageTypeError(
            f"{argument}={type(dataset).__name__} must be a map-style data set, with a length and examples by index, "
            "such as data.test or TensorDataset(images, labels)"
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


def collate(samples: Sequence[Any]) -> list[Tensor]:
    """The batch (images, labels) of pairs (image, label).

    Raises:
        UsageTypeError: an example that is no such pair, or whose image is no tensor.
        UsageError: images of several shapes.

    >>> collate([(np.zeros((1, 2, 2)), 3), (np.ones((1, 2, 2)), 4)])[1]
    tensor([3, 4])
    """
    for sample in samples:
        _check_pair(sample)
    first = tuple(samples[0][0].shape)
    for image, _ in samples:
        if tuple(image.shape) != first:
            raise UsageError(
                f"data has images of several sizes, such as {first} and {tuple(image.shape)}; give its data set a "
                f"transform that makes them one, such as {RESIZING}"
            )
    return default_collate(list(samples))


def _check_pair(sample: Any) -> None:
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        what = f"{type(sample).__name__} of length {len(sample)}" if hasattr(sample, "__len__") else repr(sample)
        raise UsageTypeError(f"data must give pairs (image, label), not {what}; wrap the data set in one that does")
    image, label = sample
    if not isinstance(image, Tensor | np.ndarray):
        advice = f"pass its data set transform={RESIZING}" if hasattr(image, "getbands") else "make them tensors"
        raise UsageTypeError(
            f"data has images of type {type(image).__module__}.{type(image).__name__}, not float tensors (C, H, W) in "
            f"[0, 1]; {advice}"
        )
    if not isinstance(label, Number | Tensor | np.generic | np.ndarray):
        raise UsageTypeError(f"data has the label {label!r}; labels are whole numbers from 0: number the classes")
