"""torchvision's residual networks with a stem for small images and a free width."""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

# Kind of block, number of blocks in each of the four stages, factor on the inner width of a block.
RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...], int]] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1), 1),
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1),
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), 2),
    "wide_resnet50_4": (Bottleneck, (3, 4, 6, 3), 4),
}


def resnet(name: str, stem: str, width: int, in_channels: int) -> ResNet:
    """torchvision's untrained ResNet without its classifier; its own stage builder makes the other widths."""
    block, depths, factor = RESNETS[name]
    net = ResNet(block, [1, 1, 1, 1], num_classes=1, width_per_group=64 * factor)
    net.inplanes = width
    if stem == "cifar":
        net.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
    else:
        net.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
    net.bn1 = nn.BatchNorm2d(width)
    for i, depth in enumerate(depths):
        stage = net._make_layer(block, width * 2**i, depth, stride=1 if i == 0 else 2)
        setattr(net, f"layer{i + 1}", stage)
    net.fc = nn.Identity()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net
