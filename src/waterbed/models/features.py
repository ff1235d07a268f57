"""extract_features: the representation of a whole data set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from waterbed.data.images import batches
from waterbed.devices import device_of
from waterbed.distributed import slices, summed
from waterbed.errors import check_choice
from waterbed.models.states import evaluating
from waterbed.progress import track


def extract_features(
    model: nn.Module, data: Any, split: str = "train", batch_size: int = 256, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Features (N, d) and labels (N,), on the CPU, in eval mode; several processes share the work, all get the whole.

    Args:
        model: with ``features(x)``.
        data: what ``load_dataset`` returns, of which ``split`` ("train" or "test") is taken; or a map-style data set.
    """
    check_choice("split", split, ("train", "test"))
    dataset = getattr(data, split, data)
    device = device_of(model)
    mine = torch.cat([torch.arange(part.start, part.stop) for part in slices(len(dataset), batch_size)])
    features, labels = [], []
    with torch.no_grad(), evaluating(model):
        drawn = batches(dataset, batch_size, order=mine)
        for x, y in track(drawn, "features", -(-len(mine) // batch_size), progress):
            features.append(model.features(x.to(device)))
            labels.append(y.to(device))
    return tuple(_everyone_s(torch.cat(part), mine, len(dataset)).cpu() for part in (features, labels))


def _everyone_s(values: Tensor, mine: Tensor, total: int) -> Tensor:
    """The rows that the processes have, as one tensor for all."""
    if len(mine) == total:
        return values
    whole = values.new_zeros(total, *values.shape[1:])
    whole[mine.to(values.device)] = values
    return summed(whole)
