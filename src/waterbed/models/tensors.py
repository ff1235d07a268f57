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


def read_tensors(path: Path, trust: bool = False) -> dict[str, Tensor]:
    """The network's tensors as stored, on the CPU.

    Args:
        path: a .safetensors file, or anything that ``torch.save`` wrote.
        trust: see :func:`~waterbed.models.pickled.unpickle`.

    Raises:
        UsageError: a file that cannot be read, that holds no tensors by name, or that has a value that is not finite.
    """
    if path.suffix == ".safetensors":
        content: Any = read_safetensors(path)
    else:
        content = unpickle(path, trust)
    tensors = _network(content)
    if not tensors:
        raise UsageError(
            f"the file {str(path)!r} holds {_kind(content)}, no tensors by name; "
            "name a state dict or a checkpoint with one under 'model' or 'state_dict'"
        )
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise UsageError(f"the file {str(path)!r} has a sparse or quantised tensor {name!r}; save it dense")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"the file {str(path)!r} has a value in {name!r} that is not finite; find an earlier one")
    return tensors


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
