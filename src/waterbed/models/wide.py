"""The residual networks of most published robust checkpoints for CIFAR: WideResNet and the pre-activation ResNet-18."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from waterbed.errors import UsageError


@dataclass(frozen=True)
class Style:
    """What distinguishes pre-activation networks of the same size; the shapes of their weights show only part of it.

    Attributes:
        normalised: BN and activation before the pooling.
        raw_skip: a projection takes the input of its block, not what BN and activation make of it.
        projection: side of the kernels of the projections, 1 or 3.
        same: a 3 x 3 convolution of stride 2 pads only at the right and at the bottom, as TensorFlow's "SAME" does.
        activation: ReLU, or SiLU (swish).
    """

    normalised: bool = True
    raw_skip: bool = False
    projection: int = 1
    same: bool = False
    activation: type[nn.Module] = nn.ReLU


# RobustBench has all of them: PreActResNet (bare; with bn_before_fc; with PreActBlock in place of PreActBlockV2),
# DMPreActResNet; WideResNet (that of TRADES) and DMWideResNet.
PREACT = {
    "preact_resnet18": Style(normalised=False),
    "preact_resnet18_bn": Style(),
    "preact_resnet18_rawskip": Style(normalised=False, raw_skip=True),
    "dm_preact_resnet18": Style(raw_skip=True, projection=3, same=True, activation=nn.SiLU),
}
WIDE_STYLES = {"wide_resnet": Style(), "dm_wide_resnet": Style(same=True, activation=nn.SiLU)}
WIDE_NAME = re.compile(r"((?:dm_)?wide_resnet)(\d+)_([1-9]\d*)")
WIDE = ("wide_resnet28_10", "wide_resnet34_10", "wide_resnet70_16", "dm_wide_resnet28_10", "dm_wide_resnet70_16")


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice, with the input (after the first ReLU where a projection is needed) added."""

    def __init__(self, inputs: int, outputs: int, stride: int, style: Style) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        shifted = style.same and stride == 2
        padding = 0 if shifted else 1
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if shifted else nn.Identity()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.relu = style.activation()
        self.raw_skip, self.pads_skip = style.raw_skip, style.projection == 3
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            beside = padding if self.pads_skip else 0
            self.shortcut = nn.Conv2d(inputs, outputs, style.projection, stride, beside, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(x))
        skip = x
        if self.shortcut is not None:
            skip = x if self.raw_skip else h
            skip = self.shortcut(self.pad(skip) if self.pads_skip else skip)
        return self.conv2(self.relu(self.bn2(self.conv1(self.pad(h))))) + skip


class PreActNet(nn.Sequential):
    """A 3 x 3 stem, stages of pre-activation blocks, each but the first at half the resolution, and global pooling.

    Args:
        widths: channels of the stem and of each stage.
        depths: number of blocks of each stage.
        style: of the blocks and of the end.
    """

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], in_channels: int, style: Style) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        for i, ((inputs, outputs), depth) in enumerate(zip(pairwise(widths), depths, strict=True), start=1):
            first = PreActBlock(inputs, outputs, 1 if i == 1 else 2, style)
            rest = (PreActBlock(outputs, outputs, 1, style) for _ in range(depth - 1))
            self.add_module(f"layer{i}", nn.Sequential(first, *rest))
        if style.normalised:
            self.bn1, self.relu = nn.BatchNorm2d(widths[-1]), style.activation()
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def is_pre_activation(name: str | None) -> bool:
    """Whether this is the name of a network of this module.

    >>> is_pre_activation("dm_wide_resnet28_10"), is_pre_activation("wide_resnet50_2")
    (True, False)
    """
    match = WIDE_NAME.fullmatch(str(name))
    return name in PREACT or (match is not None and int(match[2]) % 6 == 4)


def pre_activation_network(name: str, in_channels: int) -> tuple[nn.Module, int] | None:
    """The network of this name without its head, and the number of its features; None for another name.

    "wide_resnetD_K" has depth D = 6n + 4 and is K times as wide as a ResNet (Zagoruyko and Komodakis 2016);
    "dm_wide_resnetD_K" is that of Gowal et al. 2020, with SiLU. "preact_resnet18" is that of He et al. 2016 with the
    stem for small images, as robust training uses it: without a normalisation before the pooling, which
    "preact_resnet18_bn" has. In "preact_resnet18_rawskip" (Wong et al. 2020) a projection takes a block's input.

    Raises:
        UsageError: a depth that is not 6n + 4.
    """
    if name in PREACT:
        return PreActNet((64, 64, 128, 256, 512), (2, 2, 2, 2), in_channels, PREACT[name]), 512
    match = WIDE_NAME.fullmatch(str(name))
    if match is None:
        return None
    depth, factor = int(match[2]), int(match[3])
    if depth < 10 or depth % 6 != 4:
        raise UsageError(f"name={name!r} has depth {depth}, which must be 6n + 4; choose one such as 28, 34 or 70")
    widths = (16, 16 * factor, 32 * factor, 64 * factor)
    return PreActNet(widths, ((depth - 4) // 6,) * 3, in_channels, WIDE_STYLES[match[1]]), widths[-1]
