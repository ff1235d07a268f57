"""Batch norm over the images of all processes, as if they were one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from waterbed.distributed import summed
from waterbed.errors import UsageError
from waterbed.training.config import TrainConfig


def batch_norms(config: TrainConfig, model: nn.Module, processes: int) -> AbstractContextManager[Any]:
    """A block, to be entered for every step, in which batch norms are as ``config.sync_batchnorm`` has them.

    The network itself stays as it is, so that its weights keep their names, and copies of it their layers.

    Raises:
        UsageError: batch norms over all processes, of a network that is compiled or whose layers keep no running
            statistics.
    """
    if not config.sync_batchnorm or processes == 1:
        return nullcontext()
    if config.compile:
        raise UsageError("sync_batchnorm=True cannot be honoured with compile=True; leave one of the two out")
    for name, module in model.named_modules():
        # In eval mode such a layer also normalises by the batch at hand, which may be that of an attack.
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UsageError(
                f"sync_batchnorm=True needs running statistics, which the layer {name!r} of the model does not keep; "
                "build it with track_running_stats=True"
            )
    return JointBatchNorm()


class JointBatchNorm(TorchFunctionMode):
    """Inside the block every batch norm in train mode takes part in all processes' batch, which all of them must enter
    with as many batches.

    With equal batches, the gradient's mean over processes is then that of one process with all the images. This is what
    ``torch.nn.SyncBatchNorm`` does, which has no CPU form and takes the place of layers.

    >>> images, layer = torch.rand(8, 3, 4, 4), nn.BatchNorm2d(3)
    >>> with JointBatchNorm():
    ...     joint = layer(images)
    >>> torch.allclose(joint, layer(images), atol=1e-5)
    True
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return (joint_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def joint_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.batch_norm`` by the mean and variance of all processes' inputs (N, C, ...).

    From this process's n, mean m and variance v the joint ones follow without cancellation:

        N = sum n,   M = sum n m / N,   V = sum n (v + (m - M)^2) / N.
    """
    if not training or running_mean is None or running_var is None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    x = input.to(torch.promote_types(input.dtype, torch.float32))
    variance, mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
    n = torch.full_like(mean, x.numel() / x.shape[1])
    total = summed(n)
    joint_mean = _Sum.apply(n * mean) / total
    joint_variance = _Sum.apply(n * (variance + (mean - joint_mean).square())) / total
    with torch.no_grad():
        running_mean.lerp_(joint_mean.to(running_mean), momentum)
        running_var.lerp_((joint_variance * total / (total - 1)).to(running_var), momentum)
    scale = (joint_variance + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - joint_mean * scale
    along_channels = (1, -1, *[1] * (x.ndim - 2))
    return (x * scale.view(along_channels) + shift.view(along_channels)).to(input.dtype)


class _Sum(torch.autograd.Function):
    """The sum over processes, of whose losses the sum is differentiated."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return summed(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)
