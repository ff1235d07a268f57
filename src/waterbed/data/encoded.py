"""Encoded images (JPEG, PNG, ...) that are decoded on access, and the shape that makes images of several sizes one."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from statistics import median

import torch
from torch import Tensor
from torch.utils.data import Dataset

from waterbed.data.decoding import header, read_image
from waterbed.data.images import adapt
from waterbed.data.samples import collate
from waterbed.errors import UsageWarning

PROBED = 200  # headers read to find the shape of images in a table or in shards
LARGEST_DEFAULT_SIZE = 224


class EncodedImages(Dataset, ABC):
    """Base of data sets whose images are bytes of files: uint8 once decoded, resized and centre-cropped to ``size``.

    Attributes:
        labels: int64 (N,).
        classes: the names of the classes, or None if they have none.
        size: side of the square images; None keeps their size.
        channels: 1 or 3; None keeps grey images grey.
    """

    labels: Tensor
    classes: tuple[str, ...] | None
    size: int | None = None
    channels: int | None = None
    crop: Callable[[Tensor], Tensor] | None = None

    @abstractmethod
    def content(self, index: int) -> tuple[str, bytes]:
        """The name of an image, for messages, and its bytes."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.decode(index).float() / 255, int(self.labels[index])

    def read_pixels(self, indices: Tensor) -> list[Tensor]:
        """The examples at ``indices`` (B,): uint8 (B, C, H, W) and int64 (B,)."""
        return collate([(self.decode(i), self.labels[i]) for i in indices.tolist()])

    def decode(self, index: int) -> Tensor:
        """One image as uint8 (C, H, W); :class:`UsageError` if it is not one."""
        name, content = self.content(index)
        picture = read_image(name, self.channels, content)
        return adapt(picture if self.crop is None else self.crop(picture), self.size, self.channels, name)

    def cropped_by(self, crop: Callable[[Tensor], Tensor]) -> EncodedImages:
        """The same images, each whole picture (uint8 (C, H, W)) changed by ``crop`` when it is decoded."""
        images = copy(self)
        images.crop = crop
        return images

    def take_shape(self, shape: Sequence[int] | None) -> None:
        """Decode to images of the shape (C, H, W) from now on; if it is None, to one that suits those that are here."""
        if shape is not None:
            self.channels, self.size = shape[0], shape[1] if shape[1] == shape[2] else None
            return
        chosen = torch.linspace(0, len(self) - 1, min(PROBED, len(self))).long().tolist()
        headers = [header(*self.content(i)) for i in chosen]
        self.channels = self.channels or (1 if all(grey for grey, _ in headers) else 3)
        self.size = self.size or common_size([size for _, size in headers])


def common_size(sizes: Sequence[tuple[int, int]]) -> int | None:
    """The side of the squares that images of these sizes (H, W), one for each, become by default: the median of their
    short sides, or 224 if that is less; None if all have one size.

    >>> common_size([(32, 32)])
    >>> with warnings.catch_warnings(action="ignore"):
    ...     common_size([(40, 30), (30, 50), (90, 80)])
    30
    """
    (h, w), (h2, w2) = min(sizes), max(sizes)
    if (h, w) == (h2, w2):
        return None
    size = min(LARGEST_DEFAULT_SIZE, int(median(map(min, sizes))))
    warnings.warn(
        f"the images have several sizes, such as {h} x {w} and {h2} x {w2}; all are resized and cropped to {size} x "
        f"{size}: pass size={size} to say so, or another size",
        UsageWarning,
        stacklevel=3,
    )
    return size
