"""Random changes of training images, drawn for each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Subset
from torchvision.transforms import v2

from waterbed.data.images import check_images
from waterbed.errors import UsageError, UsageTypeError
from waterbed.own_code import import_function, names_own_code

# Principal components of the colours of ImageNet: standard deviations, and directions (RGB, component). Krizhevsky et
# al. (2012), "ImageNet classification with deep convolutional neural networks", sec. 4.1.
COLOUR_DEVIATIONS = (0.2175, 0.0188, 0.0045)
COLOUR_DIRECTIONS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue in grey, as torchvision has it
RANDAUGMENT_OPERATIONS = 2
READ_EVERY = 50  # batches, on a device where reading a value waits for all work

Change = Callable[[Tensor], Tensor]


class ImageSettings(Protocol):
    """What :func:`augmentation` reads of a :class:`~waterbed.training.config.TrainConfig`, where each is explained."""

    augment: str | Change
    randaugment: int
    color_jitter: float
    rotation: float
    lighting: float


@dataclass(frozen=True)
class Augmentation:
    """The change of batches (N, C, H, W) of training images.

    Attributes:
        images: the data set to draw the batches from: that of the task, or one that crops whole pictures at random as
            their files are decoded.
    """

    images: Any
    changes: tuple[Change, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for change in self.changes:
            x = change(x)
        return x


def augmentation(settings: ImageSettings, data: Any) -> Augmentation:
    """The change of batches (N, C, H, W) in [0, 1] that the settings ask for; each image gets draws of its own.

    First what ``augment`` names ("auto" flips where ``data.flip`` is true: a mirrored image keeps its class, unlike a
    digit) or your own transform of one image (C, H, W), itself or as "package.module:function", then RandAugment,
    colour jitter, rotation and lighting noise. All draws come from torch's generators, so a seed or a saved state
    determines them. A resized crop of an image file is taken from the whole picture, of other data from images as they
    are.

    Raises:
        UsageError: changes of colours, for images that are neither grey nor RGB; a function of your own that cannot be
            imported; later, what your own transform
            returns is not like its image, or leaves [0, 1].

    >>> from waterbed.training.config import TrainConfig
    >>> augmentation(TrainConfig(augment="none", color_jitter=0.25), data=None)(torch.rand(2, 1, 4, 4)).shape
    torch.Size([2, 1, 4, 4])
    """
    images, changes = getattr(data, "train", None), _of_positions(settings.augment, data)
    if random_resized_crop in changes:
        cropped = _cropped(images, v2.RandomResizedCrop(data.shape[-2:], antialias=True))
        if cropped is not None:
            images = cropped
            changes.remove(random_resized_crop)
    if settings.randaugment:
        changes.append(for_each(v2.RandAugment(RANDAUGMENT_OPERATIONS, settings.randaugment)))
    if settings.color_jitter:
        changes.append(partial(color_jitter, strength=settings.color_jitter))
    if settings.rotation:
        changes.append(lambda x: rotate(x, settings.rotation * (2 * torch.rand(len(x), device=x.device) - 1)))
    if settings.lighting:
        changes.append(partial(lighting_noise, deviation=settings.lighting))
    _check_channels(settings, data)
    return Augmentation(images, tuple(changes))


def _cropped(dataset: Any, crop: Change) -> Any:
    """The data set with ``crop`` of its whole pictures; None if it has none, only images of one size."""
    if type(dataset) is Subset:
        whole = _cropped(dataset.dataset, crop)
        return None if whole is None else Subset(whole, dataset.indices)
    return dataset.cropped_by(crop) if hasattr(dataset, "cropped_by") else None


def _of_positions(augment: str | Change, data: Any) -> list[Change]:
    """The changes of ``augment``: by name, or the user's own."""
    if callable(augment):
        return [OwnTransform(augment)]
    if names_own_code(augment):
        return [OwnTransform(import_function("augment", augment), augment)]
    if augment == "auto":
        augment = "crop-flip" if getattr(data, "flip", False) else "crop"
    known = {"crop": random_crop, "resized-crop": random_resized_crop, "flip": random_flip}
    named = {
        "none": (),
        "flip": ("flip",),
        "crop": ("crop",),
        "crop-flip": ("crop", "flip"),
        "resized-crop-flip": ("resized-crop", "flip"),
    }
    return [known[name] for name in named[augment]]


def _check_channels(settings: ImageSettings, data: Any) -> None:
    """Raise unless the images have the colours that the settings change."""
    channels = data.shape[0] if hasattr(data, "shape") else 3
    for name, allowed in (("randaugment", (1, 3)), ("color_jitter", (1, 3)), ("lighting", (3,))):
        if getattr(settings, name) and channels not in allowed:
            raise UsageError(
                f"{name}={getattr(settings, name)!r} changes colours of {'grey or ' * (1 in allowed)}RGB images, and "
                f"these have {channels} channel{'s' * (channels != 1)}; leave it out"
            )


