"""Inversion: the image a representation came from, or one the classifier cannot tell from it (Def. 2.1, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from waterbed.data.images import check_images
from waterbed.descent import OPTIMIZERS, Step, gradient, stable_rates, where
from waterbed.engine import device_of, seeded
from waterbed.errors import UsageError, check_choice, check_count, check_number
from waterbed.information import WeightNoise
from waterbed.models import FeatureClassifier, frozen, probe
from waterbed.progress import Progress

MODES = ("plain", "variational", "effective")


@dataclass(frozen=True)
class Inversion:
    """What :func:`invert` found; B images.

    Attributes:
        images: (B, C, H, W) in [0, 1].
        losses: (steps, B), before each step, on the objective that was descended (noisy in the noisy modes).
        clean_losses: (steps, B), the same images on the clean model and target.
        final_losses, final_clean_losses: (B,), of ``images``.
        originals: (B, C, H, W), or None if a bare representation was inverted.
        lr: (B,), the step size of each image.
        diverged: (B,), True where the loss became infinite or NaN; ``images`` then holds the best iterate.
        mode: "plain", "variational" or "effective".
        noise_size: root of E |n|^2 over |w|; 0 for plain.
        seed: of the start image and the noise.
    """

    images: Tensor
    losses: Tensor
    clean_losses: Tensor
    final_losses: Tensor
    final_clean_losses: Tensor
    originals: Tensor | None
    lr: Tensor
    diverged: Tensor
    mode: str
    noise_size: float
    seed: int

    def save(self, path: str | Path) -> None:
        """Draw originals and inversions as rows of one picture."""
        from waterbed.plots import image_grid, save_figure

        rows = {} if self.originals is None else {"original": self.originals}
        save_figure(image_grid({**rows, self.mode: self.images}), path)


def invert(
    model: nn.Module,
    images: Tensor,
    mode: str = "plain",
    noise: WeightNoise | None = None,
    steps: int = 1000,
    lr: float | None = None,
    optimizer: str = "sgd",
    seed: int = 0,
    *,
    image_shape: tuple[int, int, int] | None = None,
    init_scale: float = 0.1,
    noise_side: str = "model",
    squared: bool = True,
    tolerance: float = 0.0,
    progress: bool = False,
) -> Inversion:
    """Find images whose features equal those of ``images``, by gradient descent on the pixels.

    The loss of an image is |f(r) - z|^2 summed over the features, z = f_w(x) (Def. 2.1, eq. 3). "variational" draws
    weight noise n once and descends |f_{w+n}(r) - z|^2 (Algorithm 1); "effective" draws it at every step
    (Algorithm 2). The images are independent problems that share their start and their noise, so a result does not
    depend on the batch it ran in. The model's weights and mode are not touched.

    Args:
        model: a :class:`FeatureClassifier`, or any module with ``features(x)``.
        images: (B, C, H, W) in [0, 1], or a bare representation z (B, d), which needs ``image_shape``.
        mode: "plain", "variational", "effective".
        noise: a :class:`WeightNoise` of this model, for the last two.
        steps: gradient steps.
        lr: step size; None tries steps around each image's own scale for 20 steps and takes half the best.
        optimizer: "sgd" as printed, "normalized" (each gradient scaled to length 1), "adam".
        seed: of the start N(0.5, init_scale^2), clamped, and of the noise.
        noise_side: "model" as in the algorithms, or "target" as in eq. 10: the noise is on z.
        squared: True as in the algorithms; False descends the norm itself, as eqs 3 and 10 print it.
        tolerance: an image stops when |f(r) - z|^2 falls below this times |z|^2.

    Raises:
        UsageError: images that do not fit or leave [0, 1], a noisy mode without noise, noise of another model.
    """
    check_choice("mode", mode, MODES)
    check_choice("optimizer", optimizer, OPTIMIZERS)
    check_choice("noise_side", noise_side, ("model", "target"))
    check_count("steps", steps)
    check_number("init_scale", init_scale, at_least=0)
    check_number("tolerance", tolerance, at_least=0)
    if lr is not None:
        check_number("lr", lr, above=0)
    if not hasattr(model, "features"):
        raise UsageError(f"model={type(model).__name__} has no features(); wrap it in FeatureClassifier")
    _check_noise(model, mode, noise)
    device = device_of(model)
    with frozen(model):
        originals, target, shape = _target(model, images, image_shape, device)
        problem = _Problem(model, target, originals, mode, noise, noise_side, squared, seed)
        with seeded(seed):
            start = (0.5 + init_scale * torch.randn(1, *shape)).clamp(0, 1).to(device, target.dtype)
        start = start.expand(len(target), *shape).contiguous()
        rates = torch.full((len(target),), lr or 0.0, device=device, dtype=target.dtype)
        if lr is None:
            problem.prepare(0)
            rates = stable_rates(problem.loss, start, optimizer)
        with Progress(f"inverting ({mode})", steps, progress) as shown:
            return _descend(problem, start, rates, optimizer, steps, tolerance, shown)


class _Problem:
    """The objective of one inversion: features, target, and where the noise goes."""

    def __init__(
        self,
        model: nn.Module,
        target: Tensor,
        originals: Tensor | None,
        mode: str,
        noise: WeightNoise | None,
        noise_side: str,
        squared: bool,
        seed: int,
    ) -> None:
        if mode != "plain" and noise_side == "target" and originals is None:
            raise UsageError("noise_side='target' needs images, not a bare representation; pass noise_side='model'")
        self.model, self.target, self.originals, self.mode = model, target, originals, mode
        self.noise, self.noise_side, self.squared, self.seed = noise, noise_side, squared, seed
        self._features = _Features(model)
        self._weights: dict[str, Tensor] | None = None
        self._target = target

    def prepare(self, step: int) -> None:
        """Draw the noise this step needs: once for variational, every time for effective."""
        if self.mode == "plain" or (self.mode == "variational" and step > 0):
            return
        draw = self.seed * 1_000_003 + step
        weights = {f"model.{name}": w for name, w in self.noise.perturbed(draw).items()}
        if self.noise_side == "model":
            self._weights = weights
        else:
            self._target = functional_call(self._features, weights, (self.originals,))

    def loss(self, images: Tensor, copies: int = 1) -> Tensor:
        """The objective of each image, (B,)."""
        features = (
            self._features(images)
            if self._weights is None
            else functional_call(self._features, self._weights, (images,))
        )
        return self._distance(features, self._target.repeat(copies, 1))

    @torch.no_grad()
    def clean_loss(self, images: Tensor) -> Tensor:
        """The same on the clean model with the clean target, (B,)."""
        return self._distance(self._features(images), self.target)

    def _distance(self, features: Tensor, target: Tensor) -> Tensor:
        squares = (features - target).square().sum(1)
        return squares if self.squared else squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


class _Features(nn.Module):
    """``model.features`` as a forward, for functional_call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.features(x)


