"""extract_features: the representation of a whole data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.data.loading import batches
from waterbed.data.map_style import map_style
from waterbed.data.task import as_task
from waterbed.devices import device_of
from waterbed.distributed import slices, summed
from waterbed.errors import check_choice, check_count
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.heads import with_features
from waterbed.models.states import evaluating, probe
from waterbed.progress import track

BATCH_SIZE = 256


def extract_features(
    model: nn.Module,
    data: Any,
    split: str = "train",
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
    *,
    indices: Tensor | None = None,
    workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """Features (N, d) and labels (N,), on the CPU, in eval mode.

    Several processes share the work, and each gets all of it.

    Args:
        model: with ``features(x)``, images (N, C, H, W) in [0, 1] to (N, d), or any classifier that
            :func:`waterbed.wrap` takes.
        data: what ``load_dataset`` returns or a pair (train, test), of which ``split`` ("train" or "test") is taken; or
            one data set, loader or Hugging Face ``Dataset``, as :func:`waterbed.evaluate` takes it.
        indices: (N,), the examples to take, in this order; all by default.
        workers: number of processes that load images, for data too large for memory.

    Raises:
        UsageError: another split, images outside [0, 1], labels that are none of the classes of ``data``.

    >>> import waterbed as wb
    >>> model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    >>> features, labels = extract_features(model, wb.load_dataset("digits"), indices=torch.tensor([3, 1, 4]))
    >>> features.shape, labels.shape
    (torch.Size([3, 16]), torch.Size([3]))
    """
    check_choice("split", split, ("train", "test"))
    check_count("workers", workers, at_least=0)
    data = as_task(data) if isinstance(data, tuple | Mapping) else data
    num_classes = getattr(data, "num_classes", None)
    dataset = map_style(getattr(data, split, data), "data", getattr(model, "input_shape", None))
    model = with_features(model, getattr(data, "shape", None))
    indices = torch.arange(len(dataset)) if indices is None else indices
    device = device_of(model)
    mine = torch.cat([torch.arange(part.start, part.stop) for part in slices(len(indices), batch_size)])
    features, labels = [], []
    with torch.no_grad(), evaluating(model):
        drawn = batches(
            dataset, batch_size, order=indices[mine], num_classes=num_classes, workers=workers, device=device
        )
        for x, y in track(drawn, "features", -(-len(mine) // batch_size), progress):
            if not features:
                probe(model, x, "data images", model.features)
            features.append(model.features(x))
            labels.append(y.to(device))
    return tuple(_from_all_processes(torch.cat(part), mine, len(indices)).cpu() for part in (features, labels))


@torch.no_grad()
def head_probabilities(model: FeatureClassifier, features: Tensor, batch_size: int = BATCH_SIZE) -> Tensor:
    """Probabilities (N, K), on the CPU, that the model's head gives for features (N, d)."""
    device = device_of(model)
    return torch.cat([model.head(part.to(device)).softmax(1).cpu() for part in features.split(batch_size)])


def _from_all_processes(values: Tensor, mine: Tensor, total: int) -> Tensor:
    """All rows (total, ...), of which this process computed those at the positions ``mine``."""
    if len(mine) == total:
        return values
    whole = values.new_zeros(total, *values.shape[1:])
    whole[mine.to(values.device)] = values
    return summed(whole)
