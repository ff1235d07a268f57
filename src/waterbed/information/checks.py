"""Checks that every measure makes of its inputs, and the chunks it works through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from waterbed.data.columns import is_table
from waterbed.data.loading import stack
from waterbed.devices import device_of
from waterbed.distributed import summed
from waterbed.errors import UsageError, UsageTypeError, check_choice
from waterbed.models.states import check_module, probe

CHUNK_BYTES = 2**29


def check_inputs(model: nn.Module, inputs: Any) -> tuple[Tensor, Tensor]:
    """Raise unless ``inputs`` is a finite float tensor (N, ...) the model takes; returns it on the model's device, and
    the logits of the first."""
    check_module(model)
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        got = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise UsageTypeError(f"inputs must be a float tensor (N, ...), not {got}")
    if inputs.ndim < 2 or len(inputs) == 0:
        raise UsageError(f"inputs has shape {tuple(inputs.shape)}; pass one row for each example, and at least one")
    if not bool(torch.isfinite(inputs).all()):
        raise UsageError("inputs has values that are NaN or infinite; remove them")
    if torch.is_inference_mode_enabled() or any(p.is_inference() for p in model.parameters()):
        raise UsageError("measures need gradients, which torch.inference_mode() forbids; leave it (no_grad will do)")
    inputs = inputs.clone() if inputs.is_inference() else inputs
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UsageError(
                f"model has a batch norm without running statistics, {name!r}: what it does to one example depends on "
                "the others, so no measure is defined; use track_running_stats=True"
            )
    inputs = inputs.to(device_of(model))
    logits = probe(model, inputs, "inputs")
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise UsageError(f"model gives outputs of shape {tuple(logits.shape)}; measures need logits (N, K), K >= 2")
    return inputs, logits


def gather_batches(inputs: Any) -> tuple[Any, Tensor | None]:
    """Inputs as one tensor and the labels that came with them, from a Hugging Face ``Dataset``, a DataLoader or other
    batches ``x`` or ``(x, y)``; whatever else ``inputs`` is comes back as it is, for :func:`check_inputs` to judge."""
    if is_table(inputs):
        return stack(inputs)
    if not isinstance(inputs, Iterable) and hasattr(inputs, "__getitem__"):
        kind = type(inputs).__name__
        raise UsageTypeError(f"inputs={kind} has single examples; pass DataLoader(inputs, batch_size=256)")
    if not isinstance(inputs, Iterable) or isinstance(inputs, (Tensor, np.ndarray, str, Mapping)):
        return inputs, None
    images, labels = [], []
    for i, batch in enumerate(inputs):
        x, y = batch if isinstance(batch, (tuple, list)) and len(batch) == 2 else (batch, None)
        wanted = f"batch {i} of inputs must be x (n, ...) or (x, y), float tensor and labels (n,)"
        if not isinstance(x, Tensor) or not (y is None or isinstance(y, Tensor)):
            got = f"({type(x).__name__}, {type(y).__name__})" if y is not None else type(x).__name__
            raise UsageTypeError(f"{wanted}, not {got}; wrap a data set of single examples in a DataLoader")
        if x.ndim == 0 or (y is not None and (y.ndim == 0 or len(x) != len(y))):
            shapes = tuple(x.shape) if y is None else (tuple(x.shape), tuple(y.shape))
            raise UsageError(f"{wanted}, not of shape {shapes}")
        if images and (x.shape[1:] != images[0].shape[1:] or (y is None) == bool(labels)):
            raise UsageError(f"{wanted}, as the ones before: inputs of one shape, all with labels or all without")
        images.append(x)
        labels += [] if y is None else [y]
    if not images:
        raise UsageError("inputs has no batches; pass a loader with one or more (an iterator is empty after one pass)")
    return torch.cat(images), torch.cat(labels) if labels else None


def examples_that_fit(bytes_each: int) -> int:
    """How many examples at a time the memory set aside allows."""
    return max(1, min(256, CHUNK_BYTES // bytes_each))


def per_example(
    total: int, pieces: Iterable[tuple[slice, Tensor]], like: Tensor, shape: tuple[int, ...] = ()
) -> Tensor:
    """One float64 tensor (total, *shape) assembled from each process's pieces, each at its slice."""
    values = torch.zeros(total, *shape, dtype=torch.float64, device=like.device)
    for part, piece in pieces:
        values[part] = piece.double()
    return summed(values)


def choose_parameters(model: nn.Module, params: str | Callable[[str], bool]) -> dict[str, Tensor]:
    """The chosen parameters by name, in ``model.parameters()`` order."""
    if not callable(params):
        check_choice("params", params, ("all", "features"))
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    named = dict(model.named_parameters())
    shared = [name for name in names if name not in named]
    if shared:
        raise UsageError(f"model shares the parameter {shared[0]!r} between layers; give each layer its own")
    if params == "features":
        if not hasattr(model, "head"):
            raise UsageError("params='features' needs model.head; pass wb.wrap(model)")
        head = {id(p) for p in model.head.parameters()}
        chosen = {name: p for name, p in named.items() if id(p) not in head}
    elif params == "all":
        chosen = named
    else:
        chosen = {name: p for name, p in named.items() if params(name)}
    if not chosen:
        raise UsageError(f"params={params!r} chooses no parameter; the model has {', '.join(names[:4]) or 'none'}, ...")
    return chosen


def check_targets(targets: Any, labels: str, n: int, classes: int) -> Tensor | None:
    """The labels of the inputs as int64 (n,), or None; raise where they are missing or wrong."""
    if targets is None:
        if labels == "empirical":
            raise UsageError("labels='empirical' needs targets=, the labels of the inputs")
        return None
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.shape != (n,):
        got = f"{targets.dtype} {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise UsageTypeError(f"targets must be an integer tensor ({n},), not {got}")
    if int(targets.min()) < 0 or int(targets.max()) >= classes:
        raise UsageError(
            f"targets run from {int(targets.min())} to {int(targets.max())}; the model knows 0 .. {classes - 1}"
        )
    return targets.long()
