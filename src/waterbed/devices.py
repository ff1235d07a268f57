"""The device and memory format of a network, and seeded random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from torch import nn

from waterbed.errors import UsageError, check_seed

DERIVED_SEEDS = 2**63  # what torch takes: seeds of parts of a job, made of the user's and a number, are large


def memory_format(model: nn.Module) -> torch.memory_format:
    """Channels last, which is faster; contiguous for narrow networks on a CPU.

    With channels last, the CPU backward pass of torch 2.14 corrupted memory and crashed at widths 4 and 8 (two threads,
    AVX-512), but not at widths 16 and 32, which fill vectors of 16 floats.

    >>> memory_format(nn.Conv2d(3, 4, 3))
    torch.contiguous_format
    """
    narrow = any(m.out_channels % 16 for m in model.modules() if isinstance(m, nn.Conv2d))
    return torch.contiguous_format if narrow and device_of(model).type == "cpu" else torch.channels_last


@contextmanager
def channels_last(model: nn.Module) -> Iterator[None]:
    """Put the model's weights into its :func:`memory_format` inside the block, and back to contiguous after it.

    >>> model = nn.Conv2d(16, 16, 3)
    >>> with channels_last(model):
    ...     model.weight.is_contiguous(memory_format=torch.channels_last)
    True
    """
    model.to(memory_format=memory_format(model))
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer (the CPU if it has neither).

    >>> device_of(nn.Linear(2, 2))
    device(type='cpu')
    """
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def as_device(device: torch.device | str | None, usual: torch.device) -> torch.device:
    """A device that was asked for, or ``usual``.

    Raises:
        UsageError: torch does not know it, or it is not there.

    >>> as_device("gpu", torch.device("cpu"))
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: device='gpu' is not there; write 'cpu', or leave it out
    """
    try:
        return torch.empty(0, device=usual if device is None else device).device
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:  # which one depends on the build
        raise UsageError(f"device={device!r} is not there; write {str(usual)!r}, or leave it out") from error


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU; 0 for a device that computes in the host's memory, or whose memory is not known.

    >>> free_bytes(torch.device("cpu"))
    0
    """
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed random numbers inside the block; the caller's generators are restored after it.

    Raises:
        UsageError: ``seed`` is negative, or 2^63 or more.
        UsageTypeError: it is not a whole number.

    >>> with seeded(0):
    ...     a = torch.rand(1)
    >>> with seeded(0):
    ...     b = torch.rand(1)
    >>> bool(a == b)
    True
    """
    check_seed("seed", seed, DERIVED_SEEDS)
    device = torch.device(device)
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(int(seed))
        yield


def seeded_generator(seed: int) -> torch.Generator:
    """A generator of random numbers on the CPU.

    Raises:
        UsageError: ``seed`` is negative, or 2^63 or more.
        UsageTypeError: it is not a whole number.

    >>> int(torch.randint(10**6, (1,), generator=seeded_generator(0)))
    136044
    """
    check_seed("seed", seed, DERIVED_SEEDS)
    return torch.Generator().manual_seed(int(seed))
