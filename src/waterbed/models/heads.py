"""wrap: the features and the head of any classifier, found in one forward pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.devices import device_of, seeded
from waterbed.errors import UsageError, UsageTypeError, check_choice
from waterbed.models.architectures import HEADS, image_channels
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.states import check_module, check_weights, unchanged

# Sides of the images on which a network is tried if nothing says which it takes.
SIDES = (32, 64, 224)
# What a forward pass raises for images of a shape it was not built for.
REFUSALS = (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, IndexError, KeyError)


def wrap(
    model: nn.Module,
    mean: Sequence[float] | Tensor | str | None = None,
    std: Sequence[float] | Tensor | None = None,
    *,
    image_shape: Sequence[int] | None = None,
    head: str | None = None,
) -> FeatureClassifier:
    """Any classifier as a :class:`FeatureClassifier`: its features are what enters its last layer.

    That layer is the ``nn.Linear`` whose output is the network's (``fc``, ``classifier``, ``heads`` and
    ``get_classifier()`` of the usual libraries are such), or else a module called ``fc``, ``classifier``, ``head``, ...
    whose output is. It is found in one forward pass, and the outputs before and after are compared: they are the same,
    bit for bit. The result shares its weights with ``model``, which itself is not changed; move and train the result.

    Args:
        model: logits (N, K) from images (N, C, H, W). A FeatureClassifier is returned as it is if nothing is asked of
            it.
        mean, std: the normalisation that it was trained with, in pixel units, one value per channel; images are in
            [0, 1] from then on. mean="pretrained_cfg" takes those that a timm network carries. None (both): the
            images are passed on as they are.
        image_shape: (C, H, W) of an image it takes; by default shapes are tried.
        head: the name of the module to take as the head, one of ``model.named_modules()``. A head that is not linear
            is allowed: fine-tuning replaces it, and only :func:`waterbed.fisher_bounds` needs a linear one.

    Raises:
        UsageError: the network takes no such images, has no such layer, or does more after it.
        UsageTypeError: ``model`` is no nn.Module, or its output no tensor (N, K).

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> model, x = wrap(network), torch.rand(5, 1, 8, 8)
    >>> model.head, torch.equal(model(x), network(x))
    (Linear(in_features=16, out_features=3, bias=True), True)
    """
    check_module(model)
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps: a compiled graph runs no hooks
    values = _normalisation(model, mean, std)
    if isinstance(model, FeatureClassifier) and head is None:
        if values is None:
            return model
        if model.mean is not None:
            raise UsageError(f"mean={mean!r} and std={std!r} would normalise twice: the model has its own; leave them")
        classifier = _sharing(model)
    else:
        classifier = _split(model, image_shape, head)
    if values is not None:
        classifier.set_normalisation(*values)
    return classifier


def as_classifier(model: nn.Module, image_shape: Sequence[int] | None = None) -> FeatureClassifier:
    """``model`` itself if it is a :class:`FeatureClassifier`, else what :func:`wrap` makes of it."""
    return model if isinstance(model, FeatureClassifier) else wrap(model, image_shape=image_shape)


def with_features(model: nn.Module, image_shape: Sequence[int] | None = None) -> nn.Module:
    """``model`` itself if it has a method ``features``, else what :func:`wrap` makes of it.

    A submodule of that name, as torchvision's networks have it, does not return the features (N, d) of images.
    """
    method = getattr(model, "features", None)
    return model if callable(method) and not isinstance(method, nn.Module) else wrap(model, image_shape=image_shape)


def with_linear_head(model: nn.Module, image_shape: Sequence[int]) -> FeatureClassifier:
    """:func:`as_classifier` for a task that replaces the head: one that is not linear gives way to one that is."""
    classifier = as_classifier(model, image_shape)
    if isinstance(classifier.head, nn.Linear):
        return classifier
    like = next(classifier.parameters())
    with unchanged(classifier), torch.no_grad():
        size = classifier.features(torch.zeros(1, *image_shape, dtype=like.dtype, device=like.device)).shape[1]
    with seeded(0):
        head = nn.Linear(size, 1).to(like)
    bare = FeatureClassifier(classifier.backbone, head)
    bare.mean, bare.std = classifier.mean, classifier.std
    bare.input_shape = classifier.input_shape
    return bare


def _normalisation(model: nn.Module, mean: Any, std: Any) -> tuple[Any, Any] | None:
    """Mean and standard deviation, as given or as timm's record has them."""
    if isinstance(mean, str):
        check_choice("mean", mean, ("pretrained_cfg",))
        record = getattr(model, "pretrained_cfg", None) or {}
        if std is not None or "mean" not in record or "std" not in record:
            raise UsageError(
                f"mean='pretrained_cfg' takes mean and std from a timm network, and model={type(model).__name__} "
                f"{'has both; leave std out' if 'std' in record else 'has none; pass numbers'}"
            )
        mean, std = record["mean"], record["std"]
    if (mean is None) != (std is None):
        raise UsageError(f"mean={mean!r} and std={std!r} belong together; pass both or neither")
    return None if mean is None else (mean, std)


