"""Batches of a data set, loaded in this process or by workers."""

from __future__ import annotations

import os
import random
import signal
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from waterbed.data.images import OnDevice, TensorImages, check_images, check_labels, to_float
from waterbed.data.map_style import map_style
from waterbed.data.samples import collate
from waterbed.devices import free_bytes, seeded_generator
from waterbed.errors import UsageError, UsageTypeError

SHARE_OF_DEVICE = 0.25  # of a GPU's free memory, at most, for images
Request = tuple[int, list[int]]  # the seed of a batch, and the positions of its examples


class Loader:
    """Checked batches of one data set, in any order, as often as they are asked for.

    Worker processes stay alive until :meth:`close`, or the end of the ``with`` block. What a worker draws at random
    depends on the seed and the batch alone, whichever worker loads it and wherever a resumed training starts.

    Args:
        dataset: map-style, of (image, label); labels may be ints or 0-d tensors. One with ``batch(indices)`` gives
            whole batches from memory, which need no workers; one with ``read_pixels(indices)`` gives them as uint8.
        num_classes: check labels against it; None skips that check.
        workers: number of worker processes that load examples.
        device: where images go, from pinned memory if it is a GPU; 8-bit images become floats there.
        resident: keep a :class:`~waterbed.data.images.TensorImages` in bytes on a GPU that has room for all of it.

    >>> with Loader([(torch.rand(1, 4, 4), i) for i in range(5)]) as loader:
    ...     [y.tolist() for _, y in loader.batches(2, order=torch.tensor([4, 0, 2]))]
    [[4, 0], [2]]
    """

    def __init__(
        self,
        dataset: Any,
        *,
        num_classes: int | None = None,
        workers: int = 0,
        device: torch.device | str = "cpu",
        resident: bool = False,
    ) -> None:
        if isinstance(dataset, DataLoader):  # its length is that of its batches
            raise UsageTypeError("dataset=DataLoader cannot be read by index; pass the loader's dataset")
        self.positions = torch.arange(len(dataset))
        while type(dataset) is Subset:
            self.positions = torch.as_tensor(dataset.indices, dtype=torch.long)[self.positions]
            dataset = dataset.dataset
        self.num_classes, self.device = num_classes, torch.device(device)
        self.dataset = _on_device(dataset, self.device) if resident else dataset
        self._requests: list[Request] = []
        self._loader = None
        if workers and not hasattr(dataset, "batch"):
            self._loader = DataLoader(
                _Requested(dataset),
                sampler=self._requests,
                batch_size=None,
                num_workers=workers,
                persistent_workers=True,
                pin_memory=self.device.type == "cuda",
                collate_fn=_as_it_is,
                generator=torch.Generator().manual_seed(0),  # without its own it would advance the caller's
                worker_init_fn=_leave_signals_to_the_parent,
            )
            self._end_workers = weakref.finalize(self, _end_workers, self._loader, os.getpid())

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, also where a traceback still holds what reads from them."""
        if self._loader is not None:
            self._end_workers()
            self._loader = None

    def batches(
        self, batch_size: int, *, order: Tensor | None = None, parts: int | None = None, skip: int = 0, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches ``(x, y)``: float32 (B, C, H, W) in [0, 1] on the device, and int64 (B,) on the CPU.

        Args:
            batch_size: examples per batch; the last batch may be smaller.
            order: indices to visit, in this order; all of them by default.
            parts: split into this many batches, whose sizes differ by at most one, instead of by ``batch_size``.
            skip: number of batches to leave out at the start.
            seed: of random transforms in workers.

        Raises:
            UsageError: images that are not finite or outside [0, 1], labels outside 0 .. num_classes - 1.
        """
        positions = self.positions if order is None else self.positions[order]
        if len(positions) == 0:
            return
        splits = positions.split(batch_size) if parts is None else positions.tensor_split(parts)
        for x, y in self._loaded(splits, skip, seed):
            if x.dtype != torch.uint8 or not hasattr(self.dataset, "read_pixels"):
                check_images(x, "data")
            if self.num_classes is not None:
                check_labels(y, self.num_classes, "data")
            yield to_float(x.to(self.device, non_blocking=True)), y.long()

    def _loaded(self, splits: tuple[Tensor, ...], skip: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        if self._loader is None:
            yield from (_read(self.dataset, indices) for indices in splits[skip:])
            return
        self._requests[:] = [
            (int(np.random.SeedSequence([seed, number, *indices[:1].tolist()]).generate_state(1)[0]), indices.tolist())
            for number, indices in enumerate(splits)
        ][skip:]
        for loaded in self._loader:
            if isinstance(loaded, Exception):
                raise loaded
            yield loaded


def batches(
    dataset: Any,
    batch_size: int,
    *,
    num_classes: int | None = None,
    workers: int = 0,
    device: torch.device | str = "cpu",
    **which: Any,
) -> Iterator[tuple[Tensor, Tensor]]:
    """:meth:`Loader.batches` (which takes ``which``) of a loader for this one pass.

    >>> [len(y) for _, y in batches([(torch.zeros(1, 4, 4), 0)] * 5, batch_size=2)]
    [2, 2, 1]
    """
    with Loader(dataset, num_classes=num_classes, workers=workers, device=device) as loader:
        yield from loader.batches(batch_size, **which)


def stack(
    dataset: Any, num_samples: int | None = None, seed: int = 0, num_classes: int | None = None, workers: int = 0
) -> tuple[Tensor, Tensor]:
    """``num_samples`` examples drawn without replacement (all by default) as two tensors (N, C, H, W), (N,).

    >>> import waterbed as wb
    >>> stack(wb.load_dataset("digits").test, 3)[0].shape
    torch.Size([3, 1, 8, 8])
    """
    dataset = map_style(dataset)
    total = len(dataset)
    if num_samples is not None and not 1 <= num_samples <= total:
        raise UsageError(f"num_samples={num_samples} must lie between 1 and {total}, the size of the data set")
    order = torch.arange(total)
    if num_samples is not None and num_samples < total:
        order = torch.randperm(total, generator=seeded_generator(seed))[:num_samples]
    parts = list(batches(dataset, 64, order=order, num_classes=num_classes, workers=workers))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _on_device(dataset: Any, device: torch.device) -> Any:
    """Images in memory as bytes on a GPU that has room for them: a batch then costs no transfer and no wait."""
    if device.type != "cuda" or type(dataset) is not TensorImages:
        return dataset
    return OnDevice(dataset, device) if dataset.images.nbytes < free_bytes(device) * SHARE_OF_DEVICE else dataset


class _Requested(Dataset):
    """Whole batches, as a worker loads them."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, request: Request) -> Any:
        seed, indices = request
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - a user's transform may draw from the global generator
        random.seed(seed)
        try:
            return _read(self.dataset, torch.tensor(indices))
        except (UsageError, UsageTypeError) as error:
            return error  # raised, it would arrive with the worker's traceback in its message


def _read(dataset: Any, indices: Tensor) -> Any:
    """One batch, its images as bytes or as floats."""
    for method in ("batch", "read_pixels"):
        if hasattr(dataset, method):
            return getattr(dataset, method)(indices)
    several = getattr(dataset, "__getitems__", None)
    return collate([dataset[i] for i in indices.tolist()] if several is None else several(indices.tolist()))


def _as_it_is(batch: Any) -> Any:
    return batch


def _end_workers(loader: DataLoader, owner: int) -> None:
    """End the workers of a loader. At exit nothing else would: multiprocessing waits for them after a SIGTERM, which
    they ignore. A fork of the process that owns them leaves them alone."""
    if loader._iterator is not None and os.getpid() == owner:
        loader._iterator._shutdown_workers()
        loader._iterator = None


def _leave_signals_to_the_parent(_: int) -> None:
    """A scheduler signals every process; ours then saves its state, for which its workers must live on."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
