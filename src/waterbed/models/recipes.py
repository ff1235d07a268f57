"""Networks that other packages build, by names that a card can record: timm's, and functions of one's own."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from waterbed.errors import UsageError
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.heads import as_classifier
from waterbed.own_code import call_function, names_own_code

TIMM = "timm:"


def names_recipe(name: Any) -> bool:
    """Whether this is the name of a network that another package builds.

    >>> names_recipe("timm:resnet18"), names_recipe("my_package.networks:small"), names_recipe("resnet18")
    (True, True, False)
    """
    return names_own_code(name)


def is_own_code(name: Any) -> bool:
    """Whether building this network imports a module that its name gives."""
    return names_recipe(name) and not name.startswith(TIMM)


def build_recipe(name: str, num_classes: int, in_channels: int, image_size: int | None) -> FeatureClassifier:
    """The untrained network of a name with a colon; arguments as those of ``create_model``."""
    image_shape = None if image_size is None else (in_channels, image_size, image_size)
    if name.startswith(TIMM):
        shown = f"name={name!r}"
        network = timm_network(name.removeprefix(TIMM), num_classes, in_channels, image_size, shown)
        return as_classifier(network, image_shape)
    offered = {"in_channels": in_channels, "image_size": image_size}
    network = call_function("name", name, {"num_classes": num_classes}, offered)
    if not isinstance(network, nn.Module):
        raise UsageError(f"name={name!r} returns {type(network).__name__}; it must return an nn.Module")
    return as_classifier(network, image_shape)


def timm_network(
    name: str, num_classes: int, in_channels: int, image_size: int | None = None, shown: str | None = None
) -> nn.Module:
    """timm's untrained network ``name``, without a head if ``num_classes`` is 0; ``shown`` is how messages call it.

    Raises:
        UsageError: timm is not installed or does not know the name.
    """
    shown = shown or f"architecture={name!r}"
    try:
        import timm
    except ImportError as error:
        raise UsageError(f"{shown} needs timm; pip install timm") from error
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        advice = f"did you mean {' or '.join(map(repr, close))}?" if close else "timm.list_models() lists them"
        raise UsageError(f"{shown} is unknown to timm; {advice}")
    fixed = image_size is not None and timm.get_pretrained_cfg(name).fixed_input_size
    size = {"img_size": image_size} if fixed else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **size)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise UsageError(
            f"timm cannot build {name!r} for {in_channels} channels and image_size={image_size} ({reason}); pass others"
        ) from error
