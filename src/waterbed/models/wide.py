"""The residual networks of most published robust checkpoints for CIFAR: WideResNet and the pre-activation ResNet-18."""

from __future__ import annotations

import re
from itertools import pairwise

from torch import Tensor, nn

from waterbed.errors import UsageError

PREACT = "preact_resnet18"
WIDE = ("wide_resnet28_10", "wide_resnet34_10", "wide_resnet70_16")


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice, with the input (after the first ReLU where a projection is needed) added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.relu = nn.ReLU()
        projects = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(h)
        return self.conv2(self.relu(self.bn2(self.conv1(h)))) + skip


class PreActNet(nn.Sequential):
    """A 3 x 3 stem, stages of pre-activation blocks, each but the first at half the resolution, and global pooling.

    Args:
        widths: channels of the stem and of each stage.
        depths: number of blocks of each stage.
        normalised: BN and ReLU before the pooling.
    """

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], in_channels: int, normalised: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        for i, ((inputs, outputs), depth) in enumerate(zip(pairwise(widths), depths, strict=True), start=1):
            first = PreActBlock(inputs, outputs, 1 if i == 1 else 2)
            rest = (PreActBlock(outputs, outputs, 1) for _ in range(depth - 1))
            self.add_module(f"layer{i}", nn.Sequential(first, *rest))
        if normalised:
            self.bn1, self.relu = nn.BatchNorm2d(widths[-1]), nn.ReLU()
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def pre_activation_network(name: str, in_channels: int) -> tuple[nn.Module, int] | None:
    """The network of this name without its head, and the number of its features; None for another name.

    "wide_resnetD_K" has depth D = 6n + 4 and is K times as wide as a ResNet (Zagoruyko and Komodakis 2016);
    "preact_resnet18" is that of He et al. 2016 with the stem for small images, as robust training uses it: without a
    normalisation before the pooling.

    Raises:
        UsageError: a depth that is not 6n + 4.
    """
    if name == PREACT:
        return PreActNet((64, 64, 128, 256, 512), (2, 2, 2, 2), in_channels, normalised=False), 512
    match = re.fullmatch(r"wide_resnet(\d+)_([1-9]\d*)", str(name))
    if match is None:
        return None
    depth, factor = int(match[1]), int(match[2])
    if depth < 10 or depth % 6 != 4:
        raise UsageError(f"name={name!r} has depth {depth}, which must be 6n + 4; choose one such as 28, 34 or 70")
    widths = (16, 16 * factor, 32 * factor, 64 * factor)
    return PreActNet(widths, ((depth - 4) // 6,) * 3, in_channels, normalised=True), widths[-1]
