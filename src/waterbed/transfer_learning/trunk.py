"""The part of a network that a transfer mode leaves alone, evaluated once: what it puts out is cached."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from waterbed.data.augment import augmentation
from waterbed.data.images import batches
from waterbed.devices import device_of, seeded
from waterbed.errors import UsageError
from waterbed.models.states import evaluating, frozen
from waterbed.progress import Progress

MEMORY_BYTES = 2**30
DISK_BYTES = 20 * 2**30


class UntraceableError(UsageError):
    """torch.fx cannot follow the network's forward."""


def split(model: nn.Module, names: list[str]) -> tuple[nn.Module, nn.Module]:
    """Cut ``model`` before the modules ``names``: (trunk, tail) with model(x) = tail(*trunk(x)).

    The tail holds these modules and all that depends on them; both parts share their modules with the model, so
    training the tail trains the model.

    Raises:
        UntraceableError: torch.fx cannot trace the model.

    >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> trunk, tail = split(model, ["2"])
    >>> x = torch.randn(5, 3)
    >>> torch.equal(tail(*trunk(x)), model(x))
    True
    """
    with evaluating(model):
        try:
            graph = fx.Tracer().trace(model)
        except Exception as error:  # whatever a user's forward raises on a proxy
            raise UntraceableError(f"model cannot be traced ({error}), so it cannot be cut; pass another") from error
    late: set[fx.Node] = set()
    for node in graph.nodes:
        trained = node.op == "call_module" and node.target in names
        if trained or any(before in late for before in node.all_input_nodes):
            late.add(node)
    cut = [n for n in graph.nodes if n not in late and any(user in late for user in n.users)]
    trunk, tail = fx.Graph(), fx.Graph()
    early: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node not in late:
            early[node] = trunk.node_copy(node, early.__getitem__)
    trunk.output(tuple(early[node] for node in cut))
    copied = {node: tail.placeholder(f"cut_{i}") for i, node in enumerate(cut)}
    for node in graph.nodes:
        if node in late:
            copied[node] = tail.node_copy(node, copied.__getitem__)
    parts = fx.GraphModule(model, trunk), fx.GraphModule(model, tail)
    for part in parts:
        part.graph.eliminate_dead_code()
        part.recompile()
    return parts


@dataclass(frozen=True)
class Cache:
    """What the trunk puts out for every image of a data set.

    Attributes:
        values: for each of the trunk's outputs (views, N, ...), float32 in memory or bfloat16 in a file.
        labels: (N,).
        said: "memory, float32" or "file, bfloat16", and how many views.
    """

    values: tuple[Tensor, ...]
    labels: Tensor
    said: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def views(self) -> int:
        """Augmented copies of every image."""
        return len(self.values[0])

    def batch(self, indices: Tensor, view: int, device: torch.device) -> tuple[list[Tensor], Tensor]:
        """The tail's inputs and the labels of some images."""
        return [v[view, indices].to(device).float() for v in self.values], self.labels[indices].to(device)


def fill(
    trunk: nn.Module,
    dataset: Any,
    num_classes: int,
    *,
    data: Any,
    augment: str = "none",
    views: int = 1,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    disk_bytes: int = DISK_BYTES,
    batch_size: int = 256,
    progress: bool = False,
) -> Cache:
    """Run the trunk over ``dataset`` once for each view, in eval mode.

    Args:
        augment: of the images, drawn anew for each view; one view without augmentation shows each image as it is.
        memory_bytes: up to that size the cache is float32 in memory; beyond, a temporary bfloat16 file.
        disk_bytes: a larger file is refused with :class:`UsageError`.
    """
    device = device_of(trunk)
    changed = augmentation(augment, data)
    total = len(dataset)
    values: tuple[Tensor, ...] | None = None
    labels = torch.empty(total, dtype=torch.long)
    said = ""
    steps = views * -(-total // batch_size)
    with frozen(trunk), torch.no_grad(), seeded(seed, device), Progress("caching the trunk", steps, progress) as shown:
        for view in range(views):
            start = 0
            for x, y in batches(dataset, batch_size, num_classes=num_classes):
                out = trunk(changed(x.to(device)))
                if values is None:
                    values, said = _storage(out, views, total, memory_bytes, disk_bytes)
                for store, part in zip(values, out, strict=True):
                    store[view, start : start + len(x)] = part.to(store)
                labels[start : start + len(x)] = y
                start += len(x)
                shown.advance()
    return Cache(values, labels, said)


def _storage(
    out: tuple[Tensor, ...], views: int, total: int, memory_bytes: int, disk_bytes: int
) -> tuple[tuple[Tensor, ...], str]:
    """Empty tensors (views, total, ...) for the trunk's outputs, in memory or in a file that goes with the process."""
    shapes = [(views, total, *part.shape[1:]) for part in out]
    numbers = sum(torch.Size(shape).numel() for shape in shapes)
    many = f"{views} view{'s' * (views > 1)}"
    if 4 * numbers <= memory_bytes:
        return tuple(torch.empty(shape) for shape in shapes), f"memory, float32, {many}"
    if 2 * numbers > disk_bytes:
        raise UsageError(
            f"the cache would need {2 * numbers / 2**30:.1f} GiB and the budget is {disk_bytes / 2**30:.1f}; raise "
            "disk_bytes, take fewer views or images, or pass cache='never'"
        )
    stores = []
    for shape in shapes:
        with tempfile.NamedTemporaryFile(prefix="waterbed-cache-", delete=False) as file:
            path = Path(file.name)
        size = torch.Size(shape).numel()
        try:
            stores.append(torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16).view(shape))
        except RuntimeError as error:
            raise UsageError(f"the cache file {str(path)!r} cannot be made ({error}); pass cache='never'") from error
        finally:
            path.unlink()  # the mapping keeps it until the tensor is gone
    return tuple(stores), f"file, bfloat16, {many}"
