"""Many linear heads trained at once on the same minibatches, each at its own learning rate and weight decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from waterbed.devices import device_of
from waterbed.training.config import TrainConfig
from waterbed.transfer_learning.activation_cache import Cache
from waterbed.transfer_learning.search import DIVERGED, Pair

MOST_WEIGHTS = 2**25  # more heads than have so many are trained in groups


@dataclass(frozen=True)
class Heads:
    """Linear heads: logits = features @ weight.T + bias.

    Attributes:
        weight, bias: (P, K, d) and (P, K), float32.
    """

    weight: Tensor
    bias: Tensor

    @property
    def finite(self) -> Tensor:
        """(P,) whether the training of a head did not diverge."""
        return self.weight.isfinite().all(2).all(1) & self.bias.isfinite().all(1)

    def predict(self, features: Tensor) -> Tensor:
        """Classes (P, N), on the CPU, of features (N, d); -1, which no label is, where a logit is NaN."""
        classes = []
        for part in features.split(1024):
            logits = part.to(self.weight) @ self.weight.mT + self.bias.unsqueeze(1)
            classes.append(logits.argmax(2).masked_fill(logits.isnan().any(2), -1).cpu())
        return torch.cat(classes, 1)


# What SGD of a head on features that are kept obeys; all else is about images, networks or their files.
OF_HEADS = (
    *("epochs", "batch_size", "lr", "weight_decay", "momentum", "nesterov", "schedule", "milestones"),
    *("decay_norms", "label_smoothing", "seed"),
)


def can_train_heads(config: TrainConfig) -> bool:
    """Whether :func:`train_heads` makes the steps of this recipe."""
    return config.optimizer == "sgd" and config.accumulate == 1 and config.clip_norm == 0


@torch.no_grad()
def train_heads(
    cache: Cache, start: nn.Linear, pairs: Sequence[Pair], config: TrainConfig, indices: Tensor | None = None
) -> Heads:
    """Train one head for each pair (learning rate, weight decay) by SGD on cross-entropy.

    All start from the same weights and see the same batches, so that each becomes what it would be if it were trained
    alone; the features of a batch are read once, and its logits are one matrix product for all heads.

    Args:
        cache: features (views, N, d), which epochs take in turn.
        start: the initial head; it is not changed.
        pairs: P of them, in place of the config's.
        config: the rest of the recipe; one of which :func:`can_train_heads`.
        indices: (M,), the examples to use; all by default.

    >>> x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    >>> cache = Cache((x[None],), (x[:, 0] > 0).long())
    >>> heads = train_heads(cache, nn.Linear(3, 2), [(0.1, 0.0), (1.0, 1e-4)], TrainConfig(epochs=5, batch_size=16))
    >>> heads.weight.shape
    torch.Size([2, 2, 3])
    """
    indices = torch.arange(len(cache)) if indices is None else indices
    group = max(1, MOST_WEIGHTS // start.weight.numel())
    groups = [_train(cache, start, pairs[i : i + group], config, indices) for i in range(0, len(pairs), group)]
    return Heads(torch.cat([h.weight for h in groups]), torch.cat([h.bias for h in groups]))


def head_accuracies(
    cache: Cache, start: nn.Linear, pairs: Sequence[Pair], config: TrainConfig, train: Tensor, held: Tensor
) -> list[float]:
    """Percent of the examples ``held`` that heads trained on the examples ``train`` get right, one for each pair."""
    heads = train_heads(cache, start, pairs, config, train)
    (features,), labels = cache.batch(held, 0, start.weight.device)
    hits = 100 * (heads.predict(features.flatten(1)) == labels.cpu()).double().mean(1)
    return [float(hit) if finite else DIVERGED for hit, finite in zip(hits, heads.finite, strict=True)]


def _train(cache: Cache, start: nn.Linear, pairs: Sequence[Pair], config: TrainConfig, indices: Tensor) -> Heads:
    device, classes = device_of(start), start.out_features
    rates, decays = torch.tensor(pairs, dtype=torch.float32, device=device).T
    bias = torch.zeros(classes, device=device) if start.bias is None else start.bias.detach().float()
    weight = start.weight.detach().float().expand(len(pairs), -1, -1).clone()
    bias = bias.expand(len(pairs), -1).clone()
    moments = [torch.zeros_like(weight), torch.zeros_like(bias)]
    steps = math.ceil(len(indices) / config.batch_size)
    for epoch in range(config.epochs):
        for i, batch in enumerate(shuffled(indices, config, epoch).tensor_split(steps)):
            (x,), y = cache.batch(batch, epoch % cache.views, device)
            x = x.flatten(1)
            logits = x @ weight.flatten(0, 1).T + bias.flatten()
            slope = logits.view(len(x), len(pairs), classes).softmax(2)
            slope[torch.arange(len(x)), :, y] -= 1 - config.label_smoothing
            slope -= config.label_smoothing / classes
            slope = slope.flatten(1) / len(x)
            gradients = [(slope.T @ x).view_as(weight), slope.sum(0).view_as(bias)]
            factor = config.rate((epoch * steps + i) / (steps * config.epochs))
            for values, gradient, moment in zip((weight, bias), gradients, moments, strict=True):
                if values is bias and start.bias is None:
                    continue
                shape = (-1, *[1] * (values.ndim - 1))
                if values is weight or config.decay_norms:
                    gradient += decays.view(shape) * values
                moment.mul_(config.momentum).add_(gradient)
                ahead = gradient + config.momentum * moment if config.nesterov else moment
                values -= factor * rates.view(shape) * ahead
    return Heads(weight, bias)


def shuffled(indices: Tensor, config: TrainConfig, epoch: int) -> Tensor:
    """The examples in the order of an epoch."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    return indices[torch.randperm(len(indices), generator=generator)]
