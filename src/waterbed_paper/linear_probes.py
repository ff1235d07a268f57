"""Many linear probes of one set of features at once: a grid of SGD's settings as one batched head, and the optima of
logistic regression along a path of weight decays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waterbed.devices import seeded
from waterbed.training.config import TrainConfig

MAX_ITERATIONS = 150  # of L-BFGS at each weight decay; the path starts each where the one before ended


@dataclass(frozen=True)
class Heads:
    """Linear heads of the same features, one for each of A settings.

    Attributes:
        weight, bias: (A, K, d) and (A, K).
    """

    weight: Tensor
    bias: Tensor

    def accuracies(self, features: Tensor, labels: Tensor) -> list[float]:
        """Percent of (N, d) features that each head gives their labels (N,); a logit that is not finite is wrong.

        >>> heads = Heads(torch.tensor([[[1.0], [-1.0]], [[-1.0], [1.0]]]), torch.zeros(2, 2))
        >>> heads.accuracies(torch.tensor([[1.0], [2.0], [3.0], [-1.0]]), torch.tensor([0, 0, 0, 0]))
        [75.0, 25.0]
        """
        hits = torch.zeros(len(self.weight), dtype=torch.long)
        for x, y in zip(features.split(1024), labels.split(1024), strict=True):
            logits = x @ self.weight.transpose(1, 2) + self.bias.unsqueeze(1)  # (A, n, K)
            right = (logits.argmax(2) == y) & logits.isfinite().all(2)
            hits += right.sum(1)
        return [100 * int(h) / len(labels) for h in hits]


def train_heads(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    settings: Sequence[tuple[float, float]],
    config: TrainConfig,
) -> Heads:
    """Train one head for each setting by SGD, all on the same minibatches from the same start.

    The steps are those of ``torch.optim.SGD`` with the momentum of ``config``, cross-entropy, and no weight decay of
    the bias, as :func:`waterbed.finetune` trains one head.

    Args:
        features, labels: (N, d), float, and (N,).
        settings: (learning rate, weight decay) of each head.
        config: epochs, batch size, schedule, momentum and seed of all of them; its own rate and weight decay are not
            used.

    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> heads = train_heads(x, y, 2, [(0.1, 0.0), (0.1, 1.0)], TrainConfig(epochs=20))
    >>> small, large = heads.weight.flatten(1).norm(dim=1).sort().values
    >>> bool(large > 5 * small)
    True
    """
    n, d = features.shape
    count, k = len(settings), num_classes
    with seeded(config.seed, features.device):
        start = nn.Linear(d, k).to(features)
    weight = start.weight.detach().repeat(count, 1)  # (A K, d): one product serves all heads
    bias = start.bias.detach().repeat(count)
    rates, decays = (torch.tensor(column).to(features) for column in zip(*settings, strict=True))
    row_rates, row_decays = rates.repeat_interleave(k), decays.repeat_interleave(k).unsqueeze(1)
    moving, moving_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    steps = -(-n // config.batch_size)
    for epoch in range(config.epochs):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        order = torch.randperm(n, generator=generator)
        for step, batch in enumerate(order.tensor_split(steps)):
            x, y = features[batch], labels[batch]
            errors = torch.addmm(bias, x, weight.T).view(len(batch), count, k).softmax(2)
            errors[torch.arange(len(batch)), :, y] -= 1
            errors = errors.view(len(batch), count * k).div_(len(batch))
            moving.mul_(config.momentum).addmm_(errors.T, x).addcmul_(weight, row_decays)
            moving_bias.mul_(config.momentum).add_(errors.sum(0))
            now = row_rates * config.rate((epoch * steps + step) / (config.epochs * steps))
            weight.addcmul_(moving, now.unsqueeze(1), value=-1)
            bias.addcmul_(moving_bias, now, value=-1)
    return Heads(weight.view(count, k, d), bias.view(count, k))


def logistic_path(features: Tensor, labels: Tensor, num_classes: int, decays: Sequence[float]) -> Heads:
    """Heads that minimise mean cross-entropy + decay/2 |W|^2 (the bias is free), one for each weight decay.

    L-BFGS from the strongest decay to the weakest, each from the optimum before (Friedman, Hastie and Tibshirani 2010,
    sec. 2.5: pathwise). A decay is 1/(C N) of scikit-learn's LogisticRegression.

    Args:
        features, labels: (N, d) and (N,).
        decays: positive; the heads come in their order.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> strong, weak = logistic_path(x, y, 2, [1.0, 0.01]).weight.flatten(1).norm(dim=1)
    >>> bool(strong < weak)
    True
    """
    weight = features.new_zeros(num_classes, features.shape[1], requires_grad=True)
    bias = features.new_zeros(num_classes, requires_grad=True)
    optima: dict[float, tuple[Tensor, Tensor]] = {}
    for decay in sorted(decays, reverse=True):
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=MAX_ITERATIONS,
            history_size=20,
            tolerance_grad=1e-6,
            tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        )

        def closure(optimizer: torch.optim.LBFGS = optimizer, decay: float = decay) -> Tensor:
            optimizer.zero_grad()
            logits = torch.addmm(bias, features, weight.T)
            loss = F.cross_entropy(logits, labels) + 0.5 * decay * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        optima[decay] = weight.detach().clone(), bias.detach().clone()
    weights, biases = zip(*(optima[decay] for decay in decays), strict=True)
    return Heads(torch.stack(weights), torch.stack(biases))