def random_crop(x: Tensor) -> Tensor:
    """Shift each image (N, C, H, W) by up to an eighth of its shorter side: pad with black, then crop at random.

    >>> random_crop(torch.rand(4, 1, 8, 8)).shape
    torch.Size([4, 1, 8, 8])
    """
    n, _, height, width = x.shape
    pad = max(1, min(height, width) // 8)
    padded = F.pad(x, (pad,) * 4)
    top, left = (torch.randint(0, 2 * pad + 1, (n, 1), device=x.device) for _ in range(2))
    rows = (top + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (left + torch.arange(width, device=x.device))[:, None, None, :]
    images = torch.arange(n, device=x.device)[:, None, None, None]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[images, channels, rows, columns]


def random_flip(x: Tensor) -> Tensor:
    """Mirror each image (N, C, H, W) left to right with probability one half.

    >>> random_flip(torch.zeros(4, 1, 8, 8)).shape
    torch.Size([4, 1, 8, 8])
    """
    mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


def random_resized_crop(x: Tensor) -> Tensor:
    """From each image (N, C, H, W) a part of 8 to 100 % of its area and of aspect ratio 3/4 to 4/3, at the size of x.

    >>> random_resized_crop(torch.rand(4, 1, 8, 8)).shape
    torch.Size([4, 1, 8, 8])
    """
    return for_each(v2.RandomResizedCrop(x.shape[-2:], antialias=True))(x)


def color_jitter(x: Tensor, strength: float) -> Tensor:
    """Brightness, contrast and saturation of each image (N, C, H, W), in an order drawn for it, times 1 ± strength.

    As ``torchvision.transforms.v2.ColorJitter`` of three equal strengths does image by image, but all images at once.

    >>> color_jitter(torch.full((4, 3, 8, 8), 0.5), 0.25).shape
    torch.Size([4, 3, 8, 8])
    """
    n = len(x)
    factors = (1 + strength * (2 * torch.rand(n, 3, device=x.device, dtype=x.dtype) - 1)).clamp_min(0)
    order = torch.rand(n, 3, device=x.device).argsort(1)
    return jittered(x, factors, order)


def jittered(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Images (N, C, H, W) with brightness, contrast and saturation times ``factors`` (N, 3), applied in the ``order``
    (N, 3) of these indices.

    >>> float(jittered(torch.full((1, 1, 2, 2), 0.5), torch.tensor([[1.2, 1.0, 1.0]]), torch.tensor([[0, 1, 2]])).max())
    0.6000000238418579
    """
    for kind in order.T:
        # Each blends the image with another: with black, with its mean grey, with itself in grey.
        grey = x if x.shape[1] == 1 else (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
        other = _choose(kind, torch.zeros_like(grey), grey.mean((1, 2, 3), keepdim=True), grey)
        factor = factors.gather(1, kind[:, None])[:, :, None, None]
        x = (factor * x + (1 - factor) * other).clamp(0, 1)
    return x


def _choose(kind: Tensor, *options: Tensor) -> Tensor:
    """For each image (N, ...) the option of its kind (N,)."""
    kind = kind[:, None, None, None]
    return torch.where(kind == 0, options[0], torch.where(kind == 1, options[1], options[2]))


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Each image (N, C, H, W) turned counterclockwise about its centre by ``degrees`` (N,): nearest pixels, black
    corners.

    >>> rotate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([90.0]))
    tensor([[[[2., 4.],
              [1., 3.]]]])
    """
    height, width = x.shape[-2:]
    angle = torch.deg2rad(degrees.to(x.dtype))
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Where each pixel comes from, in coordinates that run from -1 to 1 along both sides.
    rows = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="nearest", align_corners=False)


def lighting_noise(x: Tensor, deviation: float) -> Tensor:
    """The colours of each image (N, 3, H, W) shifted along the principal components of ImageNet's, then clamped.

    The shift along each is normal, of standard deviation ``deviation`` times that component's own.

    >>> lighting_noise(torch.full((4, 3, 8, 8), 0.5), 0.05).shape
    torch.Size([4, 3, 8, 8])
    """
    along = deviation * torch.randn(len(x), 3, device=x.device, dtype=x.dtype) * x.new_tensor(COLOUR_DEVIATIONS)
    return (x + (along @ x.new_tensor(COLOUR_DIRECTIONS).T)[:, :, None, None]).clamp(0, 1)


def for_each(transform: Change) -> Change:
    """Apply a transform of single images to every image of a batch: given a whole batch, torchvision's transforms would
    draw once for all of it."""
    return lambda x: torch.stack([transform(image) for image in x])


class OwnTransform:
    """A user's transform of one image (C, H, W), applied to each of a batch; what it returns is checked.

    >>> OwnTransform(v2.RandomInvert())(torch.rand(4, 1, 8, 8)).shape
    torch.Size([4, 1, 8, 8])
    """

    def __init__(self, transform: Change, name: str | None = None) -> None:
        """``name``: what messages call it."""
        self.transform, self.name, self._batches = transform, name or transform, 0

    def __call__(self, x: Tensor) -> Tensor:
        images = [self.transform(image) for image in x]
        for image in images:
            self._check_like(image, x[0])
        changed = torch.stack(images)
        if x.device.type == "cpu" or self._batches % READ_EVERY == 0:
            check_images(changed, "what augment= returned")
        self._batches += 1
        return changed

    def _check_like(self, changed: Any, image: Tensor) -> None:
        if not isinstance(changed, Tensor):
            raise UsageTypeError(
                f"augment={self.name!r} returned {type(changed).__name__} for an image; return a tensor like it"
            )
        if (changed.shape, changed.dtype, changed.device) != (image.shape, image.dtype, image.device):
            got, given = (f"{t.dtype} {tuple(t.shape)} on {t.device}" for t in (changed, image))
            raise UsageError(f"augment={self.name!r} returned {got} for an image {given}; return one like it")
