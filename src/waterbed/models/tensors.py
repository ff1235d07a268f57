"""The tensors of a foreign weights file by name, out of the dictionaries that training scripts put them into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from waterbed.errors import UsageError
from waterbed.models.pickled import unpickle

# Keys under which training scripts save the network beside epoch, optimiser and so on; the first one present counts.
NETWORKS = ("model", "state_dict", "model_state_dict", "net", "last")

# What these are called in every network that counts them among its weights.
LEARNT = ("weight", "bias", "running_mean", "running_var")


def read_tensors(path: Path, trust: bool = False) -> dict[str, Tensor]:
    """The network's tensors as stored, on the CPU.

    Args:
        path: a .safetensors file, or anything that ``torch.save`` wrote.
        trust: see :func:`~waterbed.models.pickled.unpickle`.

    Raises:
        UsageError: a file that cannot be read, that holds no tensors by name, or :func:`check_values`.
    """
    if path.suffix == ".safetensors":
        content: Any = read_safetensors(path)
    else:
        content = unpickle(path, trust, _network)
    tensors = _network(content)
    if not tensors:
        raise UsageError(
            f"the file {str(path)!r} holds {_kind(content)}, no tensors by name; "
            "name a state dict or a checkpoint with one under 'model' or 'state_dict'"
        )
    check_values(tensors, path)
    return tensors


def check_values(tensors: Mapping[str, Tensor], path: Path, model: nn.Module | None = None) -> None:
    """Raise :class:`UsageError` for values that no training leaves in a network.

    Args:
        path: of the file, for the message.
        model: what they are loaded into, whose own buffers may hold infinities, as masks do.
    """
    parameters = {} if model is None else dict(model.named_parameters())
    for name, tensor in tensors.items():
        in_file = f"the file {str(path)!r} has"
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise UsageError(f"{in_file} a sparse or quantised tensor {name!r}; save it dense")
        learnt = name.rpartition(".")[2] in LEARNT or (name in parameters and parameters[name].is_floating_point())
        if learnt and not tensor.is_floating_point():
            raise UsageError(f"{in_file} {tensor.dtype} in {name!r}; save it as floating-point numbers")
        if (learnt or model is None) and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"{in_file} a value in {name!r} that is not finite; find an earlier one")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise UsageError(f"{in_file} a negative variance in {name!r}; find one that is whole")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """A whole .safetensors file; :class:`UsageError` if it is damaged."""
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UsageError(f"the weights {str(path)!r} cannot be read ({error}); copy or train them again") from error


def parse_safetensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The same for a file's bytes; ``path`` is for the message."""
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise UsageError(f"the weights {str(path)!r} cannot be read ({error}); copy or train them again") from error


def _network(content: Any) -> dict[str, Tensor]:
    """The state dict inside nested dictionaries; empty if there is none.

    >>> list(_network({"epoch": 3, "state_dict": {"fc.weight": torch.ones(2, 2)}}))
    ['fc.weight']
    """
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        return {}
    for key in NETWORKS:
        if isinstance(content.get(key), Mapping | nn.Module):
            return _network(content[key])
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}


def _kind(content: Any) -> str:
    """What the file holds instead of tensors, in words."""
    if isinstance(content, Mapping) and content:
        return "a dict with " + ", ".join(repr(key) for key in list(content)[:5])
    return f"a {type(content).__name__}"
