"""create_model: torchvision's residual networks with a stem for small images and a free width."""

from __future__ import annotations

from contextlib import nullcontext

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from waterbed.devices import seeded
from waterbed.errors import check_choice, check_count
from waterbed.models.classifier import FeatureClassifier

# Kind of block, number of blocks in each of the four stages, factor on the inner width of a block.
RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...], int]] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1), 1),
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1),
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), 2),
}


def create_model(
    name: str,
    num_classes: int,
    stem: str = "cifar",
    width: int = 64,
    in_channels: int = 3,
    seed: int | None = None,
) -> FeatureClassifier:
    """Build an untrained network.

    Args:
        name: "resnet18", "resnet34", "resnet50", "resnet101" or "wide_resnet50_2" as torchvision has them;
            "resnet10" has one block per stage, for small jobs.
        num_classes: K, two or more.
        stem: "cifar" (3 x 3 convolution, stride 1, no pooling) for small images, "imagenet" (7 x 7, stride 2,
            max pooling) for large ones.
        width: channels of the first stage; the following have 2, 4 and 8 times as many.
        in_channels: 1 (grey) or 3 (RGB), or whatever the images have.
        seed: of the initial weights; None draws them from torch's global generator.

    Raises:
        UsageError: an unknown name or stem, a size below its minimum.

    >>> model = create_model("resnet18", num_classes=10, width=8, in_channels=1)
    >>> model.head
    Linear(in_features=64, out_features=10, bias=True)
    """
    check_choice("name", name, RESNETS)
    check_choice("stem", stem, ("cifar", "imagenet"))
    check_count("num_classes", num_classes, at_least=2)
    check_count("width", width)
    check_count("in_channels", in_channels)
    with nullcontext() if seed is None else seeded(seed):
        backbone = _resnet(name, stem, width, in_channels)
        block = RESNETS[name][0]
        head = nn.Linear(8 * width * block.expansion, num_classes)
    model = FeatureClassifier(backbone, head)
    model.architecture = {
        "name": name,
        "num_classes": num_classes,
        "stem": stem,
        "width": width,
        "in_channels": in_channels,
    }
    return model


def _resnet(name: str, stem: str, width: int, in_channels: int) -> ResNet:
    """torchvision's ResNet without its classifier; its own stage builder makes the other widths."""
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
