"""The objective of an inversion: distance between features, on which side the noise is, and a folded, fast network."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waterbed.devices import memory_format, seeded
from waterbed.errors import UsageError, check_choice
from waterbed.information.weight_noise import WeightNoise
from waterbed.models.folding import folded

MODES = ("plain", "variational", "effective")
LOSSES = ("l2", "relative", "cosine")
INITS = ("gaussian", "uniform", "zeros", "ones")
PRECISIONS = ("fp32", "bf16")


def check_layer(model: nn.Module, layer: str | None) -> None:
    """Raise :class:`UsageError`, which lists the valid names, unless ``layer`` is None or names a module of the model.

    >>> check_layer(nn.Sequential(nn.ReLU()), "1")
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: layer='1' is unknown; choose one of '0'
    """
    if layer is not None:
        check_choice("layer", layer, [name for name, _ in model.named_modules() if name])


def check_noise(model: nn.Module, mode: str, noise: WeightNoise | None) -> None:
    """Raise :class:`UsageError` unless ``noise`` is None for mode "plain", and of this model for the other modes."""
    if mode == "plain":
        if noise is not None:
            raise UsageError("mode='plain' takes no noise; pass mode='variational' or 'effective'")
        return
    if not isinstance(noise, WeightNoise):
        raise UsageError(f"mode={mode!r} needs noise=WeightNoise(WeightFisher(model, inputs), beta, prior_variance)")
    own = dict(model.named_parameters())
    theirs = noise.fisher.parameters
    if not all(name in own and own[name].shape == p.shape and torch.equal(own[name], p) for name, p in theirs.items()):
        raise UsageError(
            "noise belongs to another model (or other weights); build it from a WeightFisher of this one; "
            "wrap a plain module first, model = wb.wrap(model), and take that for both"
        )


class Features(nn.Module):
    """The representation to invert: ``model.features``, or the output of a named layer, as (N, d).

    With ``fake_relu`` the last ReLU before it has the gradient of the identity, so that features stuck at 0 can recover
    (Engstrom et al. 2019, "Adversarial robustness as a prior for learned representations").
    The hooks stay on the model, so pass a copy.

    Args:
        model: a network with ``features(x)``.
        layer: a name of ``model.named_modules()``, or None for the features.
        fake_relu: whether the last ReLU gets the gradient of the identity.
        example: one image (1, C, H, W), to find that ReLU.

    Raises:
        UsageError: no such layer, or no ReLU before it.
    """

    def __init__(self, model: nn.Module, layer: str | None, fake_relu: bool, example: Tensor) -> None:
        super().__init__()
        self.model = model
        modules = dict(model.named_modules())
        check_layer(model, layer)
        self.layer = None if layer is None else modules[layer]
        if fake_relu:
            self._straighten_last_relu(example)

    def forward(self, x: Tensor) -> Tensor:
        if self.layer is None:
            return self.model.features(x)
        outputs: list[Tensor] = []
        # Cloned because later layers may work in place.
        hook = self.layer.register_forward_hook(lambda module, args, out: outputs.append(out.clone()))
        try:
            self.model(x)
        finally:
            hook.remove()
        return outputs[-1].flatten(1)

    @torch.no_grad()
    def _straighten_last_relu(self, example: Tensor) -> None:
        calls: list[nn.Module] = []
        watched = [m for m in self.model.modules() if isinstance(m, nn.ReLU) or m is self.layer]
        hooks = [module.register_forward_hook(lambda m, args, out: calls.append(m)) for module in watched]
        try:
            self(example)
        finally:
            for hook in hooks:
                hook.remove()
        if self.layer is not None:
            last = len(calls) - calls[::-1].index(self.layer)
            calls = calls[:last]
        relus = [i for i, module in enumerate(calls) if isinstance(module, nn.ReLU)]
        if not relus:
            raise UsageError("fake_relu=True finds no nn.ReLU module before the layer; pass fake_relu=False")
        last_relu = calls[relus[-1]]
        uses = sum(calls[i] is last_relu for i in relus)
        _IdentityBackward(last_relu, calls=uses, index=uses - 1)


class _IdentityBackward:
    """Hooks that give call number ``index`` of a ReLU, of ``calls`` per forward pass, the gradient of the identity."""

    def __init__(self, relu: nn.ReLU, calls: int, index: int) -> None:
        self.calls, self.index, self.count, self.input = calls, index, 0, None
        relu.register_forward_pre_hook(self.before)
        relu.register_forward_hook(self.after)

    def before(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        replaced = self.count % self.calls == self.index
        self.count += 1
        self.input = args[0] if replaced else None
        return (args[0].detach().clone(),) if replaced else None

    def after(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if self.input is None:
            return None
        value, self.input = self.input + (output - self.input).detach(), None
        return value


class Network:
    """Features of a folded copy of the model in its fastest memory format; the weights can be replaced."""

    def __init__(self, model: nn.Module, layer: str | None, fake_relu: bool, example: Tensor, precision: str) -> None:
        self.memory_format = memory_format(model)
        self.model = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=self.memory_format)
        features = Features(self.model, layer, fake_relu, example)
        self.exact: nn.Module = features
        self._current = folded(features, example, torch.bfloat16 if precision == "bf16" else None)
        self._module = self._current()
        self._half = precision == "bf16"
        self._device = example.device.type

    @torch.no_grad()
    def replace(self, weights: dict[str, Tensor]) -> None:
        """Set the parameters named in ``weights``, from now on."""
        own = dict(self.model.named_parameters())
        for name, weight in weights.items():
            own[name].copy_(weight)
        self._module = self._current()

    def __call__(self, images: Tensor) -> Tensor:
        with torch.autocast(self._device, torch.bfloat16, enabled=self._half):
            z = self._module(images.contiguous(memory_format=self.memory_format))
        return z.float() if self._half else z


class FeatureObjective:
    """The distance between features and their target, of one inversion; arguments as for :func:`waterbed.invert`."""

    def __init__(
        self,
        model: nn.Module,
        target: Tensor,
        originals: Tensor | None,
        *,
        example: Tensor,
        mode: str = "plain",
        noise: WeightNoise | None = None,
        noise_side: str = "model",
        loss: str = "l2",
        squared: bool = True,
        layer: str | None = None,
        fake_relu: bool = False,
        precision: str = "fp32",
        seed: int = 0,
    ) -> None:
        if mode != "plain" and noise_side == "target" and originals is None:
            raise UsageError("noise_side='target' needs images, not a bare representation; pass noise_side='model'")
        self.target, self.originals, self.mode, self.seed = target, originals, mode, seed
        self.scale = target.square().sum(1) if loss == "l2" else torch.ones_like(target[:, 0])
        self.scale = self.scale if squared else self.scale.sqrt()
        self._noise, self._side, self._loss, self._squared = noise, noise_side, loss, squared
        self._clean = Network(model, layer, fake_relu, example, precision)
        self._noisy = self._clean if mode == "plain" else Network(model, layer, fake_relu, example, precision)
        self._noisy_target = target

    def prepare(self, step: int) -> None:
        """Draw the noise of this step: at step 0 only for "variational", at every step for "effective"."""
        if self.mode == "plain" or (self.mode == "variational" and step > 0):
            return
        self._noisy.replace(self._noise.perturbed(self.seed * 1_000_003 + step))
        if self._side == "target":
            with torch.no_grad():
                self._noisy_target = self._noisy(self.originals)

    def threshold(self, tolerance: float) -> Tensor:
        """The loss (B,) at which |f - z|^2 is ``tolerance`` times |z|^2."""
        return self.scale * (tolerance if self._squared else tolerance**0.5)

    def loss(self, images: Tensor, copies: int = 1) -> Tensor:
        """The objective (B,) of each image; ``images`` are ``copies`` times the batch, one after the other."""
        network = self._clean if self._side == "target" else self._noisy
        return self._distance(network(images), self._noisy_target.repeat(copies, 1))

    @torch.no_grad()
    def clean_loss(self, images: Tensor) -> Tensor:
        """The objective (B,) on the clean model with the clean target."""
        return self._distance(self._clean(images), self.target)

    @torch.no_grad()
    def final_losses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The objective, and that on the clean model and target, (B,) each, in the precision of the weights."""
        network = self._clean if self._side == "target" else self._noisy
        noisy = self._distance(network.exact(images), self._noisy_target)
        return noisy, self._distance(self._clean.exact(images), self.target)

    def _distance(self, features: Tensor, target: Tensor) -> Tensor:
        if self._loss == "cosine":
            return 1 - F.cosine_similarity(features, target, dim=1)
        squares = (features - target).square().sum(1)
        if self._loss == "relative":
            squares = squares / target.square().sum(1).clamp_min(torch.finfo(squares.dtype).tiny)
        return squares if self._squared else squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


