"""Devices: where a network lies, in which memory format, with which random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from torch import nn

from waterbed.errors import UsageError


def memory_format(model: nn.Module) -> torch.memory_format:
    """Channels last, the order that is fast; the usual one for narrow networks on a CPU.

    There the backward pass of torch 2.14 in channels-last order ended the process with damaged memory at widths 4 and
    8, on two threads of a processor with AVX-512; at widths 16 and 32, which fill its vectors of 16, it did not.
    """
    narrow = any(m.out_channels % 16 for m in model.modules() if isinstance(m, nn.Conv2d))
    return torch.contiguous_format if narrow and device_of(model).type == "cpu" else torch.channels_last


@contextmanager
def channels_last(model: nn.Module) -> Iterator[None]:
    """Convolutions inside keep their weights in :func:`memory_format`; the usual order comes back at the end."""
    model.to(memory_format=memory_format(model))
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer (the CPU if it has neither)."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Random numbers inside are those of ``seed``; the caller's generators are left as they were.

    >>> with seeded(0):
    ...     a = torch.rand(1)
    >>> with seeded(0):
    ...     b = torch.rand(1)
    >>> bool(a == b)
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed={seed!r} must be a whole number >= 0; pass such a value")
    device = torch.device(device)
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield
