"""FARE: robust features without labels, from those of a pretrained network."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from waterbed.attacks.attack import CheckedAttack, Maximiser
from waterbed.distributed import unwrapped
from waterbed.errors import UsageError, UsageTypeError
from waterbed.evaluation.records import fingerprint
from waterbed.training.objective import check_ascends, label_loss, with_attack


@dataclass(frozen=True)
class FARE:
    """The squared distance between attacked features and the pretrained network's clean ones: the mean over images of

        max_{|delta| <= eps} ||f_w(x + delta) - f_0(x)||^2,

    f_0 the network as it was when the training began, which the attack knows, too. No label enters. Schlarmann et al.
    (2024), "Robust CLIP: unsupervised adversarial fine-tuning of vision embeddings for robust large vision-language
    models".

    Only the backbone learns from it, and clean features stay where they were, so that a head on f_0 still fits. A head
    whose weights require a gradient learns from the labels beside it, by cross-entropy on the attacked features, whose
    own gradient stops there: the new head of :func:`waterbed.finetune` (modes 1 and 2). To keep that of the pretrained
    network, and to use no label at all, call ``model.head.requires_grad_(False)`` before :func:`waterbed.fit`.

    The loss is a sum over features, far larger than a cross-entropy: take a small learning rate and adamw.

    A run is resumed by the same call, with the network as it was at the start: the run's config holds its fingerprint,
    and another network is refused.

    Args:
        attack: must start at random: at the start and delta = 0 the distance and its gradient are 0. A user's own needs
            ``maximise`` (:class:`~waterbed.attacks.attack.Maximiser`).

    Raises:
        UsageTypeError: in training, a network without features and head (pass ``wb.wrap(model)``).
        UsageError: in training, no weight of the backbone requires a gradient.

    >>> import waterbed as wb
    >>> data = wb.load_dataset("digits").take(60, 30)
    >>> pretrained = wb.create_model("resnet10", 10, width=2, in_channels=1)
    >>> pretrained = wb.fit(pretrained, data, epochs=1, watch=0, progress=False).model
    >>> _ = pretrained.head.requires_grad_(False)
    >>> gently = {"epochs": 1, "optimizer": "adamw", "lr": 1e-4, "watch": 0, "progress": False}
    >>> robust = wb.fit(pretrained, data, wb.FARE(wb.PGD(eps=0.1)), **gently)
    >>> robust.config["objective"]["name"]
    'feature'
    """

    soft_labels = True
    compiles = False
    attack: Maximiser
    original: nn.Module | None = field(default=None, repr=False)
    """f_0: set by the training."""

    def __post_init__(self) -> None:
        check_ascends(self.attack, "FARE", "the distance of features")
        object.__setattr__(self, "_attack", CheckedAttack(self.attack))

    @property
    def attacks_copy(self) -> bool:
        """Whether the folded copy has a head by which to find the features: torch.fx keeps layers of torch.nn whole."""
        return self.original is not None and fx.Tracer().is_leaf_module(self.original.head, "head")

    def started_from(self, model: nn.Module) -> FARE:
        """This objective for a training that starts from ``model``, of which a copy is kept."""
        if not callable(getattr(model, "features", None)) or not isinstance(getattr(model, "head", None), nn.Module):
            raise UsageTypeError(
                f"model={type(model).__name__} has no features and head, whose distance FARE reduces; pass "
                "wb.wrap(model), pretrained"
            )
        if not any(p.requires_grad for name, p in model.named_parameters() if not name.startswith("head.")):
            raise UsageError(
                "no weight of the backbone requires a gradient, and FARE trains nothing else; in finetune pass mode=1 "
                "or 2, elsewhere call model.backbone.requires_grad_(True)"
            )
        return replace(self, original=copy.deepcopy(model).eval().requires_grad_(False))

    def __call__(self, model: nn.Module, forward: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.original is None:
            raise UsageError("FARE has no original network to compare with; call started_from(model), as fit does")
        with torch.no_grad():
            target, _ = _run(self.original, x)
        x_adv = self._attack.maximise(_Features(model), x, lambda features: distance(features, target))
        features, logits = _run(forward, x_adv)
        loss = distance(features, target).mean()
        head = unwrapped(forward).head
        if any(p.requires_grad for p in head.parameters()):
            logits = head(features.detach())
            loss = loss + label_loss(logits, y)
        return loss, logits

    def config(self) -> dict[str, Any]:
        own = {"name": "feature"}
        if self.original is not None:
            own["original"] = fingerprint(self.original)
        return with_attack(own, self.attack)


def distance(features: Tensor, target: Tensor) -> Tensor:
    """(N,) squared Euclidean distances between features (N, d), which autocast may have left in half precision."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    return (features.to(dtype) - target.to(dtype)).square().sum(1)


class _Features(nn.Module):
    """What enters the head of a network, for an attack to maximise a loss of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return _run(self.network, x)[0]


def _run(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, d) and logits (N, K) of one pass through the network, whose ``head`` takes features."""
    entered: list[Tensor] = []
    hook = unwrapped(network).head.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    try:
        logits = network(x)
    finally:
        hook.remove()
    return entered[0], logits
