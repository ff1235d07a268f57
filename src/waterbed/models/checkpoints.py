"""Weights as safetensors with a JSON card beside them: saved by fit, read by load_model."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from waterbed.errors import UsageError, UsageTypeError, check_choice
from waterbed.files import check_output, digest, expanded, is_json_of, write_atomic
from waterbed.models.adapting import build
from waterbed.models.architectures import image_channels
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.foreign import FOREIGN, load_foreign
from waterbed.models.hub import PREFIX, find_weights, is_repository
from waterbed.models.normalisers import channel_values
from waterbed.models.recipes import is_own_code
from waterbed.models.states import check_module
from waterbed.models.tensors import check_values, parse_safetensors

SCHEMA = 1
ATTEMPTS = 3
SOURCES = ("auto", "run", "safetensors", *FOREIGN, "huggingface")


def save_model(
    model: nn.Module,
    path: str | Path,
    extra: dict[str, Any] | None = None,
    force: bool = False,
) -> None:
    """Write ``path`` (.safetensors) and its card, the same name with .json.

    The card holds how to build the network (``architecture``, None for a user's own module), its class, the input
    shape, the SHA-256 of the weights file, and whatever ``extra`` adds. ``force`` replaces files that are not ours.
    """
    check_module(model)
    write_model(model, check_weights_output(path, force, "path"), extra or {})


def write_model(
    model: nn.Module, path: Path, extra: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
) -> None:
    """:func:`save_model` over whatever there is, of ``tensors`` in place of the model's own if they are given."""
    tensors = model.state_dict() if tensors is None else tensors
    content = safetensors.torch.save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
    card = {
        "schema": SCHEMA,
        "architecture": getattr(model, "architecture", None),
        "class": type(model).__name__,
        "input_shape": list(getattr(model, "input_shape", None) or []) or None,
        "sha256": digest([content]),
        **extra,
    }
    # The card first: by it the weights are known as ours where this is stopped in between.
    write_atomic(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
    write_atomic(path, content)


def check_weights_output(path: str | Path, force: bool = False, argument: str = "out") -> Path:
    """:func:`~waterbed.files.check_output` for weights, which are known as ours by their card, and for the card."""
    path = expanded(path, argument)
    if path.suffix != ".safetensors":
        raise UsageError(f"{argument}={str(path)!r} must end in .safetensors")
    beside = path.with_suffix(".json")
    is_card = is_json_of("architecture", "class", schema=SCHEMA)
    check_output(path, lambda _: beside.is_file() and is_card(beside.read_bytes()), force, argument)
    check_output(beside, is_card, force, argument)
    return path


def is_whole(path: Path, epoch: int) -> bool:
    """Whether weights and card lie there as they were written after that epoch."""
    try:
        card, content = read_card(path.with_suffix(".json")), path.read_bytes()
    except (UsageError, OSError):
        return False
    return card.get("epoch") == epoch and card.get("sha256", digest([content])) == digest([content])


def load_model(
    path_or_name: str | Path,
    source: str = "auto",
    model: nn.Module | None = None,
    *,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    architecture: str | None = None,
    download: bool = False,
) -> nn.Module:
    """Read a trained network, on the CPU and in eval mode.

    Args:
        path_or_name: a run folder of ``fit``; a .safetensors file, with or without our JSON card beside it; a
            checkpoint of another project (.pt, .pth, .bin, .ckpt); a Hugging Face repository, "owner/name", or one of
            its files, "hf:owner/name:file" ("hf:owner/name@revision:file" for one commit, tag or branch). The files
            are listed where none is named and the usual names are not there.
        source: "auto" tells them apart; another requires that kind: "run", "safetensors", "robustness" (and
            robust-models-transfer), "robustbench", "torchvision", "timm", "huggingface".
        model: for weights of your own module, or of a network that ``create_model`` does not build: an instance to load
            them into. Foreign weights in a plain module come back as a FeatureClassifier made of its copy.
        mean, std: the normalisation that the network was trained with, where its file has none.
        architecture: timm's name of the network, with or without "timm:", where the shapes of its tensors do not
            identify it; or that of ``create_model``, where several pre-activation networks have these shapes.
        download: fetch from the Hugging Face repository what the local cache lacks. False makes no connection.

    A foreign residual network (ResNet, WideResNet, pre-activation ResNet-18) is rebuilt by ``create_model`` from the
    shapes of its tensors, with its normaliser inside. ``model.loading`` records how it was read: ``source``,
    ``normaliser`` ("checkpoint", "given" or "none") and ``notes``. No file is unpickled: one that holds more than
    tensors is for ``convert(..., trust=True)``. No code is imported but the function that the card of a run of your
    own names (``--model package.module:function``), and none for a repository. Shapes do not show everything (an
    activation, a missing normaliser): check the accuracy, or see ``check_normalisation``.

    Raises:
        UsageError: no such file or repository, a corrupt file, a card of another schema, weights that do not fit or
            that need an instance, mean and std given for a network that normalises already.
    """
    check_choice("source", source, SOURCES)
    if not isinstance(path_or_name, str | Path):
        kind = type(path_or_name).__name__
        raise UsageTypeError(f"path_or_name={kind} must be a name or a path: of a run folder, a file or a repository")
    path = expanded(path_or_name, "path_or_name")
    metadata: dict[str, Any] = {}
    named = str(path_or_name).startswith(PREFIX)
    fetched = (
        named or source == "huggingface" or (source == "auto" and not path.exists() and is_repository(path_or_name))
    )
    if fetched:
        path, metadata = _in_repository(path_or_name, source, download)
    if not path.exists():
        raise UsageError(f"path_or_name={str(path)!r} does not exist; name a run folder or a file of weights")
    if path.is_dir() or source == "run":
        if not (path / "config.toml").is_file() or source not in ("auto", "run"):
            raise UsageError(f"path_or_name={str(path)!r} is no run folder (it has no config.toml); name one")
        path = path / "weights.safetensors"
        if not path.is_file():
            raise UsageError(f"the run {str(path.parent)!r} has no weights yet; let its training finish an epoch")
        return _load_own(path, "run", model, mean, std, architecture)
    if source == "safetensors" and path.suffix != ".safetensors":
        raise UsageError(f"path_or_name={str(path)!r} is not a .safetensors file; name one or pass source='auto'")
    carded = path.suffix == ".safetensors" and path.with_suffix(".json").exists()
    if carded and source in ("auto", "safetensors", "huggingface"):
        kind = "safetensors" if source == "auto" else source
        return _load_own(path, kind, model, mean, std, architecture, own_code=not fetched)
    return load_foreign(path, source, model, mean, std, architecture, metadata)


def _in_repository(name: str | Path, source: str, download: bool) -> tuple[Path, dict[str, Any]]:
    """A repository's weights on this machine, and its config.json."""
    weights = find_weights(str(name), download)
    if weights is None and source == "auto" and not str(name).startswith(PREFIX):
        raise UsageError(
            f"path_or_name={str(name)!r} does not exist; name a run folder or a file of weights, or pass download=True "
            "if it is a Hugging Face repository"
        )
    if weights is None:
        raise UsageError(f"path_or_name={str(name)!r} is not in the local Hugging Face cache; pass download=True")
    return weights


def _load_own(
    path: Path,
    source: str,
    model: nn.Module | None,
    mean: Any,
    std: Any,
    architecture: str | None,
    own_code: bool = True,
) -> nn.Module:
    """Weights that ``save_model`` wrote; ``own_code``: whether the function that a card names may be imported."""
    card, content = _read_pair(path)
    if architecture is not None:
        raise UsageError(
            f"architecture={architecture!r} is for foreign weights; {str(path)!r} has a card, leave it out"
        )
    tensors = parse_safetensors(content, path)
    if model is None:
        if not card.get("architecture"):
            raise UsageError(
                f"{str(path)!r} holds weights of {card.get('class', 'a module')!r}, which create_model does not build; "
                "pass model=, an instance to load them into; a run of train --model package.module:function, or "
                "of what create_model builds by such a name, records how"
            )
        if not own_code and is_own_code(card["architecture"]["name"]):
            raise UsageError(
                f"{str(path)!r} comes from a repository and would import {card['architecture']['name']!r}; to trust "
                "that code, pass model=, an instance that it builds"
            )
        model = build(card["architecture"])
        if any(tensor.dtype == torch.float64 for tensor in tensors.values()):
            model.double()
    if (mean is None) != (std is None):
        raise UsageError(f"mean={mean!r} and std={std!r} belong together; pass both or neither")
    normaliser = "none"
    if isinstance(model, FeatureClassifier):
        if "mean" in tensors:
            model.set_normalisation(tensors["mean"], tensors["std"])
            normaliser = "checkpoint"
        if card.get("input_shape"):
            model.input_shape = tuple(card["input_shape"])
        if card.get("classes"):
            model.class_names = tuple(card["classes"])
    if mean is not None and (normaliser == "checkpoint" or not isinstance(model, FeatureClassifier)):
        raise UsageError(
            f"mean={mean!r} and std={std!r} would normalise twice: {str(path)!r} has its own; leave them out"
        )
    check_values(tensors, path, model)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"the weights {str(path)!r} do not fit the model ({reason}); pass the right model=") from error
    if mean is not None:
        model.set_normalisation(*channel_values(mean, std, image_channels(tensors)))
        normaliser = "given"
    notes = list((card.get("provenance") or {}).get("notes", []))
    model.loading = {"source": source, "normaliser": normaliser, "notes": notes}
    return model.eval()


def _read_pair(path: Path) -> tuple[dict[str, Any], bytes]:
    """The card and the bytes of the weights, which must be those that it was written for."""
    for attempt in range(ATTEMPTS):
        card = read_card(path.with_suffix(".json"))
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = error.strerror
            raise UsageError(f"the weights {str(path)!r} cannot be read ({reason}); train them again") from error
        if card.get("sha256") in (None, digest([content])):  # a card of version 0.1 has none
            return card, content
        if attempt + 1 < ATTEMPTS:
            time.sleep(0.2)  # a training may be between writing the one and the other
    raise UsageError(
        f"the weights {str(path)!r} do not have the checksum in their card: the file is damaged or was not written to "
        "its end; copy it again, or start the training again with the same out=, which restores it from its state"
    )


def read_card(path: Path, otherwise: str = "is missing or damaged: it must lie beside the weights") -> dict[str, Any]:
    """The JSON card beside a weights file; :class:`UsageError` if it is missing, damaged or of another schema."""
    try:
        card = json.loads(path.read_text())
        schema = card["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the card {str(path)!r} {otherwise} ({type(error).__name__})") from error
    if schema != SCHEMA:
        raise UsageError(f"the card {str(path)!r} has schema {schema!r}, this version reads {SCHEMA}; update waterbed")
    return card
