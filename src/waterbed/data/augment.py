"""Random crops and flips on whole batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def augmentation(name: str, data: Any) -> Callable[[Tensor], Tensor]:
    """The augmentation of batches (N, C, H, W) by name: "auto", "crop-flip", "crop" or "none".

    "auto" crops, and also flips if ``data.flip`` is true: a mirrored image keeps its class, unlike a digit.

    >>> augmentation("none", data=None)(torch.ones(2, 1, 4, 4)).shape
    torch.Size([2, 1, 4, 4])
    """
    if name == "auto":
        name = "crop-flip" if getattr(data, "flip", False) else "crop"
    if name == "none":
        return lambda x: x
    if name == "crop":
        return random_crop
    return lambda x: random_flip(random_crop(x))


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
