"""as_task: a classification task from a user's own data sets or loaders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

from waterbed.data.columns import choose_splits, is_table
from waterbed.data.images import ImageData, check_images, check_labels
from waterbed.data.map_style import base_of, map_style, names_of
from waterbed.data.samples import collate
from waterbed.devices import seeded
from waterbed.errors import UsageError, UsageTypeError


@dataclass(frozen=True, kw_only=True)
class OwnData(ImageData):
    """A user's task; the shape is that of the first image, read once, since a transform may draw random numbers."""

    image_shape: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.image_shape


def as_task(
    data: Any, *, classes: Sequence[str] | None = None, name: str | None = None, one_for_both: bool = False
) -> Any:
    """``data`` as an object with train, test, classes, num_classes, shape and name; one that has train and test is
    returned as it is.

    Args:
        data: a pair (train, test) of map-style data sets of (float (C, H, W) in [0, 1], int), such as a
            ``TensorDataset`` or torchvision's ``ImageFolder`` with a transform; of ``DataLoader``, whose data sets
            are read; or of Hugging Face ``Dataset`` with a column of images and one of labels, also as a
            ``DatasetDict``, which get one size where the images have several, and a warning says so; or of pairs
            (images, labels) of tensors or arrays. A dict with "train" and "test" is as good as a pair.
        classes: their names; by default ``train.classes``, else the numbers from 0 to the largest label.
        name: by default that of the class of ``train``.
        one_for_both: whether a single data set stands for train and test.

    Raises:
        UsageTypeError: something else, or data sets whose examples are not images with labels.
        UsageError: images of several sizes or outside [0, 1], labels that are no classes, train and test with other
            classes.

    >>> pair = [TensorDataset(torch.rand(n, 1, 4, 4), torch.arange(n) % 3) for n in (6, 3)]
    >>> task = as_task(pair)
    >>> task.classes, task.shape, task.name
    (('0', '1', '2'), (1, 4, 4), 'TensorDataset')
    """
    if hasattr(data, "train") and hasattr(data, "test"):
        return data
    if isinstance(data, Mapping) and all(map(is_table, data.values())):
        chosen = choose_splits(data, "data")
        data, named = [data[split] for split in chosen], [f"data[{split!r}]" for split in chosen]
    elif isinstance(data, Mapping) and {"train", "test"} <= data.keys():
        data, named = [data["train"], data["test"]], ["data['train']", "data['test']"]
    elif isinstance(data, tuple | list) and len(data) == 2:
        named = ["data[0]", "data[1]"]
    elif one_for_both:
        data, named = [data], ["data"]
    elif isinstance(data, str | Path):
        raise UsageTypeError(f"data={str(data)!r} is a name; write load_dataset({str(data)!r})")
    else:
        kind = type(data).__name__
        single = isinstance(data, DataLoader) or (hasattr(data, "__len__") and hasattr(data, "__getitem__"))
        advice = "is one data set; pass (train, test), split by torch.utils.data.random_split if need be"
        other = "must be what load_dataset returns, a pair (train, test) of data sets, or an object with train and test"
        raise UsageTypeError(f"data={kind} {advice if single else other}")
    parts: list[Any] = []
    shape = None
    for part, dataset, argument in zip(("train", "test"), data, named, strict=False):
        parts.append(map_style(dataset, argument, shape))
        if len(parts[-1]) == 0:
            raise UsageError(f"data has no {part} images; add some")
        if shape is None:
            with seeded(0):
                image, _ = collate([parts[0][0]])
            check_images(image, "data")
            shape = tuple(image.shape[1:])
    train, test = parts[0], parts[-1]
    with seeded(0):
        labels = [_labels(part) for part in parts]
    classes = class_names(train, test, torch.cat(labels)) if classes is None else tuple(str(c) for c in classes)
    for part, values in zip(("train", "test"), labels, strict=False):
        check_labels(values, len(classes), f"data ({part})")
    name = type(base_of(train)).__name__ if name is None else name
    return OwnData(name, train, test, classes, image_shape=shape)


def class_names(train: Any, test: Any, labels: Tensor) -> tuple[str, ...]:
    """The names that the data sets have, else the numbers up to the largest label."""
    names, others = (names_of(part) for part in (train, test))
    if names is None:
        return tuple(str(c) for c in range(int(labels.max()) + 1))
    if others is not None and others != names:
        differing = sorted(set(names) ^ set(others)) or ["in another order"]
        raise UsageError(
            f"data has other classes in test than in train ({', '.join(differing[:3])}), so that a label would mean "
            "two things; make the folders of both the same"
        )
    return names


def _labels(dataset: Any) -> Tensor:
    """All labels (N,); without decoding an image where the data set keeps a list of them."""
    if isinstance(dataset, Subset):
        return _labels(dataset.dataset)[torch.as_tensor(dataset.indices, dtype=torch.long)]
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return dataset.tensors[1]
    for attribute in ("targets", "labels"):
        values = getattr(dataset, attribute, None)
        if getattr(dataset, "target_transform", None) is None and hasattr(values, "__len__"):
            return torch.as_tensor(values)
    return torch.cat([collate([dataset[i]])[1] for i in range(len(dataset))])
