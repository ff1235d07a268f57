"""Foreign tensors loaded into a network: one of ours, a timm network, or an instance that the user passes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.devices import seeded
from waterbed.errors import UsageError
from waterbed.models.architectures import HEADS, bare_name, image_channels, torchvision_names
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.create import create_model
from waterbed.models.layouts import pre_activation_names
from waterbed.models.normalisers import find_normalisers
from waterbed.models.recipes import timm_network
from waterbed.models.wrappers import same

# Sides of the random images on which a split network is compared with the whole one.
SIDES = (32, 64, 224)


def fill(model: nn.Module, tensors: Mapping[str, Tensor], notes: list[str]) -> str | None:
    """Load foreign tensors into ``model`` by their names inside the network; returns why they do not fit, else None.

    The head of a FeatureClassifier takes the one linear layer that its backbone lacks. Names of CIFAR
    networks are translated to torchvision's, or to those of our pre-activation networks, where needed.
    """
    reason = None
    for candidate in (tensors, torchvision_names(tensors), pre_activation_names(tensors) or tensors):
        state, left = _assign(model, candidate)
        own = model.state_dict()
        aliases = [name for name, tensor in left.items() if any(same(tensor, used) for used in state.values())]
        left = {name: tensor for name, tensor in left.items() if name not in aliases}
        missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
        wrong = [name for name in state if state[name].shape != own[name].shape]
        if not (missing or left or wrong):
            model.load_state_dict({**own, **state})
            if aliases:
                notes.append(f"tensors that repeat others were dropped: {_some(aliases)}")
            return None
        if reason is None or not missing:
            pair = wrong and (state[wrong[0]], own[wrong[0]])
            theirs = next((name for name, tensor in tensors.items() if pair and tensor is pair[0]), None)
            reason = _misfit(missing, list(left), wrong and (theirs, wrong[0], *pair))
    return reason


def _assign(model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors under the names of the model's state dict, and those left over."""
    left, state = dict(tensors), {}
    head = ("head.weight", "head.bias") if isinstance(model, FeatureClassifier) else ()
    for own, value in model.state_dict().items():
        if isinstance(model, FeatureClassifier) and own in ("mean", "std"):
            state[own] = value
        elif own not in head and bare_name(own) in left:
            state[own] = left.pop(bare_name(own))
    for own in head:
        last = own.rpartition(".")[2]
        named = [n for n in left if n.rpartition(".")[2] == last and own in model.state_dict()]
        known = [n for n in named if n.partition(".")[0] in HEADS]
        if len(named) == 1 or len(known) == 1:
            state[own] = left.pop((known or named)[0])
    return state, left


def _misfit(missing: list[str], left: list[str], wrong: Any) -> str:
    """What does not fit, in words."""
    reasons = []
    if missing:
        reasons.append(f"lacks {_some(missing)}")
    if left:
        reasons.append(f"has {_some(left)} besides")
    if wrong:
        name, own, theirs, ours = wrong
        reasons.append(f"has {name!r} {tuple(theirs.shape)} in place of {own!r} {tuple(ours.shape)}")
    return ", ".join(reasons)


def _some(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def build(architecture: Mapping[str, Any]) -> FeatureClassifier:
    """An untrained network from what ``model.architecture`` and the cards record."""
    if architecture.get("library") != "timm":
        return create_model(**architecture, seed=0)
    with seeded(0):
        backbone = timm_network(architecture["name"], 0, architecture["in_channels"])
        model = FeatureClassifier(backbone, nn.Linear(architecture["features"], architecture["num_classes"]))
    model.architecture = dict(architecture)
    return model


def timm_classifier(name: str, tensors: Mapping[str, Tensor]) -> FeatureClassifier:
    """timm's network ``name`` for these tensors, still untrained, its last layer as the head.

    Raises:
        UsageError: timm is not installed, does not know the name, or the tensors have no head for it.
    """
    channels = image_channels(tensors) or 3
    with seeded(0):
        own = timm_network(name, 0, channels).state_dict()
    heads = [t for n, t in tensors.items() if n not in own and t.ndim == 2]
    if len(heads) != 1:
        raise UsageError(
            f"architecture={name!r} does not fit the weights (they have {len(heads)} linear layers besides its own, "
            "not 1); pass the one they were trained with"
        )
    classes, features = heads[0].shape
    return build(
        {"library": "timm", "name": name, "num_classes": classes, "in_channels": channels, "features": features}
    )


def take_apart(module: nn.Module) -> FeatureClassifier:
    """A user's trained network split into features and a linear head; a normaliser inside becomes the classifier's.

    ``module`` is copied. The result is compared with it on random images.

    Raises:
        UsageError: it does not end in ``linear(features)``.
    """
    whole = copy.deepcopy(module).eval()
    trunk = copy.deepcopy(whole)
    normalisers = list(find_normalisers(whole.state_dict()).values())
    linears = [name for name, m in whole.named_modules() if isinstance(m, nn.Linear) and name]
    reason = "it has no nn.Linear" if not linears else "it has several normalisers"
    if linears and len(normalisers) <= 1:
        head = trunk.get_submodule(linears[-1])
        trunk.set_submodule(linears[-1], nn.Identity())
        classifier = FeatureClassifier(trunk, head).eval()
        if normalisers:
            values = trunk.state_dict(keep_vars=True)
            mean, std = (values[name] for name in normalisers[0])
            channels = image_channels(values) or mean.numel()
            classifier.set_normalisation(*(v.detach().clone().flatten().expand(channels) for v in (mean, std)))
            mean.data.zero_()
            std.data.fill_(1)
        reason = _difference(whole, classifier)
    if reason is not None:
        raise UsageError(
            f"model={type(module).__name__} cannot be taken apart into features and a linear head ({reason}); "
            "pass model=FeatureClassifier(backbone, head)"
        )
    return classifier


@torch.no_grad()
def _difference(whole: nn.Module, classifier: FeatureClassifier) -> str | None:
    """Why the two are not the same function, None if they are."""
    like = next(whole.parameters())
    channels = image_channels(whole.state_dict()) or 3
    generator = torch.Generator().manual_seed(0)
    reason = f"it takes no images of {channels} channels"
    for side in SIDES:
        x = torch.rand(2, channels, side, side, generator=generator).to(like)
        try:
            expected = whole(x)
            split = classifier(x)
        except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, IndexError) as error:
            reason = (str(error).strip() or type(error).__name__).split("\n")[0]
            continue
        if isinstance(expected, Tensor) and expected.shape == split.shape:
            scale = float(expected.abs().max())
            if torch.allclose(split, expected, rtol=0, atol=1e-4 * scale):
                return None
        return "its output is not that of its last nn.Linear"
    return reason
