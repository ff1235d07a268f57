"""Devices, precision and processes of a job: the only module that imports accelerate."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from waterbed.devices import memory_format

T = TypeVar("T")


class Engine:
    """Where a job runs and in which precision: its device, its rank and the number of processes.

    ``accelerate launch`` or ``torchrun`` start several processes; otherwise there is one.

    Args:
        precision: "fp32", "bf16", or "auto": bf16 where the hardware supports it natively.

    >>> Engine("fp32").processes
    1
    """

    def __init__(self, precision: str = "fp32") -> None:
        # mixed_precision="no" because autocast() below also covers attacks, which call the unwrapped module.
        # Without a GPU, accelerate joins torchrun's process group only with cpu=True.
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        joined = _in_group()
        self.accelerator = Accelerator(mixed_precision="no", cpu=several and not torch.cuda.is_available())
        if _in_group() and not joined:
            atexit.register(_leave_group)
        self.device: torch.device = self.accelerator.device
        self.rank: int = self.accelerator.process_index
        self.processes: int = self.accelerator.num_processes
        self.is_main: bool = self.accelerator.is_main_process
        self.precision = _auto_precision(self.device) if precision == "auto" else precision

    def autocast(self) -> AbstractContextManager[None]:
        """Run forward passes inside the block in bfloat16 if ``precision`` is "bf16"; weights stay in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of convolutions; None for that of the weights."""
        return torch.bfloat16 if self.precision == "bf16" else None

    def place(self, images: Tensor, model: nn.Module) -> Tensor:
        """Images (N, C, H, W) in the memory format that suits the model's convolutions."""
        return images.contiguous(memory_format=memory_format(model))

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model for the training step, with gradients averaged over processes."""
        return self.accelerator.prepare_model(model)

    def broadcast_buffers(self, module: nn.Module) -> None:
        """Copy the first process's buffers to all: each sees other images, so batch norm statistics differ."""
        if self.processes > 1:
            for buffer in module.buffers():
                value = buffer.to(self.device).contiguous()
                torch.distributed.broadcast(value, 0)
                buffer.copy_(value)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over processes of a tensor on any device."""
        return summed(tensor.to(self.device)).to(tensor.device)


def start_tracker(name: str, folder: Path, config: Mapping[str, Any]) -> Any:
    """Start accelerate's tracker of that name on a run folder, with the scalars of the run's config."""
    options = {
        # With "allow", a resumed training continues its run.
        "wandb": {"name": folder.name, "dir": str(folder), "resume": "allow"},
        "mlflow": {"run_name": folder.name},
    }
    accelerator = Accelerator(log_with=name, project_dir=str(folder / "tensorboard"))
    scalars = {key: value for key, value in config.items() if isinstance(value, bool | int | float | str)}
    accelerator.init_trackers("waterbed", scalars, {name: options.get(name, {})})
    return accelerator.trackers[0]


def _auto_precision(device: torch.device) -> str:
    """bf16 where the hardware supports it natively, fp32 elsewhere."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        native = torch.cpu.get_capabilities()
        return "bf16" if native.get("amx_bf16", False) or native.get("avx512_bf16", False) else "fp32"
    return "fp32"


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's share of the items; all of them if there is only one process.

    >>> share([1, 2, 3])
    [1, 2, 3]
    """
    rank, processes = _rank_and_processes()
    return items[rank::processes]


def slices(total: int, size: int) -> Sequence[slice]:
    """This process's share of the slices that cover ``total`` examples, each of at most ``size``.

    >>> slices(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    _, processes = _rank_and_processes()
    size = max(1, min(size, -(-total // processes)))
    return share([slice(start, min(start + size, total)) for start in range(0, total, size)])


def unwrapped(model: nn.Module) -> nn.Module:
    """The network itself, of what :meth:`Engine.wrap` made of it."""
    return extract_model_from_parallel(model)


def summed(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes; every process must call this.

    >>> summed(torch.ones(2))
    tensor([1., 1.])
    """
    if _rank_and_processes()[1] > 1:
        tensor = tensor.clone()
        torch.distributed.all_reduce(tensor)
    return tensor


def gathered(item: T) -> list[T]:
    """What every process has for ``item``, by rank; every process must call this. Small things: they are pickled.

    >>> gathered("mine")
    ['mine']
    """
    processes = _rank_and_processes()[1]
    if processes == 1:
        return [item]
    items: list[Any] = [None] * processes
    torch.distributed.all_gather_object(items, item)
    return items


def is_main() -> bool:
    """Whether this process writes files: the first, or the only one.

    >>> is_main()
    True
    """
    return _rank_and_processes()[0] == 0


def _rank_and_processes() -> tuple[int, int]:
    """Rank and number of processes."""
    if _in_group():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _in_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _leave_group() -> None:
    """Leave gloo's group before the interpreter shuts down: its threads may still hold tensors, and freeing those later
    would abort the process (github.com/pytorch/pytorch/pull/179291).

    To free them the threads need the interpreter's lock, which sleeping releases.
    """
    if _in_group() and torch.distributed.get_backend() == "gloo":
        time.sleep(0.5)
        torch.distributed.destroy_process_group()
