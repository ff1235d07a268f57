"""States of a network: frozen, in eval mode, unchanged afterwards; one example through it as a check."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from waterbed.errors import UsageError


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Eval mode, no gradients for the weights; every module's and weight's state comes back at the end.

    Attacks, measures and inversions run inside. It holds after an exception too.

    >>> model = nn.Linear(2, 2)
    >>> with frozen(model):
    ...     model.training, model.weight.requires_grad
    (False, False)
    >>> model.training, model.weight.requires_grad
    (True, True)
    """
    with evaluating(model):
        required = [(p, p.requires_grad) for p in model.parameters()]
        try:
            yield model.requires_grad_(False)
        finally:
            for parameter, flag in required:
                parameter.requires_grad_(flag)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Eval mode inside; every submodule's own mode comes back, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training


def probe(model: nn.Module, x: Tensor, argument: str = "images") -> Tensor:
    """Run one example through the model and return its output; :class:`UsageError` if the shape does not fit
    or the weights give values that are not finite."""
    check_weights(model)
    try:
        with evaluating(model), torch.no_grad():
            out = model(x[:1])
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UsageError(
            f"{argument} of shape {tuple(x.shape)} ({x.dtype}) do not fit the model ({reason}); pass images of the "
            "shape and type it was built for"
        ) from error
    return out


def check_weights(model: nn.Module) -> None:
    """Raise :class:`UsageError` if a weight or buffer is NaN or infinite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"model has a value in {name!r} that is not finite; load or train it again")


@contextmanager
def unchanged(model: nn.Module) -> Iterator[nn.Module]:
    """Frozen, in eval mode inside; modes and buffers come back bit for bit, also after an exception.

    Eval mode stops BatchNorm; it does not stop modules that count or observe in a buffer of their own.

    >>> model = nn.BatchNorm2d(1)
    >>> with unchanged(model):
    ...     model.training, model.running_mean.add_(1)
    (False, tensor([1.]))
    >>> model.training, model.running_mean
    (True, tensor([0.]))
    """
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        with frozen(model):
            yield model
    finally:
        with torch.no_grad():
            for module, name, buffer, value in kept:
                setattr(module, name, buffer if torch.equal(buffer, value) else buffer.copy_(value))
