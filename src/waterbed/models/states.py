"""States of a network, each restored at the end: frozen, in eval mode, unchanged; and checks of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from waterbed.errors import UsageError, UsageTypeError


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Eval mode and no gradients for the weights; every module's and weight's own state is restored, also after an
    exception. Attacks, measures and inversions run inside.

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
    """Eval mode; every submodule's own mode is restored, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training


def check_module(model: Any) -> None:
    """Raise :class:`UsageTypeError` unless ``model`` is a network whose weights can be frozen, and
    :class:`UsageError` if it does not have all of them yet.

    >>> check_module("resnet18")
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageTypeError: model='resnet18' is a name; write create_model('resnet18', num_classes) or \
load_model('resnet18')
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageTypeError("model is a TorchScript module, which is closed; pass the network that it was made of")
    if isinstance(model, nn.Module):
        if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
            raise UsageError("model has layers without a size yet; run it once: model(torch.zeros(2, C, H, W))")
        return
    if isinstance(model, type):
        raise UsageTypeError(f"model={model.__name__} is a class; write {model.__name__}(...)")
    if isinstance(model, str | Path):
        name = repr(str(model))
        raise UsageTypeError(f"model={name} is a name; write create_model({name}, num_classes) or load_model({name})")
    advice = "; pass its .model" if isinstance(getattr(model, "model", None), nn.Module) else ""  # of a Run
    kind = type(model).__name__
    raise UsageTypeError(f"model={kind} must be an nn.Module: images (N, C, H, W) to logits (N, K){advice}")


def probe(
    model: nn.Module, x: Tensor, argument: str = "images", function: Callable[[Tensor], Any] | None = None
) -> Any:
    """The output (1, K) of the model, or of a ``function`` of it, in eval mode, for the first of ``x`` (N, ...).

    Raises:
        UsageError: the model does not take this shape or type, or a weight or buffer is not finite.
    """
    check_weights(model)
    check_channels = getattr(model, "check_channels", None)
    if check_channels is not None:
        check_channels(x, argument)
    try:
        with evaluating(model), torch.no_grad():
            out = (function or model)(x[:1])
        if function is None and not isinstance(out, Tensor):
            raise UsageTypeError(
                f"model={type(model).__name__} gives {type(out).__name__}, not logits (N, K); pass a module that does"
            )
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
    """:func:`frozen`, and buffers are restored bit for bit as well, also after an exception.

    Eval mode stops BatchNorm from updating its statistics, but not a module that counts or observes in a buffer of
    its own.

    >>> model = nn.BatchNorm2d(1)
    >>> with unchanged(model):
    ...     model.training, model.running_mean.add_(1)
    (False, tensor([1.]))
    >>> model.training, model.running_mean
    (True, tensor([0.]))
    """
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        with frozen(model):
            yield model
    finally:
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                setattr(module, name, buffer if torch.equal(buffer, value) else buffer.copy_(value))