class LabelObjective:
    """The cross-entropy of labels (B,) in nats."""

    mode, originals = "label", None

    def __init__(self, model: nn.Module, labels: Tensor, example: Tensor, precision: str, seed: int) -> None:
        self.memory_format = memory_format(model)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.labels, self.seed = labels, seed
        self._module = folded(self.model, example, torch.bfloat16 if precision == "bf16" else None)()
        self._half, self._device = precision == "bf16", example.device.type
        classes = self.model(example).shape[1]
        self.scale = torch.full((len(labels),), classes, device=example.device, dtype=example.dtype).log()

    def prepare(self, step: int) -> None:
        """Nothing to draw."""

    def threshold(self, tolerance: float) -> Tensor:
        """``tolerance`` times log K, (B,)."""
        return tolerance * self.scale

    def loss(self, images: Tensor, copies: int = 1) -> Tensor:
        """Cross-entropy (B,) of each image, as :meth:`FeatureObjective.loss`."""
        with torch.autocast(self._device, torch.bfloat16, enabled=self._half):
            logits = self._module(images.contiguous(memory_format=self.memory_format))
        return F.cross_entropy(logits.float() if self._half else logits, self.labels.repeat(copies), reduction="none")

    @torch.no_grad()
    def final_losses(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The loss (B,) in the precision of the weights, twice, as there is no noise."""
        loss = F.cross_entropy(self.model(images), self.labels, reduction="none")
        return loss, loss


def start_images(
    init: str | Tensor, init_scale: float, shape: tuple[int, int, int], count: int, seed: int, like: Tensor
) -> Tensor:
    """The images (count, C, H, W) that descent starts from: the same one for all, or those given as ``init``.

    Args:
        init: one of :data:`INITS`, or images (C, H, W), (1, C, H, W) or (count, C, H, W) in [0, 1].
        init_scale: standard deviation of "gaussian" in pixels.
        shape: (C, H, W).
        like: a tensor with the device and dtype of the result.

    Raises:
        UsageError: an unknown name, a wrong shape, or pixels outside [0, 1].

    >>> start_images("zeros", 0.1, (1, 4, 4), count=2, seed=0, like=torch.zeros(1)).shape
    torch.Size([2, 1, 4, 4])
    """
    if isinstance(init, Tensor):
        if init.shape[-3:] != shape or init.ndim not in (3, 4) or (init.ndim == 4 and len(init) not in (1, count)):
            raise UsageError(f"init has shape {tuple(init.shape)}; pass {shape} or ({count}, ...) images")
        if not bool((init >= 0).all() and (init <= 1).all()):
            raise UsageError("init has pixels that are NaN or outside [0, 1]; clamp them")
        start = init.to(like)
    else:
        check_choice("init", init, INITS)
        with seeded(seed):
            start = {
                "gaussian": lambda: (0.5 + init_scale * torch.randn(1, *shape)).clamp(0, 1),
                "uniform": lambda: torch.rand(1, *shape),
                "zeros": lambda: torch.zeros(1, *shape),
                "ones": lambda: torch.ones(1, *shape),
            }[init]().to(like)
    return start.expand(count, *shape).contiguous()
