"""finetune: a new head on an old backbone, in the modes of the paper's appendix C."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.data.images import batches, check_data
from waterbed.engine import device_of, seeded
from waterbed.errors import UsageError, UsageTypeError, check_choice
from waterbed.models import FeatureClassifier, evaluating, probe
from waterbed.objectives import Standard
from waterbed.progress import track
from waterbed.runs import Run
from waterbed.training import fit

MODES = ("linear", 0, 1, 2)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
OTHER_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)


def finetune(
    model: FeatureClassifier,
    data: Any,
    mode: int | str = 0,
    out: str | Path | None = None,
    *,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 1.0,
    weight_decay: float = 5e-4,
    schedule: str = "one-cycle",
    augment: str = "none",
    watch: int = 0,
    seed: int = 0,
    **settings: Any,
) -> Run:
    """Train a copy of ``model`` with a new linear head on another task; ``model`` itself is not changed.

    Args:
        model: the source network; its mean and std are kept.
        data: what ``load_dataset`` returns (of the model's image shape), or an object like it.
        mode: "linear" trains the head alone; 0 the head and the last BatchNorm of the backbone's main path, its
            running statistics included; 1 the head and every BatchNorm; 2 everything. The rest stays in eval mode
            and does not move. A backbone without BatchNorm: the last (0) or every (1) LayerNorm or GroupNorm.
        out: run folder; None writes nothing.
        settings: anything else :func:`waterbed.fit` takes.

    Returns:
        A :class:`Run`; ``run.config["finetune"]`` names the modules that were trained.

    Raises:
        UsageError: unknown mode, data that do not fit, a backbone without any normalisation in modes 0 and 1.
    """
    check_choice("mode", mode, MODES)
    check_data(data)
    if not isinstance(model, FeatureClassifier):
        raise UsageTypeError(
            f"model={type(model).__name__} must be a FeatureClassifier; wrap the backbone and head in one"
        )
    tuned = copy.deepcopy(model)
    with seeded(seed):
        head = nn.Linear(model.head.in_features, data.num_classes, bias=model.head.bias is not None)
    tuned.head = head.to(device_of(model), model.head.weight.dtype)
    if tuned.architecture is not None:
        tuned.architecture = {**tuned.architecture, "num_classes": data.num_classes}
    names = trained_modules(tuned, mode, data.shape)
    modules = [tuned.get_submodule(name) for name in names]
    tuned.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)
    run = fit(
        tuned,
        data,
        Standard(),
        out,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        augment=augment,
        watch=watch,
        seed=seed,
        trained=modules,
        notes={
            "finetune": {
                "mode": str(mode),
                "source": _fingerprint(model.backbone),
                "trained": ["everything" if name == "" else name for name in names],
            }
        },
        **settings,
    )
    tuned.requires_grad_(True)
    return run


def _fingerprint(module: nn.Module) -> str:
    """A short hash of all weights: a run folder belongs to one source network."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def trained_modules(model: FeatureClassifier, mode: int | str, shape: tuple[int, ...]) -> list[str]:
    """Names of the modules that a mode trains; [""] is the whole model."""
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
    # The batch norm of a shortcut may run last, but the one before the classifier is the main path's.
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


def extract_features(
    model: nn.Module, data: Any, split: str = "train", batch_size: int = 256, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Features (N, d) and labels (N,), on the CPU, in eval mode.

    Args:
        model: with ``features(x)``.
        data: what ``load_dataset`` returns, of which ``split`` ("train" or "test") is taken; or a map-style data set.
    """
    check_choice("split", split, ("train", "test"))
    dataset = getattr(data, split, data)
    device = device_of(model)
    total = -(-len(dataset) // batch_size)
    features, labels = [], []
    with torch.no_grad(), evaluating(model):
        for x, y in track(batches(dataset, batch_size), "features", total, progress):
            features.append(model.features(x.to(device)).cpu())
            labels.append(y)
    return torch.cat(features), torch.cat(labels)
