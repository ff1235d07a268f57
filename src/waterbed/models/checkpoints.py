"""Weights as safetensors with a JSON card beside them: saved by fit, read by load_model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from waterbed.errors import UsageError, check_choice
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.create import create_model

SCHEMA = 1
SOURCES = ("auto", "run", "safetensors")


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a whole file or leave the one that was there: a full disk loses nothing."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary.is_file():
            temporary.unlink()
        raise UsageError(f"cannot write {str(path)!r} ({error.strerror}); make room or choose another out=") from error


def save_model(model: nn.Module, path: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Write ``path`` (.safetensors) and its card, the same name with .json.

    The card says how to build the network (``architecture``, None for a user's own module), the input shape,
    the class names and whatever ``extra`` adds.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"path={str(path)!r} must end in .safetensors")
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    beside = path.with_suffix(".json")
    if beside.exists():
        read_card(beside, "would be overwritten, but it is no card of weights: choose another path")
    card = {
        "schema": SCHEMA,
        "architecture": getattr(model, "architecture", None),
        "class": type(model).__name__,
        "input_shape": list(getattr(model, "input_shape", None) or []) or None,
        **(extra or {}),
    }
    write_atomic(path, safetensors.torch.save(tensors))
    write_atomic(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())


def load_model(path_or_name: str | Path, source: str = "auto", model: nn.Module | None = None) -> nn.Module:
    """Read a trained network, on the CPU and in eval mode.

    Args:
        path_or_name: a run folder of ``fit``, or a .safetensors file with its JSON card beside it.
        source: "auto" tells them apart; "run" or "safetensors" insists on one.
        model: for weights of your own module: an instance to load them into.

    Raises:
        UsageError: nothing there, a corrupt file, a card of another schema, weights that do not fit.
    """
    check_choice("source", source, SOURCES)
    path = Path(path_or_name).expanduser()
    if not path.exists():
        raise UsageError(f"path_or_name={str(path_or_name)!r} does not exist; name a run folder or a .safetensors")
    if path.is_dir():
        if source == "safetensors" or not (path / "config.toml").is_file():
            raise UsageError(f"path_or_name={str(path)!r} is no run folder (it has no config.toml); name one")
        path = path / "weights.safetensors"
        if not path.is_file():
            raise UsageError(f"the run {str(path.parent)!r} has no weights yet; let its training finish an epoch")
    elif source == "run" or path.suffix != ".safetensors":
        raise UsageError(f"path_or_name={str(path)!r} is not a run folder or a .safetensors file; name one")
    card = read_card(path.with_suffix(".json"))
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UsageError(f"the weights {str(path)!r} cannot be read ({error}); copy or train them again") from error
    if model is None:
        if not card.get("architecture"):
            raise UsageError(
                f"{str(path)!r} holds weights of {card.get('class', 'a module')!r}, which create_model does not build; "
                "pass model=, an instance to load them into"
            )
        model = create_model(**card["architecture"])
    if isinstance(model, FeatureClassifier):
        if "mean" in tensors:
            model.set_normalisation(tensors["mean"], tensors["std"])
        if card.get("input_shape"):
            model.input_shape = tuple(card["input_shape"])
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"the weights {str(path)!r} do not fit the model ({reason}); pass the right model=") from error
    return model.eval()


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
