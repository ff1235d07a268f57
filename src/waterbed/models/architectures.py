"""The architecture of a state dict, inferred from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torchvision.models.resnet import BasicBlock, Bottleneck

from waterbed.models.resnets import RESNETS

STEMS = {(3, 3): "cifar", (7, 7): "imagenet"}
HEADS = ("fc", "linear", "head", "classifier", "last_linear")
# Names of modules that only wrap a network: DataParallel, attackers, normalisers, torch.compile, our own.
WRAPPERS = ("module", "model", "attacker", "_orig_mod", "net", "network", "backbone")


def bare_name(name: str) -> str:
    """A tensor's name inside the network itself.

    >>> bare_name("module.attacker.model.layer1.0.bn1.weight")
    'layer1.0.bn1.weight'
    """
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in WRAPPERS:
        parts.pop(0)
    return ".".join(parts)


def image_channels(tensors: Mapping[str, Tensor]) -> int | None:
    """Input channels of the first convolution; None if there is none.

    A file may sort its tensors, so the first need not be the first layer: that is ``conv1``, or one that takes RGB.
    """
    kernels = {bare_name(n): t.shape[1] for n, t in tensors.items() if t.ndim == 4 and n.endswith("weight")}
    if "conv1.weight" in kernels or 3 in kernels.values():
        return kernels.get("conv1.weight", 3)
    return next(iter(kernels.values()), None)


def torchvision_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A residual network's tensors under torchvision's names.

    Networks for CIFAR call the projection of the skip connection ``shortcut`` and the head ``linear``.

    >>> import torch
    >>> list(torchvision_names({"layer2.0.shortcut.0.weight": torch.ones(2, 2, 1, 1), "linear.bias": torch.ones(2)}))
    ['layer2.0.downsample.0.weight', 'fc.bias']
    """
    head = next((head for head in HEADS if any(name.startswith(f"{head}.") for name in tensors)), "fc")
    renamed = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        renamed[f"fc.{rest}" if first == head else name.replace(".shortcut.", ".downsample.")] = tensor
    return renamed


def infer_architecture(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The arguments of ``create_model`` for a residual network with torchvision's names; None for another network.

    Shapes do not show activations or pooling: ReLU, and max pooling only after a 7 x 7 stem, are assumed.

    >>> from waterbed.models.create import create_model
    >>> model = create_model("resnet18", 5, width=4)
    >>> tensors = {**model.backbone.state_dict(), "fc.weight": model.head.weight}
    >>> infer_architecture(tensors) == model.architecture
    True
    """
    stem, inner, head = (tensors.get(f"{name}.weight") for name in ("conv1", "layer1.0.conv1", "fc"))
    if stem is None or inner is None or head is None or stem.ndim != 4 or head.ndim != 2:
        return None
    width, in_channels = stem.shape[:2]
    block, depths = block_and_depths(tensors)
    factor = inner.shape[0] / width
    named = [name for name, built in RESNETS.items() if built == (block, depths, factor)]
    if not named or tuple(stem.shape[2:]) not in STEMS:
        return None
    return {
        "name": named[0],
        "num_classes": len(head),
        "stem": STEMS[tuple(stem.shape[2:])],
        "width": width,
        "in_channels": in_channels,
    }


def block_and_depths(tensors: Mapping[str, Tensor]) -> tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]:
    """The kind of block of a residual network, and the number of blocks of each stage."""
    depths: dict[int, int] = {}
    for name in tensors:
        match = re.match(r"layer(\d+)\.(\d+)\.", name)
        if match:
            stage, index = int(match[1]), int(match[2])
            depths[stage] = max(depths.get(stage, 0), index + 1)
    block = Bottleneck if "layer1.0.conv3.weight" in tensors else BasicBlock
    return block, tuple(depths[stage] for stage in sorted(depths))


def describe(tensors: Mapping[str, Tensor]) -> str:
    """A description of a network that ``create_model`` does not build.

    >>> import torch
    >>> describe({"visual.proj": torch.ones(4, 2)})
    "an unknown network (1 tensor, from 'visual.proj' (4, 2) to 'visual.proj' (4, 2))"
    """
    names = list(tensors)
    ends = " to ".join(f"{name!r} {tuple(tensors[name].shape)}" for name in (names[0], names[-1]))
    return f"{_family(tensors)} ({len(names)} tensor{'s' if len(names) > 1 else ''}, from {ends})"


def _family(tensors: Mapping[str, Tensor]) -> str:
    layers = {int(match[1]) for name in tensors if (match := re.match(r"block1\.layer\.(\d+)\.", name))}
    if layers:
        first = tensors.get("block1.layer.0.conv1.weight")
        size = f" (WideResNet-{6 * len(layers) + 4}-{len(first) // 16})" if first is not None else ""
        return f"a wide residual network{size}"
    if any("pos_embed" in name for name in tensors):
        return "a vision transformer"
    if any(name.startswith("layer1.0.") for name in tensors):
        return _residual(tensors)
    return "an unknown network"


def _residual(tensors: Mapping[str, Tensor]) -> str:
    """A residual network, and how it differs from those of ``create_model``."""
    block, depths = block_and_depths(tensors)
    stem = tensors.get("conv1.weight")
    unlike = []
    if "fc.weight" not in tensors:
        unlike.append("without a linear head (" + ", ".join(HEADS) + ")")
    if stem is None or tuple(stem.shape[2:]) not in STEMS:
        unlike.append("with a stem that is no 3 x 3 or 7 x 7 convolution 'conv1'")
    kind = "a pre-activation residual network (PreActResNet)" if "bn1.weight" not in tensors else "a residual network"
    listed = ", ".join(map(str, depths))
    return " ".join([kind, f"with {listed} {'bottleneck' if block is Bottleneck else 'basic'} blocks", *unlike])
