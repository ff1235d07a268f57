"""Checks that every measure makes of its inputs, and the chunks it works through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.engine import device_of
from waterbed.errors import UsageError
from waterbed.models import probe


def check_inputs(model: nn.Module, inputs: Any) -> Tensor:
    """Raise unless ``inputs`` is a finite float tensor (N, ...) the model takes; returns the logits of the first."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={type(model).__name__} must be an nn.Module")
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        got = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(f"inputs must be a float tensor (N, ...), not {got}")
    if inputs.ndim < 2 or len(inputs) == 0:
        raise UsageError(f"inputs has shape {tuple(inputs.shape)}; pass one row an example, and at least one")
    if not bool(torch.isfinite(inputs).all()):
        raise UsageError("inputs has values that are NaN or infinite; remove them")
    if inputs.device != device_of(model):
        raise UsageError(f"inputs are on {inputs.device}, the model on {device_of(model)}; move one of them")
    logits = probe(model, inputs, "inputs")
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise UsageError(f"model gives outputs of shape {tuple(logits.shape)}; measures need logits (N, K), K >= 2")
    return logits


def chunks(inputs: Tensor, size: int) -> Iterator[Tensor]:
    """The inputs in groups of at most ``size``."""
    return iter(inputs.split(size))
