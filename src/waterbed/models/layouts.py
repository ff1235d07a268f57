"""Pre-activation networks of other projects: their tensors' names translated, and which of ours they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from waterbed.models.architectures import HEADS
from waterbed.models.wide import PREACT, Style

# Their names as patterns, and ours: of TRADES' WideResNet, of DMWideResNet and DMPreActResNet, of pytorch-cifar's
# PreActResNet (with RobustBench's normalisation before the head). The stages of DeepMind's networks count from 0.
NAMES = (
    (r"block(\d)\.layer\.(\d+)\.convShortcut\.", r"layer\1.\2.shortcut."),
    (r"block(\d)\.layer\.(\d+)\.", r"layer\1.\2."),
    (r"layer\.(\d)\.block\.(\d+)\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}."),
    (r"layer_(\d)\.(\d+)\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}."),
    (r"(?:init_conv|conv_2d)\.", "conv1."),
    (r"(?:batchnorm|bn)\.", "bn1."),
    (rf"(?:logits|{'|'.join(HEADS)})\.", "fc."),
)
INSIDE = (
    (r"\.batchnorm_0\.", ".bn1."),
    (r"\.batchnorm_1\.", ".bn2."),
    (r"\.conv_(?:0|2d_1)\.", ".conv1."),
    (r"\.conv_(?:1|2d_2)\.", ".conv2."),
    (r"\.shortcut\.0\.", ".shortcut."),
)
UNSAVED = (
    "DeepMind's networks normalise inside and do not save how: mean=(0.4914, 0.4822, 0.4465) and std=(0.2471, 0.2435, "
    "0.2616) for CIFAR-10, (0.5071, 0.4865, 0.4409) and (0.2673, 0.2564, 0.2762) for CIFAR-100"
)
# A second first stage, which TRADES' network saves and never runs.
UNUSED = "sub_block1."
DEEPMIND = ("init_conv.", "conv_2d.")


def pre_activation_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """A pre-activation network's tensors under the names of :mod:`waterbed.models.wide`; None for another network.

    >>> import torch
    >>> pre_activation_names({"conv1.weight": torch.ones(4, 3, 3, 3), "layer2.0.bn1.weight": torch.ones(4)}) is None
    True
    """
    renamed = {}
    for name, tensor in tensors.items():
        if name.startswith(UNUSED):
            continue
        for pattern, ours in NAMES:
            name, found = re.subn("^" + pattern, ours, name)
            if found:
                break
        for pattern, ours in INSIDE:
            name = re.sub(pattern, ours, name)
        renamed[name] = tensor
    before, conv = renamed.get("layer2.0.bn1.weight"), renamed.get("layer2.0.conv1.weight")
    # The first batch norm of a block takes the block's input, which shows in the number of channels where no 1 x 1
    # convolution comes first.
    if before is None or conv is None or conv.shape[2:] != (3, 3) or len(before) != conv.shape[1]:
        return None
    return renamed


def infer_pre_activation(renamed: Mapping[str, Tensor], deepmind: bool) -> dict[str, Any] | None:
    """The arguments of ``create_model`` for tensors renamed by :func:`pre_activation_names`; None for another network.

    Args:
        deepmind: the names were those of DeepMind's code (:func:`is_deepminds`), whose networks activate with SiLU.
    """
    stem, inner, head = (renamed.get(f"{name}.weight") for name in ("conv1", "layer1.0.conv1", "fc"))
    if stem is None or inner is None or head is None:
        return None
    stages = {int(match[1]) for name in renamed if (match := re.match(r"layer(\d+)\.", name))}
    depth = 1 + max(int(m[1]) for name in renamed if (m := re.match(r"layer1\.(\d+)\.", name)))
    if stages == {1, 2, 3}:
        name = f"{'dm_' if deepmind else ''}wide_resnet{6 * depth + 4}_{max(1, len(inner) // 16)}"
    else:
        name = _preact_name("bn1.weight" in renamed, deepmind)
    return {"name": name, "num_classes": len(head), "in_channels": stem.shape[1]}


def is_deepminds(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of DeepMind's networks."""
    return any(name.startswith(DEEPMIND) for name in tensors)


def unseen(name: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """What the tensors of a pre-activation network do not show, as notes on how it was read."""
    notes = []
    if any(tensor_name.startswith(UNUSED) for tensor_name in tensors):
        notes.append("sub_block1, which the network never runs, was dropped")
    if name.startswith("dm_"):
        notes.append("SiLU is assumed")
    if name == "preact_resnet18":
        notes.append(
            "projections after BN and ReLU are assumed; where they take a block's input (RobustBench's PreActBlock: "
            "Wong2020Fast, Andriushchenko2020Understanding), pass architecture='preact_resnet18_rawskip'"
        )
    return notes


def _preact_name(normalised: bool, deepmind: bool) -> str:
    """The first of our pre-activation ResNet-18 that has these tensors."""

    def fits(style: Style) -> bool:
        return style.normalised == normalised and style.same == deepmind

    return next((name for name, style in PREACT.items() if fits(style)), "preact_resnet18")
