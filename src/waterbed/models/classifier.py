"""FeatureClassifier: normalisation, features, head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.errors import UsageError, UsageTypeError


class FeatureClassifier(nn.Module):
    """A classifier ``head(features(x))`` for images x in [0, 1], with the normalisation inside.

    Args:
        backbone: any module that maps normalised images (N, C, H, W) to features (N, d), or (N, d, 1, 1).
        head: the linear layer from d features to K logits, or another module from (N, d) to (N, K).
        mean, std: one value per channel, in pixel units; None means no normalisation (``fit`` then sets
            those of the training data).

    ``features(x)`` is the paper's z = f_w(x), ``forward(x)`` the logits (A z + b where the head is linear).

    >>> model = FeatureClassifier(nn.Flatten(), nn.Linear(4, 3), mean=[0.5], std=[0.25])
    >>> model.features(torch.ones(2, 1, 2, 2))[0]
    tensor([2., 2., 2., 2.])
    >>> model(torch.ones(2, 1, 2, 2)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module) or not isinstance(head, nn.Module):
            raise UsageTypeError(
                f"backbone and head are {type(backbone).__name__} and {type(head).__name__}; "
                "pass an nn.Module and an nn.Linear (or another nn.Module)"
            )
        self.backbone, self.head = backbone, head
        self.register_buffer("mean", None)
        self.register_buffer("std", None)
        if (mean is None) != (std is None):
            raise UsageError(f"mean={mean!r} and std={std!r} belong together; pass both or neither")
        if mean is not None:
            self.set_normalisation(mean, std)
        self.architecture: dict[str, Any] | None = None
        self.input_shape: tuple[int, int, int] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "head":  # the names of its classes, which fit and load_model know; another head has others
            self.class_names: tuple[str, ...] | None = None
        super().__setattr__(name, value)

    def set_normalisation(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Normalise images as (x - mean) / std, one value per channel."""
        like = next(self.parameters())
        mean, std = (torch.as_tensor(v, dtype=like.dtype, device=like.device).flatten() for v in (mean, std))
        if mean.shape != std.shape or not bool(torch.isfinite(mean).all()) or not bool((std > 0).all()):
            raise UsageError(f"mean={mean.tolist()} and std={std.tolist()} must be finite, of one length, with std > 0")
        self.mean, self.std = mean[:, None, None], std[:, None, None]

    def check_channels(self, x: Tensor, argument: str) -> None:
        """Raise unless images (N, C, H, W) have the channels of the normalisation, which would broadcast over them."""
        if self.mean is not None and x.ndim == 4 and x.shape[1] != len(self.mean):
            raise UsageError(
                f"{argument} has {x.shape[1]} channels, the model normalises {len(self.mean)}; load the images with "
                f"channels={len(self.mean)}"
            )

    def features(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to features (N, d)."""
        if self.mean is not None:
            x = (x - self.mean) / self.std
        return self.backbone(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to logits (N, K)."""
        return self.head(self.features(x))


def weight_norm(model: nn.Module) -> float:
    """Euclidean norm of all weights, the quantity of the paper's Fig. 5.

    It is not invariant: scaling a layer by c and the next by 1/c leaves a ReLU network the same function.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> weight_norm(layer)
    5.0
    """
    return sum(float(p.detach().double().square().sum()) for p in model.parameters()) ** 0.5
