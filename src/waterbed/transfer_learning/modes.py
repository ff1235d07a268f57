"""The modes of fine-tuning (appendix C of the paper): which modules each of them trains."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from waterbed.devices import device_of, seeded
from waterbed.errors import UsageError
from waterbed.files import digest
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.states import probe

MODES = ("linear", 0, 1, 2)
CACHED_MODES = ("linear", 0)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
OTHER_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)


def with_new_head(model: FeatureClassifier, data: Any, trained: Sequence[str], seed: int) -> FeatureClassifier:
    """A copy with a head for the new task, in which only the modules named in ``trained`` require gradients."""
    tuned = copy.deepcopy(model)
    with seeded(seed):
        head = nn.Linear(model.head.in_features, data.num_classes, bias=model.head.bias is not None)
    tuned.head = head.to(device_of(model), model.head.weight.dtype)
    if tuned.architecture is not None:
        tuned.architecture = {**tuned.architecture, "num_classes": data.num_classes}
    tuned.requires_grad_(False)
    for module in submodules(tuned, trained):
        module.requires_grad_(True)
    return tuned


def submodules(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """The modules with these names; "" is the whole model."""
    return [model.get_submodule(name) for name in names]


def trained_modules(model: FeatureClassifier, mode: int | str, shape: tuple[int, ...]) -> list[str]:
    """Names of the modules that a mode trains; [""] is the whole model.

    Args:
        shape: (C, H, W) of an image; one is run to see which normalisation layers are executed, and in which order.

    Raises:
        UsageError: modes 0 and 1 of a backbone without normalisation layers.
    """
    if mode == 2:
        return [""]
    if mode == "linear":
        return ["head"]
    executed = _executed_norms(model, shape)
    if not executed:
        raise UsageError(
            f"mode={mode!r} trains normalisation layers, but the backbone has none; pass mode='linear' or 2"
        )
    if mode == 1:
        return [*dict.fromkeys(executed), "head"]
    # The batch norm of a shortcut may run last, but the one that feeds the classifier is on the main path.
    main = [name for name in executed if not {"downsample", "shortcut"} & set(name.split("."))]
    return [(main or executed)[-1], "head"]


def _executed_norms(model: FeatureClassifier, shape: tuple[int, ...]) -> list[str]:
    """The backbone's batch norms (or, lacking any, its other normalisations) in the order they run."""
    modules = [(f"backbone.{n}", m) for n, m in model.backbone.named_modules()]
    kinds = BATCH_NORMS if any(isinstance(m, BATCH_NORMS) for _, m in modules) else OTHER_NORMS
    executed: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: executed.append(name))
        for name, module in modules
        if isinstance(module, kinds)
    ]
    try:
        probe(model, torch.zeros(1, *shape, device=device_of(model)), "data images")
    finally:
        for handle in handles:
            handle.remove()
    return executed


def fingerprint(module: nn.Module) -> str:
    """A short hash of all weights and buffers, by which a run folder tells source networks apart."""
    tensors = module.state_dict().items()
    parts = (
        name.encode() + t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        for name, t in tensors
    )
    return digest(parts)[:16]
