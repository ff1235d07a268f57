"""invert: the image a representation came from, or one the network cannot tell from it (Def. 2.1, 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.data.images import check_images, check_labels
from waterbed.devices import device_of
from waterbed.errors import UsageError, check_choice, check_count, check_number
from waterbed.information.defaults import PRIOR_VARIANCE
from waterbed.information.weight_fisher import WeightFisher
from waterbed.information.weight_noise import WeightNoise
from waterbed.inversion.defaults import INIT, OPTIMIZER, PRECISION, STEPS
from waterbed.inversion.objective import (
    LOSSES,
    MODES,
    PRECISIONS,
    FeatureObjective,
    Features,
    LabelObjective,
    check_noise,
    start_images,
)
from waterbed.inversion.optimizers import OPTIMIZERS, loss_and_gradient, make_step, stable_rates, where
from waterbed.inversion.result import Inversion
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.heads import with_features
from waterbed.models.states import frozen, probe
from waterbed.progress import Progress


def invert(
    model: nn.Module,
    images: Tensor,
    mode: str = "plain",
    noise: WeightNoise | None = None,
    steps: int = STEPS,
    lr: float | Tensor | None = None,
    optimizer: str = OPTIMIZER,
    seed: int = 0,
    *,
    image_shape: tuple[int, int, int] | None = None,
    layer: str | None = None,
    init: str | Tensor = INIT,
    init_scale: float = 0.1,
    loss: str = "l2",
    squared: bool = True,
    noise_side: str = "model",
    fake_relu: bool = False,
    tolerance: float = 0.0,
    precision: str = PRECISION,
    keep_every: int | None = None,
    progress: bool = False,
) -> Inversion:
    """Find images whose features equal those of ``images``, by gradient descent on the pixels.

    The loss of an image is |f(r) - z|^2 summed over the features, z = f_w(x) (Def. 2.1, eq. 3). "variational" draws
    weight noise n once and descends |f_{w+n}(r) - z|^2 (Algorithm 1); "effective" draws it anew at every step
    (Algorithm 2). The images are independent problems that share their start and their noise, so a result does not
    depend on the other images of the batch. The model's weights and mode are left alone: descent runs on a copy with
    batch norms folded.

    Args:
        model: a :class:`FeatureClassifier`, any module with ``features(x)``, or any classifier that
            :func:`waterbed.wrap` takes.
        images: (B, C, H, W) in [0, 1], or a bare representation z (B, d), which needs ``image_shape``.
        mode: "plain", "variational", "effective".
        noise: a :class:`WeightNoise` of this model, for the last two.
        steps: gradient steps.
        lr: step size, one or (B,); None tries a grid around each image's own scale for 20 steps and halves the best.
        optimizer: "sgd" as in the paper, "normalized" (each gradient scaled to length 1), "adam", or "lbfgs" (plain and
            variational only: the objective must not change).
        seed: of the start and of the noise.
        layer: invert the output of this module (a name of ``model.named_modules()``) instead of the features.
        init: the start: "gaussian" is N(0.5, init_scale^2) clamped, "uniform", "zeros", "ones", or your own images.
        loss: "l2"; "relative" divides it by |z|^2; "cosine" is 1 - cos(f, z).
        squared: True as in the algorithms; False descends the norm itself, as printed in eqs 3 and 10.
        noise_side: "model" as in the algorithms, or "target" as in eq. 10, with the noise on z.
        fake_relu: give the last ReLU the gradient of the identity.
        tolerance: an image stops when |f(r) - z|^2 falls below this times |z|^2.
        precision: "fp32", or "bf16" for the descent alone; final losses are computed in the precision of the weights.
        keep_every: store the images every so many steps, for :meth:`Inversion.animate`.
        image_shape: (C, H, W) of the image of a bare representation.
        progress: show steps and loss on standard error.

    Raises:
        UsageError: images of a wrong shape or outside [0, 1], a noisy mode without noise, noise of another model.

    >>> model = FeatureClassifier(nn.Flatten(), nn.Linear(16, 3))
    >>> images = torch.rand(2, 1, 4, 4)
    >>> result = invert(model, images, steps=100)
    >>> result.images.allclose(images, atol=1e-3), result.losses.shape
    (True, torch.Size([100, 2]))
    """
    check_choice("mode", mode, MODES)
    check_choice("noise_side", noise_side, ("model", "target"))
    check_choice("loss", loss, LOSSES)
    check_number("init_scale", init_scale, at_least=0)
    if optimizer == "lbfgs" and mode == "effective":
        raise UsageError("optimizer='lbfgs' needs a fixed objective; pass 'adam' or 'sgd' with mode='effective'")
    if loss == "cosine" and tolerance > 0:
        raise UsageError("tolerance is relative to |z|^2, which loss='cosine' does not use; pass tolerance=0")
    if layer is None:
        model = with_features(model, image_shape or getattr(images, "shape", ())[1:] or None)
    check_noise(model, mode, noise)
    with frozen(model):
        originals, target, shape = _target(model, images, image_shape, layer)
        example = torch.full((1, *shape), 0.5, device=target.device, dtype=target.dtype)
        objective = FeatureObjective(
            model,
            target,
            originals,
            example=example,
            mode=mode,
            noise=noise,
            noise_side=noise_side,
            loss=loss,
            squared=squared,
            layer=layer,
            fake_relu=fake_relu,
            precision=precision,
            seed=seed,
        )
    size = 0.0 if mode == "plain" else noise.relative_size()
    start = start_images(init, init_scale, shape, len(target), seed, example)
    return _run(objective, start, size, steps, lr, optimizer, tolerance, precision, keep_every, progress, init_scale)


def invert_label(
    model: nn.Module,
    labels: Tensor,
    steps: int = 500,
    lr: float | Tensor | None = None,
    optimizer: str = "adam",
    seed: int = 0,
    *,
    image_shape: tuple[int, int, int] | None = None,
    init: str | Tensor = INIT,
    init_scale: float = 0.1,
    tolerance: float = 0.0,
    precision: str = PRECISION,
    keep_every: int | None = None,
    progress: bool = False,
) -> Inversion:
    """Class images: minimise the cross-entropy of ``labels`` (B,) from a start that is the same for all classes.

    Args:
        labels: (B,) integers, one per image.
        image_shape: (C, H, W); by default that of the model's training images.
        tolerance: an image stops when its loss falls below this times log K.
        steps, lr, optimizer, seed, init, init_scale, precision, keep_every, progress: as for :func:`invert`.

    Raises:
        UsageError: no labels, labels that the model lacks, or an unknown image shape.

    >>> model = FeatureClassifier(nn.Flatten(), nn.Linear(16, 3))
    >>> result = invert_label(model, torch.tensor([0, 2]), steps=20, image_shape=(1, 4, 4))
    >>> model(result.images).argmax(1)
    tensor([0, 2])
    """
    shape = image_shape or getattr(model, "input_shape", None)
    if shape is None:
        raise UsageError("image_shape=None, and the model does not record its input_shape; pass image_shape=(C, H, W)")
    example = torch.full((1, *shape), 0.5, device=device_of(model), dtype=next(model.parameters()).dtype)
    classes = probe(model, example, f"images of image_shape={tuple(shape)}").shape[1]
    check_labels(labels, classes, "labels")
    if len(labels) == 0:
        raise UsageError("labels is empty; pass at least one class")
    labels = labels.to(example.device).long()
    objective = LabelObjective(model, labels, example, precision, seed)
    start = start_images(init, init_scale, tuple(shape), len(labels), seed, example)
    return _run(objective, start, 0.0, steps, lr, optimizer, tolerance, precision, keep_every, progress, init_scale)


def _run(
    objective: FeatureObjective | LabelObjective,
    start: Tensor,
    noise_size: float,
    steps: int,
    lr: float | Tensor | None,
    optimizer: str,
    tolerance: float,
    precision: str,
    keep_every: int | None,
    progress: bool,
    init_scale: float,
) -> Inversion:
    """Check the settings, choose step sizes, descend."""
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_choice("precision", precision, PRECISIONS)
    check_count("steps", steps)
    check_number("init_scale", init_scale, at_least=0)
    check_number("tolerance", tolerance, at_least=0)
    if keep_every is not None:
        check_count("keep_every", keep_every)
    if precision == "bf16" and start.dtype != torch.float32:
        raise UsageError(f"precision='bf16' needs a float32 model, not {start.dtype}; pass precision='fp32'")
    if isinstance(lr, Tensor):
        if lr.shape != (len(start),) or not bool((lr > 0).all()):
            raise UsageError(f"lr has shape {tuple(lr.shape)}; pass one positive number, or ({len(start)},) of them")
        rates = lr.to(start)
    elif lr is not None:
        check_number("lr", lr, above=0)
        rates = start.new_full((len(start),), lr)
    else:
        objective.prepare(0)
        rates = stable_rates(objective.loss, start, optimizer)
    with Progress(f"inverting ({objective.mode})", steps, progress) as bar:
        return _descend(objective, start, rates, noise_size, optimizer, steps, tolerance, keep_every, bar)


def _descend(
    objective: FeatureObjective | LabelObjective,
    start: Tensor,
    rates: Tensor,
    noise_size: float,
    optimizer: str,
    steps: int,
    tolerance: float,
    keep_every: int | None,
    bar: Progress,
) -> Inversion:
    step_of = make_step(optimizer, rates)
    images, best = start, start
    best_loss = torch.full_like(rates, torch.inf)
    threshold = objective.threshold(tolerance)
    active = torch.ones_like(rates, dtype=torch.bool)
    diverged = ~active
    noiseless = objective.mode in ("plain", "label")
    losses, clean_losses, frames = [], [], []
    for step in range(steps):
        objective.prepare(step)
        if keep_every is not None and step % keep_every == 0:
            frames.append(images)
        loss, gradient = loss_and_gradient(objective.loss, images)
        losses.append(loss)
        clean_losses.append(loss if noiseless else objective.clean_loss(images))
        finite = torch.isfinite(loss) & torch.isfinite(gradient).flatten(1).all(1)
        diverged = diverged | ~finite
        better = finite & (loss < best_loss)
        best, best_loss = where(better, images, best), torch.where(better, loss, best_loss)
        active = active & finite & (loss > threshold)
        images = where(active, step_of(images, loss, gradient), images)
        bar.advance(message=_status(loss, finite) if bar.enabled else "")
        if not bool(active.any()):
            break
    # The last images of a line search are a trial, which may be worse than the best.
    images = where(diverged | (optimizer == "lbfgs"), best, images)
    final_losses, final_clean_losses = objective.final_losses(images)
    missing = steps - len(losses)
    return Inversion(
        images=images,
        losses=torch.stack(losses + [losses[-1]] * missing),
        clean_losses=torch.stack(clean_losses + [clean_losses[-1]] * missing),
        final_losses=final_losses,
        final_clean_losses=final_clean_losses,
        originals=objective.originals,
        lr=rates,
        diverged=diverged,
        mode=objective.mode,
        noise_size=noise_size,
        seed=objective.seed,
        scale=objective.scale,
        frames=torch.stack(frames) if frames else None,
    )


def _status(loss: Tensor, finite: Tensor) -> str:
    return f"loss {float(loss[finite].mean()):.4g}" if bool(finite.any()) else "diverged"


def _target(
    model: nn.Module, images: Any, image_shape: tuple[int, int, int] | None, layer: str | None
) -> tuple[Tensor | None, Tensor, tuple[int, int, int]]:
    """Originals (None for a bare representation), their features, and the shape of one image."""
    device = device_of(model)
    if isinstance(images, Tensor) and images.ndim == 2:
        if image_shape is None:
            raise UsageError("image_shape=None; to invert a bare representation, pass the (C, H, W) of the image")
        if not bool(torch.isfinite(images).all()):
            raise UsageError("images, here a representation, has values that are NaN or infinite; remove them")
        shape = tuple(image_shape)
        blank = torch.full((1, *shape), 0.5, device=device, dtype=next(model.parameters()).dtype)
        probe(model, blank, f"images of image_shape={shape}")
        features = Features(model, layer, False, blank)(blank)
        if features.shape[1] != images.shape[1]:
            raise UsageError(
                f"images, here a representation, has {images.shape[1]} features; the model gives {features.shape[1]}"
            )
        return None, images.detach().to(blank), shape
    check_images(images, "images")
    images = images.detach().to(device)
    probe(model, images)
    with torch.no_grad():
        return images, Features(model, layer, False, images[:1])(images), tuple(images.shape[1:])


def invert_modes(model: FeatureClassifier, images: Tensor, noise: WeightNoise, **settings: Any) -> dict[str, Inversion]:
    """Inversions of the same images in all three modes, by the name of the mode.

    Args:
        settings: any other argument of :func:`invert`.
    """
    return {mode: invert(model, images, mode, None if mode == "plain" else noise, **settings) for mode in MODES}


def effective_images(
    model: FeatureClassifier,
    images: Tensor,
    fisher: WeightFisher,
    betas: Sequence[float] = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4),
    prior_variance: float = PRIOR_VARIANCE,
    **settings: Any,
) -> dict[float, Inversion]:
    """Effective images (Def. 4.1) at several information levels beta: as beta grows, detail disappears.

    Args:
        fisher: the model's weight Fisher, for :class:`WeightNoise`.
        settings: any other argument of :func:`invert`.
    """
    if not betas:
        raise UsageError("betas is empty; pass one or more")
    noises = {beta: WeightNoise(fisher, beta, prior_variance) for beta in betas}
    return {beta: invert(model, images, "effective", noise, **settings) for beta, noise in noises.items()}
