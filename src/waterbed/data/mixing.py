"""Mixtures of images and of their labels: mixup, cutmix, label smoothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2


class LabelSettings(Protocol):
    """What :func:`mixing` reads of a :class:`~waterbed.training.config.TrainConfig`."""

    mixup: float
    cutmix: float
    label_smoothing: float


def mixing(settings: LabelSettings, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What mixup, cutmix and label smoothing make of a batch (N, C, H, W) with its labels (N,).

    Mixup and cutmix draw one share for the whole batch, as is usual, and mix each image with its neighbour; with both,
    every batch gets one of them. If any of the three is set, the labels become probabilities (N, num_classes).

    >>> from waterbed.training.config import TrainConfig
    >>> import torch
    >>> mixing(TrainConfig(label_smoothing=0.1), 2)(torch.rand(1, 1, 4, 4), torch.tensor([1]))[1]
    tensor([[0.0500, 0.9500]])
    """
    kinds = [
        kind(alpha=alpha, num_classes=num_classes)
        for kind, alpha in ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
        if alpha
    ]
    smoothing = settings.label_smoothing

    def mixed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if kinds:
            x, y = v2.RandomChoice(kinds)(x, y)
        if smoothing:
            share = y if y.ndim == 2 else F.one_hot(y, num_classes)
            y = (1 - smoothing) * share + smoothing / num_classes
        return x, y

    return mixed