def _descend(
    problem: _Problem, start: Tensor, rates: Tensor, optimizer: str, steps: int, tolerance: float, shown: Progress
) -> Inversion:
    step_of = Step(optimizer, rates)
    images, best = start, start
    best_loss = torch.full_like(rates, torch.inf)
    threshold = tolerance * problem.target.square().sum(1)
    active = torch.ones_like(rates, dtype=torch.bool)
    diverged = ~active
    losses, clean_losses = [], []
    for step in range(steps):
        problem.prepare(step)
        loss, slope = gradient(problem.loss, images)
        clean = loss if problem.mode == "plain" else problem.clean_loss(images)
        losses.append(loss)
        clean_losses.append(clean)
        finite = torch.isfinite(loss) & torch.isfinite(slope).flatten(1).all(1)
        diverged = diverged | ~finite
        better = finite & (loss < best_loss)
        best, best_loss = where(better, images, best), torch.where(better, loss, best_loss)
        reached = loss if problem.squared else loss.square()
        active = active & finite & (reached > threshold)
        images = where(active, (images - step_of(slope)).clamp(0, 1), images)
        shown.advance(message=f"loss {float(loss[finite].mean()):.4g}" if bool(finite.any()) else "diverged")
        if not bool(active.any()):
            break
    images = where(diverged, best, images)
    final = problem.loss(images).detach()
    pad = [losses[-1]] * (steps - len(losses)), [clean_losses[-1]] * (steps - len(losses))
    return Inversion(
        images=images,
        losses=torch.stack(losses + pad[0]),
        clean_losses=torch.stack(clean_losses + pad[1]),
        final_losses=final,
        final_clean_losses=problem.clean_loss(images),
        originals=problem.originals,
        lr=rates,
        diverged=diverged,
        mode=problem.mode,
        noise_size=0.0 if problem.mode == "plain" else problem.noise.relative_size(),
        seed=problem.seed,
    )


def _target(
    model: nn.Module, images: Any, image_shape: tuple[int, int, int] | None, device: torch.device
) -> tuple[Tensor | None, Tensor, tuple[int, int, int]]:
    """Originals (None for a bare representation), their features, and the shape of one image."""
    if isinstance(images, Tensor) and images.ndim == 2:
        if image_shape is None:
            raise UsageError("image_shape=None; to invert a bare representation, pass the (C, H, W) of the image")
        if not bool(torch.isfinite(images).all()):
            raise UsageError("images, here a representation, has values that are NaN or infinite; remove them")
        shape = tuple(image_shape)
        blank = torch.full((1, *shape), 0.5, device=device, dtype=next(model.parameters()).dtype)
        probe(model, blank, f"images of image_shape={shape}")
        features = model.features(blank)
        if features.shape[1] != images.shape[1]:
            raise UsageError(
                f"images, here a representation, has {images.shape[1]} features; the model gives {features.shape[1]}"
            )
        return None, images.detach().to(blank), shape
    check_images(images, "images")
    images = images.detach().to(device)
    probe(model, images)
    return images, model.features(images).detach(), tuple(images.shape[1:])


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
