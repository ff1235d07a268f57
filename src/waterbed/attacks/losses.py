"""The losses that an attack ascends: by name, or a user's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from waterbed.errors import UsageError, UsageTypeError, check_choice

# The loss of each example, from logits (N, K) and labels y (N,) to (N,); large where the image is misclassified.
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log p(y | x), in nats."""
    return F.cross_entropy(logits.float() if logits.dtype == torch.bfloat16 else logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The largest logit of another class less that of ``y``: positive where the image is misclassified.

    Carlini and Wagner (2017), "Towards evaluating the robustness of neural networks", f_6 without its cut at zero.

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([-1.])
    """
    own = F.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).amax(1) - logits[own]


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "margin": margin}


def as_loss(loss: str | Loss) -> Loss:
    """The loss of a name; a user's own comes back with a check that it gives one number for each example.

    Raises:
        UsageError: an unknown name; later, a loss of another shape than (N,).
        UsageTypeError: neither a name nor a function.
    """
    if isinstance(loss, str):
        check_choice("loss", loss, LOSSES)
        return LOSSES[loss]
    if not callable(loss):
        raise UsageTypeError(f"loss={loss!r} must be a function (logits, y) -> (N,), or one of {', '.join(LOSSES)}")

    def checked(logits: Tensor, y: Tensor) -> Tensor:
        values = loss(logits, y)
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        if shape != (len(y),):
            raise UsageError(
                f"loss={loss_name(loss)} returned {shape} for {len(y)} images; return one loss for each, as with "
                "reduction='none'"
            )
        return values

    return checked


def loss_name(loss: str | Loss) -> str:
    """What stands in the name and the config of an attack: a name, or that of the function or its class."""
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
