"""A batch of the examples that a user's own data set gives."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate

from waterbed.errors import UsageError, UsageTypeError

RESIZING = "Compose([Resize(64), CenterCrop(64), ToTensor()])"


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
        raise UsageTypeError(
            f"data must give pairs (image, label), not {what}; write TensorDataset(images, labels), or wrap the data "
            "set in one that does"
        )
    image, label = sample
    if not isinstance(image, Tensor | np.ndarray):
        advice = f"pass its data set transform={RESIZING}" if hasattr(image, "getbands") else "make them tensors"
        raise UsageTypeError(
            f"data has images of type {type(image).__module__}.{type(image).__name__}, not float tensors (C, H, W) in "
            f"[0, 1]; {advice}"
        )
    if not isinstance(label, Number | Tensor | np.generic | np.ndarray):
        raise UsageTypeError(f"data has the label {label!r}; labels are whole numbers from 0: number the classes")
