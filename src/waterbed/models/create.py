"""create_model: untrained networks by name."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from torch import nn

from waterbed.devices import seeded
from waterbed.errors import UsageError, check_choice, check_count
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.recipes import build_recipe, names_recipe
from waterbed.models.resnets import RESNETS, resnet
from waterbed.models.wide import PREACT, WIDE, pre_activation_network

STEM, WIDTH = "cifar", 64


def create_model(
    name: str,
    num_classes: int,
    stem: str = STEM,
    width: int = WIDTH,
    in_channels: int = 3,
    seed: int | None = None,
    image_size: int | None = None,
) -> FeatureClassifier:
    """Build an untrained network.

    Args:
        name: "resnet18", "resnet34", "resnet50", "resnet101" or "wide_resnet50_2" as torchvision has them, and
            "wide_resnet50_4"; "resnet10" has one block per stage, for small jobs. "wide_resnet28_10",
            "wide_resnet34_10", "wide_resnet70_16" (any depth 6n + 4 and any factor) and "preact_resnet18", for small
            images; "dm_wide_resnet28_10" and "dm_preact_resnet18" are those of Gowal et al. 2020 (SiLU).
            "timm:NAME" is timm's network of that name; "package.module:function" is what a function of your own
            returns, a network with any linear last layer (see :func:`waterbed.wrap`) or a FeatureClassifier. It is
            called with ``num_classes``, and with ``in_channels`` and ``image_size`` if it takes them.
        num_classes: K, two or more.
        stem: "cifar" (3 x 3 convolution, stride 1, no pooling) for small images, "imagenet" (7 x 7, stride 2,
            max pooling) for large ones. Only the networks of torchvision's kind have a choice of stem and width.
        width: channels of the first stage; the following have 2, 4 and 8 times as many.
        in_channels: 1 (grey) or 3 (RGB), or whatever the images have.
        seed: of the initial weights; None draws them from torch's global generator.
        image_size: side of the images in pixels, for a network of timm or of your own that is built for one size.

    ``model.architecture`` records these arguments, and the card of a run with it: ``load_model`` and every command
    build the network again from them. For "package.module:function" that imports the module and calls the function;
    no other code is imported.

    Raises:
        UsageError: an unknown name or stem, a size below its minimum, timm missing, a function that cannot be imported.

    >>> model = create_model("resnet18", num_classes=10, width=8, in_channels=1)
    >>> model.head
    Linear(in_features=64, out_features=10, bias=True)
    """
    check_choice("stem", stem, ("cifar", "imagenet"))
    check_count("num_classes", num_classes, at_least=2)
    check_count("width", width)
    check_count("in_channels", in_channels)
    if image_size is not None:
        check_count("image_size", image_size)
    architecture: dict[str, Any] = {"name": name, "num_classes": num_classes}
    with nullcontext() if seed is None else seeded(seed):
        if name in RESNETS:
            try:
                backbone = resnet(name, stem, width, in_channels)
                model = FeatureClassifier(backbone, nn.Linear(8 * width * RESNETS[name][0].expansion, num_classes))
            except (RuntimeError, TypeError, OverflowError, MemoryError) as error:  # torch has one for each size
                raise UsageError(f"width={width} makes a network too large for memory; pass a smaller one") from error
            architecture |= {"stem": stem, "width": width}
        elif (stem, width) != (STEM, WIDTH):
            raise UsageError(
                f"stem={stem!r} and width={width} are for {', '.join(RESNETS)}, not {name!r}; leave them out"
            )
        elif names_recipe(name):
            model = build_recipe(name, num_classes, in_channels, image_size)
            architecture |= {} if image_size is None else {"image_size": image_size}
        else:
            model = _pre_activation(name, num_classes, in_channels)
    model.architecture = {**architecture, "in_channels": in_channels}
    return model


def _pre_activation(name: str, num_classes: int, in_channels: int) -> FeatureClassifier:
    """A WideResNet or a PreActResNet with its head."""
    built = pre_activation_network(name, in_channels)
    if built is None:
        check_choice("name", name, (*RESNETS, *WIDE, *PREACT, "timm:NAME", "package.module:function"))
    backbone, features = built
    return FeatureClassifier(backbone, nn.Linear(features, num_classes))
