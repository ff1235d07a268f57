"""Image data sets, in memory or decoded from files on access, and batches of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms.v2 import functional as tvf

from waterbed.data.decoding import read_image
from waterbed.data.samples import collate
from waterbed.devices import seeded_generator
from waterbed.errors import UsageError, UsageTypeError, check_count

LARGEST_PICTURE = 2**27  # pixels, of a resized one before it is cropped


@dataclass(frozen=True)
class ImageData:
    """A classification task: two map-style data sets of ``(float32 (C, H, W) in [0, 1], int)``.

    Attributes:
        flip: whether a mirrored image keeps its class; ``fit`` augments accordingly.
        metric: the accuracy customarily reported for these data, "top-1" or "mean per-class".

    >>> data = TensorImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    >>> task = ImageData("stripes", data, data, ("horizontal", "vertical"))
    >>> task.num_classes, task.shape, len(task.take(train=3, test=2).train)
    (2, (1, 8, 8), 3)
    """

    name: str
    train: Dataset
    test: Dataset
    classes: tuple[str, ...]
    flip: bool = False
    metric: str = "top-1"

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        return tuple(self.train[0][0].shape)

    def take(self, train: int, test: int, seed: int = 0) -> ImageData:
        """The task with at most ``train`` and ``test`` images, drawn with ``seed`` and kept in order."""
        check_count("train", train)
        check_count("test", test)

        def part(dataset: Dataset, count: int) -> Dataset:
            if count >= len(dataset):
                return dataset
            indices = torch.randperm(len(dataset), generator=seeded_generator(seed))[:count].sort().values
            if isinstance(dataset, TensorImages):
                return TensorImages(dataset.images[indices], dataset.labels[indices], dataset.classes)
            return Subset(dataset, indices.tolist())

        return replace(self, train=part(self.train, train), test=part(self.test, test))


class TensorImages(Dataset):
    """Images in memory: ``images`` uint8 (N, C, H, W), ``labels`` int64 (N,), and the names of the classes if known.

    >>> data = TensorImages(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    >>> data[1][0].shape, data[1][1]
    (torch.Size([1, 4, 4]), 1)
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: tuple[str, ...] | None = None) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(labels):
            raise UsageError(
                f"images {images.dtype} {tuple(images.shape)} and labels {tuple(labels.shape)} must be "
                "uint8 (N, C, H, W) and (N,)"
            )
        self.images, self.labels, self.classes = images, labels.long(), classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index].float() / 255, int(self.labels[index])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The examples at ``indices`` (B,): float32 (B, C, H, W) in [0, 1] and int64 (B,), without a loop in Python."""
        return self.images[indices].float() / 255, self.labels[indices]


class OnDevice(Dataset):
    """The images of a :class:`TensorImages` as bytes on a device, where batches are drawn; labels stay on the CPU.

    >>> data = TensorImages(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    >>> OnDevice(data, torch.device("cpu")).read_pixels(torch.tensor([1]))[1]
    tensor([1])
    """

    def __init__(self, data: TensorImages, device: torch.device) -> None:
        self.images, self.labels = data.images.to(device), data.labels

    def __len__(self) -> int:
        return len(self.labels)

    def read_pixels(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The examples at ``indices`` (B,): uint8 (B, C, H, W) on the device, and int64 (B,)."""
        return self.images[indices.to(self.images.device, non_blocking=True)], self.labels[indices]


class FolderImages(Dataset):
    """Image files decoded on access: RGB or grey, resized and centre-cropped to ``size`` x ``size`` pixels."""

    def __init__(
        self,
        files: list[tuple[Path, int]],
        channels: int,
        size: int | None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        self.files, self.channels, self.size, self.classes = files, channels, size, classes
        self.labels = torch.tensor([label for _, label in files])
        self.crop: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.decode(index).float() / 255, self.files[index][1]

    def read_pixels(self, indices: Tensor) -> list[Tensor]:
        """The examples at ``indices`` (B,): uint8 (B, C, H, W) and int64 (B,)."""
        return collate([(self.decode(i), self.files[i][1]) for i in indices.tolist()])

    def decode(self, index: int) -> Tensor:
        """One file as uint8 (C, H, W); :class:`UsageError` if it is not an image."""
        path = self.files[index][0]
        picture = read_image(path, self.channels)
        return adapt(picture if self.crop is None else self.crop(picture), self.size, self.channels, str(path))

    def cropped_by(self, crop: Callable[[Tensor], Tensor]) -> FolderImages:
        """The same files, each whole picture (uint8 (C, H, W)) changed by ``crop`` when it is decoded."""
        images = copy(self)
        images.crop = crop
        return images


def adapt(images: Tensor, size: int | None, channels: int | None, name: str = "images") -> Tensor:
    """Resize (antialiased; short side, then a centre crop) and convert between grey and RGB.

    Args:
        images: (..., C, H, W), uint8 or float.
        size: side of the square output in pixels, or None to keep the size.
        channels: 1 (grey), 3 (RGB), or None to keep them. Grey from RGB is the ITU-R 601 luma.
        name: of the images in messages.

    Raises:
        UsageError: the sides are so unequal that the resized image would have more than 2^27 pixels.

    >>> adapt(torch.zeros(2, 1, 8, 6, dtype=torch.uint8), size=4, channels=3).shape
    torch.Size([2, 3, 4, 4])
    """
    if size is not None and tuple(images.shape[-2:]) != (size, size):
        short, long = sorted(images.shape[-2:])
        if size * (size * long // short) > LARGEST_PICTURE:
            raise UsageError(
                f"{name!r} of {images.shape[-2]} x {images.shape[-1]} pixels would become {size} x "
                f"{size * long // short} before it is cropped; crop or remove it"
            )
        images = tvf.center_crop(tvf.resize(images, [size], antialias=True), [size, size])
    if channels is not None and images.shape[-3] != channels:
        images = tvf.rgb_to_grayscale(images, num_output_channels=1) if channels == 1 else grey_to_rgb(images)
    return images


def grey_to_rgb(images: Tensor) -> Tensor:
    """(..., 1, H, W) -> (..., 3, H, W) by repetition.

    >>> grey_to_rgb(torch.zeros(2, 1, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """
    return images.expand(*images.shape[:-3], 3, *images.shape[-2:]).contiguous()


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1], floats as float32; the same bits on every device.

    >>> to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    if images.dtype != torch.uint8:
        return images.float()
    # Not by the number 255: CUDA multiplies by its rounded inverse.
    return images.float() / torch.full((), 255.0, device=images.device)


def check_images(images: Any, argument: str) -> None:
    """Raise unless ``images`` is a float tensor (N, C, H, W), finite and within [0, 1].

    >>> check_images(torch.full((1, 1, 2, 2), 255.0), "images")
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: images has values from 255 to 255; pixels lie in [0, 1]: divide 8-bit values by 255
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        advice = "; divide it by 255" if got is torch.uint8 else ""
        raise UsageTypeError(f"{argument} must be a float tensor (N, C, H, W) in [0, 1], not {got}{advice}")
    if images.ndim != 4 or images.numel() == 0:
        raise UsageError(f"{argument} has shape {tuple(images.shape)}; pass a non-empty (N, C, H, W)")
    low, high = (float(v) for v in images.aminmax())
    if not (low >= 0 and high <= 1):  # also false for NaN
        advice = "divide 8-bit values by 255" if low >= 0 else "leave normalisation to the model (mean= and std=)"
        advice = "remove the NaN" if low != low or high != high else advice
        raise UsageError(f"{argument} has values from {low:.4g} to {high:.4g}; pixels lie in [0, 1]: {advice}")


def check_labels(labels: Any, num_classes: int, argument: str) -> None:
    """Raise unless ``labels`` (N,) are integers from 0 to ``num_classes - 1``."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.ndim != 1:
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise UsageTypeError(f"{argument} must have integer labels (N,), not {got}")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise UsageError(
            f"{argument} has labels from {int(labels.min())} to {int(labels.max())}; with "
            f"num_classes={num_classes} they lie in 0 .. {num_classes - 1}: renumber them or raise num_classes"
        )


def check_data(data: Any) -> None:
    """Raise unless ``data`` has train, test, classes, num_classes, shape and name, and at least two classes."""
    missing = [a for a in ("train", "test", "classes", "num_classes", "shape", "name") if not hasattr(data, a)]
    if missing:
        raise UsageTypeError(
            f"data={type(data).__name__} lacks {', '.join(missing)}; pass what load_dataset returns or an object "
            "with train, test, classes, num_classes, shape and name"
        )
    if data.num_classes < 2:
        raise UsageError(f"data {data.name!r} has num_classes={data.num_classes}; a classifier needs two or more")
    for split in ("train", "test"):
        if len(getattr(data, split)) == 0:
            raise UsageError(f"data {data.name!r} has no {split} images; add some")