def _split(model: nn.Module, image_shape: Sequence[int] | None, head: str | None) -> FeatureClassifier:
    """The network cut before its head, compared with the whole."""
    check_weights(model)
    if next(model.parameters(), None) is None:
        raise UsageError(f"model={type(model).__name__} has no weights, so no head; pass a network")
    if head is not None:
        check_choice("head", head, [name for name, _ in model.named_modules() if name])
    with unchanged(model), torch.no_grad():
        examples = _examples(model, image_shape)
        x, expected = examples[0]
        name, entering = _find_head(model, x, expected, head)
        backbone = _sharing(model)
        last = backbone.get_submodule(name)
        backbone.set_submodule(name, nn.Identity())
        if entering.ndim > 2 and not isinstance(last, nn.Linear):
            if image_shape is None:
                raise UsageError(
                    f"model={type(model).__name__} has a head {name!r} for maps {tuple(entering.shape[1:])}, whose "
                    "size is that of the images; pass image_shape=(C, H, W) to wrap"
                )
            last = nn.Sequential(nn.Unflatten(1, entering.shape[1:]), last, nn.Flatten())
        classifier = FeatureClassifier(backbone, last)
        with unchanged(classifier):
            difference = _difference(classifier, x, expected)
    if difference is not None:
        raise UsageError(_cannot(model, f"{difference} when {name!r} is taken as the head", "FeatureClassifier"))
    classifier.training = model.training
    only = tuple(x.shape[1:]) if image_shape is not None or len(examples) == 1 else None
    classifier.input_shape = getattr(model, "input_shape", None) or only
    return classifier


def _sharing(model: nn.Module) -> Any:
    """A copy of the modules with the same weights and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except (RuntimeError, TypeError) as error:
        raise UsageError(_cannot(model, f"it cannot be copied: {_line(error)}", "FeatureClassifier")) from error


def _examples(model: nn.Module, image_shape: Sequence[int] | None) -> list[tuple[Tensor, Tensor]]:
    """One or two batches of noise of shapes that the network takes, with its outputs."""
    like, reason, examples = next(model.parameters()), "", []
    shapes = [tuple(image_shape)] if image_shape is not None else dict.fromkeys(_shapes(model))
    for shape in shapes:
        x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(like)
        try:
            with seeded(0, like.device):
                examples.append((x, model(x)))
        except torch.OutOfMemoryError:
            raise
        except REFUSALS as error:
            reason = reason or f"{shape}: {_line(error)}"
        if len(examples) == 2:
            break
    if not examples:
        raise UsageError(
            f"model={type(model).__name__} takes no images of the shapes tried ({reason}); pass image_shape=(C, H, W) "
            "to wrap, of images it takes, or a FeatureClassifier(backbone, head)"
        )
    output = examples[0][1]
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 2:
        got = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise UsageTypeError(
            f"model={type(model).__name__} gives {got} for two images, not logits (2, K); pass a module that returns "
            "logits, or a FeatureClassifier"
        )
    return examples


def _shapes(model: nn.Module) -> Iterator[tuple[int, int, int]]:
    """Shapes of images that the network may take, the likeliest first."""
    if getattr(model, "input_shape", None) is not None:
        yield tuple(model.input_shape)
        return
    channels = image_channels(model.state_dict())
    if channels is None:  # no convolution: the first layer takes all pixels of an image
        inputs = next((m.in_features for m in model.modules() if isinstance(m, nn.Linear)), 0)
        for c in (1, 3):
            side = round((inputs / c) ** 0.5)
            if c * side**2 == inputs > 0:
                yield c, side, side
    for c in (channels,) if channels is not None else (1, 3):
        yield from ((c, side, side) for side in SIDES)


def _find_head(model: nn.Module, x: Tensor, expected: Tensor, head: str | None) -> tuple[str, Tensor]:
    """The name of the head and what enters it."""
    calls: list[tuple[str, nn.Module, Tensor, bool]] = []

    def record(name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            calls.append((name, module, args[0], torch.equal(output.flatten(1), expected)))

    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: record(name, m, args, out))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with seeded(0, device_of(model)):
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    if head is not None:
        chosen = [call for call in calls if call[0] == head]
    else:
        last = [call for call in calls if call[3]]
        chosen = [call for call in last if isinstance(call[1], nn.Linear)][-1:]
        chosen = chosen or [call for call in last if call[0] in (*HEADS, "heads")]
    if len(chosen) == 1:
        return chosen[0][0], chosen[0][2]
    if head is not None:
        reason = f"{head!r} is called {len(chosen)} times in a forward pass, with one tensor, and not once"
    else:
        reason = "its output is not that of an nn.Linear, nor of a module called " + ", ".join((*HEADS, "heads"))
    raise UsageError(_cannot(model, reason, "head=, the name of its last module, to wrap, or FeatureClassifier"))


def _difference(classifier: FeatureClassifier, x: Tensor, expected: Tensor) -> str | None:
    """Why the two are not the same function, None if they are."""
    try:
        with seeded(0, x.device):
            output = classifier(x)
    except REFUSALS as error:
        return f"it fails ({_line(error)})"
    return None if torch.equal(output, expected) else "its output changes"


def _cannot(model: nn.Module, reason: str, remedy: str) -> str:
    return f"model={type(model).__name__} cannot be split into features and a head ({reason}); pass {remedy}" + (
        "(backbone, head)" if remedy.endswith("FeatureClassifier") else ""
    )


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]
