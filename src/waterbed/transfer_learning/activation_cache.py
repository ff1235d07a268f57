"""A network's outputs for every image of a data set, computed once and stored in memory or in a file."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.data.loading import SHARE_OF_DEVICE, Loader
from waterbed.devices import device_of, free_bytes, seeded
from waterbed.errors import UsageError
from waterbed.models.states import frozen
from waterbed.progress import Progress

CPU = torch.device("cpu")
MEMORY_BYTES = 2**30
DISK_BYTES = 20 * 2**30
BATCH_SIZE = 256


@dataclass(frozen=True)
class Cache:
    """Activations of a data set of N images.

    Attributes:
        values: for each of the network's outputs (views, N, ...), float32 on a device or bfloat16 in a file.
        labels: (N,), on the CPU.
    """

    values: tuple[Tensor, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def views(self) -> int:
        """Augmented copies of every image."""
        return len(self.values[0])

    def batch(self, indices: Tensor, view: int, device: torch.device) -> tuple[list[Tensor], Tensor]:
        """The activations (B, ...), float32, and the labels (B,) of the images ``indices`` (B,)."""
        return [v[view, indices].to(device).float() for v in self.values], self.labels[indices].to(device)


@dataclass(frozen=True)
class CachePlan:
    """Shape and place of a cache, known before anything is computed.

    Attributes:
        shapes: (views, N, ...) for each of the network's outputs.
        device: in whose memory the values are, as float32; None: as bfloat16 in a temporary file.

    >>> print(CachePlan.of([torch.zeros(1, 512)], views=1, total=1000))
    memory, float32, 1 view
    """

    shapes: tuple[tuple[int, ...], ...]
    device: torch.device | None

    @classmethod
    def of(
        cls,
        outputs: Sequence[Tensor],
        views: int,
        total: int,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
        device: torch.device = CPU,
    ) -> CachePlan:
        """A plan within the budget: on ``device`` if it is a GPU with room enough, else in memory, else in a file.

        Args:
            outputs: the network's for some images, (B, ...) each.
            views: augmented copies of each image.
            total: images of the data set.
            memory_bytes: a cache of up to that size is float32 in memory, a larger one bfloat16 in a temporary file.
            disk_bytes: a larger file is refused.
            device: on which the network runs and its tail is trained.

        Raises:
            UsageError: the cache fits neither.
        """
        shapes = tuple((views, total, *output.shape[1:]) for output in outputs)
        numbers = sum(torch.Size(shape).numel() for shape in shapes)
        if 4 * numbers <= SHARE_OF_DEVICE * free_bytes(device):
            return cls(shapes, device)
        in_memory = 4 * numbers <= memory_bytes
        if not in_memory and 2 * numbers > disk_bytes:
            raise UsageError(
                f"the cache would need {2 * numbers / 2**30:.1f} GiB and the budget is {disk_bytes / 2**30:.1f}; raise "
                "disk_bytes, take fewer views or images, or pass cache='never'"
            )
        return cls(shapes, CPU if in_memory else None)

    def __str__(self) -> str:
        elsewhere = "" if self.device in (None, CPU) else f" of {self.device}"
        return self.record.replace("memory", f"memory{elsewhere}")

    @property
    def record(self) -> str:
        """What a run records: not whose memory it is, which is that of another device when the run is called again with
        less room, and changes no number."""
        views = self.shapes[0][0]
        return f"{'file, bfloat16' if self.device is None else 'memory, float32'}, {views} view{'s' * (views > 1)}"

    def allocate(self) -> tuple[Tensor, ...]:
        """Uninitialised tensors of these shapes; a file, if any, disappears with its tensor."""
        if self.device is None:
            return tuple(map(_mapped, self.shapes))
        return tuple(torch.empty(shape, device=self.device) for shape in self.shapes)


def _mapped(shape: tuple[int, ...]) -> Tensor:
    """A bfloat16 tensor in a temporary file."""
    with tempfile.NamedTemporaryFile(prefix="waterbed-cache-", delete=False) as file:
        path = Path(file.name)
    size = torch.Size(shape).numel()
    try:
        return torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16).view(shape)
    except RuntimeError as error:
        raise UsageError(f"the cache file {str(path)!r} cannot be made ({error}); pass cache='never'") from error
    finally:
        path.unlink()  # the mapping keeps the content until the tensor is gone


def fill(
    plan: CachePlan,
    network: nn.Module,
    dataset: Any,
    num_classes: int,
    augment: Callable[[Tensor], Tensor] = lambda x: x,
    seed: int = 0,
    progress: bool = False,
    workers: int = 0,
    device: torch.device | None = None,
) -> Cache:
    """Run ``network`` over ``dataset`` once for each view, in eval mode.

    Args:
        plan: of this network's outputs for this data set.
        network: images (B, C, H, W) to a tuple of tensors (B, ...).
        dataset: map-style, ``(image, label)``, labels below ``num_classes``.
        augment: of the images, drawn anew for each view.
        device: where a copy of the network runs, if it is not on this device itself.
        workers: processes that load the images. What the loading of an image draws is then drawn by them.
    """
    device = device or device_of(network)
    network = network if device_of(network) == device else copy.deepcopy(network).to(device)
    values, labels = plan.allocate(), torch.empty(len(dataset), dtype=torch.long)
    views = len(values[0])
    steps = views * -(-len(dataset) // BATCH_SIZE)
    with (
        frozen(network),
        torch.no_grad(),
        seeded(seed, device),
        Progress("caching the trunk", steps, progress) as progress_bar,
        Loader(dataset, num_classes=num_classes, workers=workers, device=device) as loader,
    ):
        for view in range(views):
            start = 0
            for x, y in loader.batches(BATCH_SIZE, seed=seed * 1_000_003 + view):
                part = slice(start, start + len(x))
                for store, output in zip(values, network(augment(x)), strict=True):
                    store[view, part] = output.to(store)
                labels[part] = y
                start += len(x)
                progress_bar.advance(message=str(plan))
    return Cache(values, labels)
