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
from waterbed.inversion.objective import LOSSES, MODES, PRECISIONS, Features, LabelProblem, Problem, start_images
from waterbed.inversion.optimizers import OPTIMIZERS, gradient, make_step, stable_rates, where
from waterbed.inversion.result import Inversion
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.states import frozen, probe
from waterbed.progress import Progress


def invert(
    model: nn.Module,
    images: Tensor,
    mode: str = "plain",
    noise: WeightNoise | None = None,
    steps: int = 1000,
    lr: float | Tensor | None = None,
    optimizer: str = "sgd",
    seed: int = 0,
    *,
    image_shape: tuple[int, int, int] | None = None,
    layer: str | None = None,
    init: str | Tensor = "gaussian",
    init_scale: float = 0.1,
    loss: str = "l2",
    squared: bool = True,
    noise_side: str = "model",
    fake_relu: bool = False,
    tolerance: float = 0.0,
    precision: str = "fp32",
    keep_every: int | None = None,
    progress: bool = False,
) -> Inversion:
    """Find images whose features equal those of ``images``, by gradient descent on the pixels.

    The loss of an image is |f(r) - z|^2 summed over the features, z = f_w(x) (Def. 2.1, eq. 3). "variational" draws
    weight noise n once and descends |f_{w+n}(r) - z|^2 (Algorithm 1); "effective" draws it at every step
    (Algorithm 2). The images are independent problems that share their start and their noise, so a result does not
    depend on the batch it ran in. The model's weights and mode are not touched: the work is done on a copy with batch
    norms folded.

    Args:
        model: a :class:`FeatureClassifier`, or any module with ``features(x)``.
        images: (B, C, H, W) in [0, 1], or a bare representation z (B, d), which needs ``image_shape``.
        mode: "plain", "variational", "effective".
        noise: a :class:`WeightNoise` of this model, for the last two.
        steps: gradient steps.
        lr: step size, one or (B,); None tries steps around each image's own scale for 20 steps and takes half the best.
        optimizer: "sgd" as printed, "normalized" (each gradient scaled to length 1), "adam", or "lbfgs" (plain and
            variational: the objective must stay the same).
        seed: of the start and of the noise.
        layer: invert the output of this module (a name of ``model.named_modules()``) instead of the features.
        init: the start: "gaussian" is N(0.5, init_scale^2) clamped, "uniform", "zeros", "ones", or images of your own.
        loss: "l2"; "relative" divides it by |z|^2; "cosine" is 1 - cos(f, z).
        squared: True as in the algorithms; False descends the norm itself, as eqs 3 and 10 print it.
        noise_side: "model" as in the algorithms, or "target" as in eq. 10: the noise is on z.
        fake_relu: give the last ReLU the gradient of the identity.
        tolerance: an image stops when |f(r) - z|^2 falls below this times |z|^2.
        precision: "fp32", or "bf16" for the descent alone; final losses are computed in the weights' own type.
        keep_every: keep the images after every so many steps, for :meth:`Inversion.animate`.
        image_shape: (C, H, W) of the image of a bare representation.
        progress: show steps and loss on standard error.

    Raises:
        UsageError: images that do not fit or leave [0, 1], a noisy mode without noise, noise of another model.
    """
    check_choice("mode", mode, MODES)
    check_choice("noise_side", noise_side, ("model", "target"))
    check_choice("loss", loss, LOSSES)
    check_number("init_scale", init_scale, at_least=0)
    if optimizer == "lbfgs" and mode == "effective":
        raise UsageError("optimizer='lbfgs' needs an objective that stays; pass 'adam' or 'sgd' with mode='effective'")
    if loss == "cosine" and tolerance > 0:
        raise UsageError("tolerance compares with |z|^2, which loss='cosine' does not know; pass tolerance=0")
    if not hasattr(model, "features"):
        raise UsageError(f"model={type(model).__name__} has no features(); wrap it in FeatureClassifier")
    _check_noise(model, mode, noise)
    with frozen(model):
        originals, target, shape = _target(model, images, image_shape, layer)
        example = torch.full((1, *shape), 0.5, device=target.device, dtype=target.dtype)
        problem = Problem(
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
    return _solve(problem, start, size, steps, lr, optimizer, tolerance, precision, keep_every, progress, init_scale)


def invert_label(
    model: nn.Module,
    labels: Tensor,
    steps: int = 500,
    lr: float | Tensor | None = None,
    optimizer: str = "adam",
    seed: int = 0,
    *,
    image_shape: tuple[int, int, int] | None = None,
    init: str | Tensor = "gaussian",
    init_scale: float = 0.1,
    tolerance: float = 0.0,
    precision: str = "fp32",
    keep_every: int | None = None,
    progress: bool = False,
) -> Inversion:
    """Class images: descend the cross-entropy of ``labels`` (B,) from a start that says nothing about them.

    Args:
        labels: one an image.
        image_shape: (C, H, W); by default what the model was trained on.
        tolerance: an image stops when its loss falls below this times log K.
        steps, lr, optimizer, seed, init, init_scale, precision, keep_every, progress: as for :func:`invert`.

    >>> model = FeatureClassifier(nn.Flatten(), nn.Linear(16, 3))
    >>> found = invert_label(model, torch.tensor([0, 2]), steps=20, image_shape=(1, 4, 4))
    >>> model(found.images).argmax(1)
    tensor([0, 2])
    """
    shape = image_shape or getattr(model, "input_shape", None)
    if shape is None:
        raise UsageError("image_shape=None and the model does not know its input's; pass image_shape=(C, H, W)")
    example = torch.full((1, *shape), 0.5, device=device_of(model), dtype=next(model.parameters()).dtype)
    classes = probe(model, example, f"images of image_shape={tuple(shape)}").shape[1]
    check_labels(labels, classes, "labels")
    if len(labels) == 0:
        raise UsageError("labels is empty; name one class or more")
    labels = labels.to(example.device).long()
    problem = LabelProblem(model, labels, example, precision, seed)
    start = start_images(init, init_scale, tuple(shape), len(labels), seed, example)
    return _solve(problem, start, 0.0, steps, lr, optimizer, tolerance, precision, keep_every, progress, init_scale)


def _solve(
    problem: Problem | LabelProblem,
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
    """Check the numbers, choose step sizes, descend."""
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
            raise UsageError(f"lr has shape {tuple(lr.shape)}; pass positive numbers ({len(start)},), or one")
        rates = lr.to(start)
    elif lr is not None:
        check_number("lr", lr, above=0)
        rates = start.new_full((len(start),), lr)
    else:
        problem.prepare(0)
        rates = stable_rates(problem.loss, start, optimizer)
    with Progress(f"inverting ({problem.mode})", steps, progress) as shown:
        return _descend(problem, start, rates, noise_size, optimizer, steps, tolerance, keep_every, shown)


def _descend(
    problem: Problem | LabelProblem,
    start: Tensor,
    rates: Tensor,
    noise_size: float,
    optimizer: str,
    steps: int,
    tolerance: float,
    keep_every: int | None,
    shown: Progress,
) -> Inversion:
    step_of = make_step(optimizer, rates)
    images, best = start, start
    best_loss = torch.full_like(rates, torch.inf)
    threshold = problem.threshold(tolerance)
    active = torch.ones_like(rates, dtype=torch.bool)
    diverged = ~active
    fixed = problem.mode in ("plain", "label")
    losses, clean_losses, frames = [], [], []
    for step in range(steps):
        problem.prepare(step)
        if keep_every is not None and step % keep_every == 0:
            frames.append(images)
        loss, slope = gradient(problem.loss, images)
        losses.append(loss)
        clean_losses.append(loss if fixed else problem.clean_loss(images))
        finite = torch.isfinite(loss) & torch.isfinite(slope).flatten(1).all(1)
        diverged = diverged | ~finite
        better = finite & (loss < best_loss)
        best, best_loss = where(better, images, best), torch.where(better, loss, best_loss)
        active = active & finite & (loss > threshold)
        images = where(active, step_of(images, loss, slope), images)
        shown.advance(message=_said(loss, finite) if shown.enabled else "")
        if not bool(active.any()):
            break
    # A line search ends on a trial; what it accepted is the best.
    images = where(diverged | (optimizer == "lbfgs"), best, images)
    final, final_clean = problem.final_losses(images)
    missing = steps - len(losses)
    return Inversion(
        images=images,
        losses=torch.stack(losses + [losses[-1]] * missing),
        clean_losses=torch.stack(clean_losses + [clean_losses[-1]] * missing),
        final_losses=final,
        final_clean_losses=final_clean,
        originals=problem.originals,
        lr=rates,
        diverged=diverged,
        mode=problem.mode,
        noise_size=noise_size,
        seed=problem.seed,
        scale=problem.scale,
        frames=torch.stack(frames) if frames else None,
    )


def _said(loss: Tensor, finite: Tensor) -> str:
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


def _check_noise(model: nn.Module, mode: str, noise: WeightNoise | None) -> None:
    if mode == "plain":
        if noise is not None:
            raise UsageError("mode='plain' takes no noise; pass mode='variational' or 'effective'")
        return
    if not isinstance(noise, WeightNoise):
        raise UsageError(f"mode={mode!r} needs noise=WeightNoise(WeightFisher(model, inputs), beta, prior_variance)")
    own = dict(model.named_parameters())
    theirs = noise.fisher.parameters
    same = all(name in own and own[name].shape == p.shape and torch.equal(own[name], p) for name, p in theirs.items())
    if not same:
        raise UsageError("noise belongs to another model (or other weights); build it from a WeightFisher of this one")


def invert_modes(model: FeatureClassifier, images: Tensor, noise: WeightNoise, **settings: Any) -> dict[str, Inversion]:
    """All three modes on the same images, by name."""
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
        fisher: of the model, as :class:`WeightNoise` takes it.
        settings: anything else :func:`invert` takes.
    """
    if not betas:
        raise UsageError("betas is empty; pass one or more")
    noises = {beta: WeightNoise(fisher, beta, prior_variance) for beta in betas}
    return {beta: invert(model, images, "effective", noise, **settings) for beta, noise in noises.items()}
