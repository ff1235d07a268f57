"""The normalisation that a foreign network was trained with: read from its tensors, or the usual ones compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from waterbed.errors import UsageError, UsageTypeError
from waterbed.models.architectures import image_channels
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.states import evaluating, probe

# Names of a mean and its standard deviation, and the project that writes them.
PAIRS = {
    ("new_mean", "new_std"): "robustness",
    ("mu", "sigma"): "robustbench",
    ("mean", "std"): "robustbench",
}
# The usual ones, for RGB in [0, 1]. CIFAR-10 has two: its training code often takes the mean over images of their
# standard deviations (0.20) for the standard deviation of the pixels (0.25).
USUAL: dict[str, tuple[tuple[float, ...], tuple[float, ...]] | None] = {
    "none": None,
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar10-image-std": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def find_normalisers(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, str]]:
    """The pairs (mean, std) among the tensors, one value per channel each, by the module that holds them.

    >>> find_normalisers({"module.mu": torch.zeros(1, 3, 1, 1), "module.sigma": torch.ones(1, 3, 1, 1)})
    {'module': ('module.mu', 'module.sigma')}
    """
    channels = image_channels(tensors) or 3
    pairs = {}
    for name in tensors:
        place, dot, last = name.rpartition(".")
        for mean, std in PAIRS:
            partner = f"{place}{dot}{std}"
            pair = (name, partner)
            if last == mean and partner in tensors and all(tensors[n].numel() in (1, channels) for n in pair):
                pairs[place] = pair
    return pairs


def project_of(mean: str, std: str) -> str:
    """The project that gives a normaliser's tensors these names; "plain" for our own FeatureClassifier.

    >>> project_of("normalizer.new_mean", "normalizer.new_std"), project_of("mean", "std")
    ('robustness', 'plain')
    """
    if (mean, std) == ("mean", "std"):
        return "plain"
    return PAIRS[mean.rpartition(".")[2], std.rpartition(".")[2]]


def channel_values(mean: Any, std: Any, channels: int | None) -> tuple[list[float], list[float]]:
    """A mean and standard deviation as one number per channel each (a single number is repeated for all channels).

    >>> channel_values(0.5, [0.25], 3)
    ([0.5, 0.5, 0.5], [0.25, 0.25, 0.25])
    """
    try:
        values = [torch.as_tensor(v, dtype=torch.float64).flatten().tolist() for v in (mean, std)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageTypeError(f"mean={mean!r} and std={std!r} must be numbers, one per channel") from error
    if channels is not None:
        values = [v * channels if len(v) == 1 else v for v in values]
    if len(values[0]) != len(values[1]) or channels not in (None, len(values[0])):
        raise UsageError(f"mean={mean!r} and std={std!r} do not fit {channels} channels; pass one number per channel")
    return values[0], values[1]


@dataclass(frozen=True)
class NormalisationCheck:
    """The result of :func:`check_normalisation`.

    ``accuracies`` has the accuracy in percent under each normaliser, ``current`` the name of the model's own and
    ``best`` that of the one to use: the most accurate, or the current one if the difference is within two standard
    errors.
    """

    accuracies: dict[str, float]
    current: str
    best: str
    n: int

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {value:.1f} %" for name, value in self.accuracies.items())
        advice = f"keep {self.current!r}"
        if self.best != self.current:
            values = "no mean and std" if self.best == "none" else "mean={}, std={}".format(*USUAL[self.best])
            advice = f"use {self.best!r} rather than {self.current!r}: {values}"
        return f"{listed} on {self.n} images; {advice}"


def check_normalisation(
    model: FeatureClassifier, images: Tensor, labels: Tensor | Sequence[int], batch_size: int = 256
) -> NormalisationCheck:
    """Accuracy with each of the usual normalisers in place of the model's own: shows a missing, doubled or wrong one.

    Args:
        model: not changed.
        images: (N, C, H, W) in [0, 1]; a few hundred test images are enough.
        labels: (N,), the classes the network was trained for.

    Raises:
        UsageError: images that do not fit the model or labels out of range.
        UsageTypeError: a model without normalisation inside.

    >>> from waterbed.models.create import create_model
    >>> model = create_model("resnet10", 10, width=2, seed=0)
    >>> check = check_normalisation(model, torch.rand(4, 3, 8, 8), [0, 1, 2, 3])
    >>> list(check.accuracies), check.current
    (['none', 'imagenet', 'cifar10', 'cifar10-image-std', 'half'], 'none')
    """
    if not isinstance(model, FeatureClassifier):
        raise UsageTypeError(f"model={type(model).__name__} must be a FeatureClassifier; wrap it in one")
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) == 0 or not images.is_floating_point():
        raise UsageError(f"images={_shape(images)} must be a float tensor (N, C, H, W) of one or more images")
    if float(images.min()) < 0 or float(images.max()) > 1:
        raise UsageError(
            f"images lie in [{float(images.min()):.3g}, {float(images.max()):.3g}]; pass them in [0, 1], not normalised"
        )
    labels = torch.as_tensor(labels)
    like = next(model.parameters())
    images = images.to(like.dtype)
    classes = probe(model, images[:1].to(like.device)).shape[1]
    if labels.shape != images.shape[:1] or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UsageError(f"labels={_shape(labels)} must be {len(images)} numbers in 0 .. {classes - 1}, one per image")
    own = (model.mean, model.std)
    channels = images.shape[1]
    choices = dict(USUAL) if channels == 3 else {"none": None, "half": ((0.5,) * channels, (0.5,) * channels)}
    current = next((name for name, pair in choices.items() if _same(own, pair)), "own")
    if current == "own":
        choices = {"own": (model.mean.flatten(), model.std.flatten()), **choices}
    hits = {}
    try:
        for name, pair in choices.items():
            model.mean, model.std = None, None
            if pair is not None:
                model.set_normalisation(*pair)
            hits[name] = _hits(model, images, labels, batch_size)
    finally:
        model.mean, model.std = own
    best = max(hits, key=lambda name: (int(hits[name].sum()), name == current))
    gained, lost = (int((a & ~b).sum()) for a, b in ((hits[best], hits[current]), (hits[current], hits[best])))
    if gained - lost <= 2 * (gained + lost) ** 0.5:
        best = current
    return NormalisationCheck({n: 100 * float(h.double().mean()) for n, h in hits.items()}, current, best, len(images))


@torch.no_grad()
def _hits(model: FeatureClassifier, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Which images are classified correctly (N,)."""
    device = next(model.parameters()).device
    with evaluating(model):
        predicted = [model(x.to(device)).argmax(1).cpu() for x in images.split(batch_size)]
    return torch.cat(predicted) == labels.cpu()


def _same(own: tuple[Tensor | None, Tensor | None], pair: tuple[Sequence[float], Sequence[float]] | None) -> bool:
    """Whether the model's mean and std are these, to the precision they are usually written in."""
    if own[0] is None or pair is None:
        return own[0] is None and pair is None
    return all(
        mine.numel() == len(theirs)
        and torch.allclose(mine.flatten().double().cpu(), torch.tensor(theirs).double(), atol=2e-3)
        for mine, theirs in zip(own, pair, strict=True)
    )


def _shape(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
