"""Other projects' networks as a FeatureClassifier: architecture inferred, normaliser set, each decision recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.errors import UsageError
from waterbed.models.adapting import build, fill, take_apart, timm_classifier
from waterbed.models.architectures import bare_name, describe, image_channels, infer_architecture, torchvision_names
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.layouts import UNSAVED, infer_pre_activation, is_deepminds, pre_activation_names, unseen
from waterbed.models.normalisers import channel_values, find_normalisers
from waterbed.models.pickled import left_out
from waterbed.models.recipes import TIMM
from waterbed.models.tensors import read_tensors
from waterbed.models.wide import is_pre_activation
from waterbed.models.wrappers import Checkpoint, unwrap

USUAL_SIDES = {"cifar": 32, "imagenet": 224}  # of the images that networks with these stems are trained on
FOREIGN = ("robustness", "robustbench", "torchvision", "timm")


def load_foreign(
    path: Path,
    source: str = "auto",
    model: nn.Module | None = None,
    mean: Any = None,
    std: Any = None,
    architecture: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> FeatureClassifier:
    """A foreign weights file as a network in eval mode; the arguments are those of ``load_model``.

    Args:
        metadata: a Hugging Face repository's config.json, which may name a timm architecture and its normaliser.
        trust: unpickle whatever the file holds, see :func:`~waterbed.models.pickled.unpickle`.
    """
    metadata = metadata or {}
    checkpoint = unwrap(read_tensors(path, trust), path)
    if path.suffix != ".safetensors" and not trust and (others := left_out(path)):
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        checkpoint.notes.append(f"only tensors were read; left out: {', '.join(others[:3])}{more}")
    _check_source(checkpoint, source, path)
    _check_not_doubled(checkpoint, model, mean, std, path)
    if model is not None:
        built = _into(model, checkpoint, path)
    else:
        built = _build(checkpoint, path, architecture or metadata.get("architecture"))
    normaliser = "none" if built.mean is None else "given"
    if checkpoint.mean is not None:
        normaliser, mean, std = "checkpoint", checkpoint.mean, checkpoint.std
    elif mean is not None:
        normaliser = "given"
    elif built.mean is None and _recorded(metadata) is not None:
        normaliser, (mean, std) = "checkpoint", _recorded(metadata)
        checkpoint.notes.append("mean and std are those of config.json")
    if mean is not None:
        built.set_normalisation(*channel_values(mean, std, image_channels(checkpoint.tensors)))
    if normaliser == "none":
        checkpoint.notes.append(
            "no normaliser in the file: check_normalisation shows whether to pass mean= and std= (--mean and --std in "
            "a command; 0 and 1 for none, which fit then keeps)"
        )
        if is_deepminds(checkpoint.tensors):
            checkpoint.notes.append(UNSAVED)
    built.loading = {
        "source": checkpoint.source if source == "auto" else source,
        "normaliser": normaliser,
        "notes": checkpoint.notes,
    }
    return built.eval()


def _check_source(checkpoint: Checkpoint, source: str, path: Path) -> None:
    """Raise if the checkpoint's normaliser belongs to another project than the requested source."""
    if source in FOREIGN and checkpoint.source in ("robustness", "robustbench") and checkpoint.source != source:
        raise UsageError(
            f"source={source!r}, but {str(path)!r} is a checkpoint of {checkpoint.source!r}; pass that or 'auto'"
        )


def _check_not_doubled(checkpoint: Checkpoint, model: nn.Module | None, mean: Any, std: Any, path: Path) -> None:
    """Raise if mean and std are given for a network that normalises already."""
    if (mean is None) != (std is None):
        raise UsageError(f"mean={mean!r} and std={std!r} belong together; pass both or neither")
    if mean is None:
        return
    place = None
    if checkpoint.mean is not None:
        values = (", ".join(f"{v:.4g}" for v in t.flatten().tolist()) for t in (checkpoint.mean, checkpoint.std))
        place = "{!r} has a normaliser of its own (mean {}, std {})".format(str(path), *values)
    elif model is not None and not isinstance(model, FeatureClassifier) and find_normalisers(model.state_dict()):
        place = f"model={type(model).__name__} has a normaliser of its own"
    if place is not None:
        raise UsageError(f"mean={mean!r} and std={std!r} would normalise twice: {place}; leave them out")


