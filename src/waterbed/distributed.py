"""Device, precision and processes: the only file that imports accelerate."""

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
from torch import Tensor, nn

from waterbed.devices import memory_format

T = TypeVar("T")


class Engine:
    """Where a job runs: the device, the number of processes and the arithmetic.

    ``accelerate launch`` (or ``torchrun``) starts several processes; a plain start is one.
    """

    def __init__(self, precision: str = "fp32") -> None:
        # The autocast below is ours, so that attacks on the raw module see the same arithmetic.
        # Without a GPU accelerate takes part in torchrun's group only if told so.
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
        """Forward passes inside run in bfloat16 where that was chosen; weights stay in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def dtype(self) -> torch.dtype | None:
        """What convolutions compute in; None for the weights' own type."""
        return torch.bfloat16 if self.precision == "bf16" else None

    def place(self, images: Tensor, model: nn.Module) -> Tensor:
        """Images (N, C, H, W) in the order in memory that suits the model's convolutions."""
        return images.contiguous(memory_format=memory_format(model))

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as the training step calls it: gradients are averaged over processes."""
        return self.accelerator.prepare_model(model)

    def broadcast_buffers(self, module: nn.Module) -> None:
        """The first process's buffers to all; batch norms see other images in each."""
        if self.processes > 1:
            for buffer in module.buffers():
                value = buffer.to(self.device).contiguous()
                torch.distributed.broadcast(value, 0)
                buffer.copy_(value)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over processes, of a tensor that may lie on any device."""
        return summed(tensor.to(self.device)).to(tensor.device)


def start_tracker(name: str, folder: Path, config: Mapping[str, Any]) -> Any:
    """accelerate's tracker of that name, started on a run folder with the scalars of the run's config."""
    options = {
        "wandb": {"name": folder.name, "dir": str(folder), "resume": "allow"},  # a resumed training goes on in its run
        "mlflow": {"run_name": folder.name},
    }
    accelerator = Accelerator(log_with=name, project_dir=str(folder / "tensorboard"))
    scalars = {key: value for key, value in config.items() if isinstance(value, bool | int | float | str)}
    accelerator.init_trackers("waterbed", scalars, {name: options.get(name, {})})
    return accelerator.trackers[0]


def _auto_precision(device: torch.device) -> str:
    """bf16 where the hardware multiplies it natively, fp32 elsewhere."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        native = torch.cpu.get_capabilities()
        return "bf16" if native.get("amx_bf16", False) or native.get("avx512_bf16", False) else "fp32"
    return "fp32"


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of work that several processes do together; all of it where there is one process.

    >>> share([1, 2, 3])
    [1, 2, 3]
    """
    rank, processes = _place_among_processes()
    return items[rank::processes]


def slices(total: int, size: int) -> Sequence[slice]:
    """``total`` examples in parts of at most ``size``, of which this process gets its share."""
    _, processes = _place_among_processes()
    size = max(1, min(size, -(-total // processes)))
    return share([slice(start, min(start + size, total)) for start in range(0, total, size)])


def summed(tensor: Tensor) -> Tensor:
    """The sum of a tensor over processes, each of which must call this.

    >>> summed(torch.ones(2))
    tensor([1., 1.])
    """
    if _place_among_processes()[1] > 1:
        tensor = tensor.clone()
        torch.distributed.all_reduce(tensor)
    return tensor


def _place_among_processes() -> tuple[int, int]:
    """Rank and number of processes."""
    if _in_group():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _in_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _leave_group() -> None:
    """Gloo's threads may still hold tensors; freeing them once the interpreter is ending would abort the process.

    See github.com/pytorch/pytorch/pull/179291. They need the interpreter's lock for it, which sleeping leaves to them.
    """
    if _in_group() and torch.distributed.get_backend() == "gloo":
        time.sleep(0.5)
        torch.distributed.destroy_process_group()