def _recorded(metadata: Mapping[str, Any]) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation in timm's config.json."""
    recorded = metadata.get("pretrained_cfg") or metadata
    values = [recorded.get(key) for key in ("mean", "std")] if isinstance(recorded, Mapping) else [None]
    numbers = all(isinstance(v, list) and v and all(isinstance(x, int | float) for x in v) for v in values)
    return (values[0], values[1]) if numbers else None


def _build(checkpoint: Checkpoint, path: Path, architecture: str | None) -> FeatureClassifier:
    """The network that the tensors' shapes (or timm's name ``architecture``) determine, with the tensors loaded."""
    tensors, inferred = _inferred(checkpoint.tensors, architecture)
    what = describe(torchvision_names(checkpoint.tensors))
    timm = None if architecture is None else architecture.removeprefix(TIMM)
    if timm is not None and (inferred is None or inferred["name"] != timm):
        built, tensors = timm_classifier(timm, checkpoint.tensors), checkpoint.tensors
        checkpoint.notes.append(f"built by timm as {timm!r}")
        claim = f"do not fit timm's {timm!r} (the file"
    elif inferred is None:
        raise UsageError(_unknown(path, what))
    else:
        built = build(inferred)
        side = USUAL_SIDES[inferred.get("stem", "cifar")]
        built.input_shape = (inferred["in_channels"], side, side)
        checkpoint.notes.extend(unseen(inferred["name"], checkpoint.tensors))
        claim = f"look like {inferred['name']!r} but do not fit it (the file"
        tensors.setdefault("fc.bias", torch.zeros(inferred["num_classes"]))
    _match_type(built, tensors)
    reason = fill(built, tensors, checkpoint.notes)
    if reason is not None:
        raise UsageError(_unknown(path, f"{what}, whose tensors {claim} {reason})"))
    return built


def _inferred(
    tensors: Mapping[str, Tensor], architecture: str | None
) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors under our names, and the arguments of ``create_model`` (None for a network that it does not build).

    Where several of its networks have these shapes, ``architecture`` names the one.
    """
    renamed = pre_activation_names(tensors)
    if renamed is None:
        renamed = torchvision_names(tensors)
        return renamed, infer_architecture(renamed)
    inferred = infer_pre_activation(renamed, is_deepminds(tensors))
    if inferred is not None and is_pre_activation(architecture):
        inferred["name"] = architecture
    return renamed, inferred


def _into(model: nn.Module, checkpoint: Checkpoint, path: Path) -> FeatureClassifier:
    """The user's instance with the tensors loaded, as a FeatureClassifier."""
    tensors = dict(checkpoint.tensors)
    if not isinstance(model, FeatureClassifier):
        # A normaliser inside the instance takes the checkpoint's values; without any it keeps its own.
        own = model.state_dict()
        for names in find_normalisers(own).values():
            theirs = (checkpoint.mean, checkpoint.std)
            for name, value in zip(names, theirs, strict=True):
                tensors[bare_name(name)] = own[name] if value is None else value.reshape(own[name].shape)
    reason = fill(model, tensors, checkpoint.notes)
    if reason is not None:
        raise UsageError(
            f"the weights {str(path)!r} do not fit model={type(model).__name__} (the file {reason}); "
            "pass the network they were trained with"
        )
    return model if isinstance(model, FeatureClassifier) else take_apart(model)


def _match_type(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Double precision where the tensors have it; half precision is read as float32."""
    if any(tensor.dtype == torch.float64 for tensor in tensors.values()):
        model.double()


def _unknown(path: Path, what: str) -> str:
    return (
        f"the file {str(path)!r} holds {what}, which create_model does not build; pass model=, an instance of that "
        "network to load into, or architecture=, its name in timm"
    )
