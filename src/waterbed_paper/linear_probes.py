"""The optima of logistic regression along a path of weight decays, and how many of a set of heads are right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from waterbed.transfer_learning.heads import Heads

MAX_ITERATIONS = 150  # of L-BFGS at each weight decay; the path starts each where the one before ended


def accuracies(heads: Heads, features: Tensor, labels: Tensor) -> list[float]:
    """Percent of the features (N, d) that each head gives their labels (N,); what diverged is wrong.

    >>> heads = Heads(torch.tensor([[[1.0], [-1.0]], [[-1.0], [1.0]]]), torch.zeros(2, 2))
    >>> accuracies(heads, torch.tensor([[1.0], [2.0], [3.0], [-1.0]]), torch.tensor([0, 0, 0, 0]))
    [75.0, 25.0]
    """
    return [100 * int(hits) / len(labels) for hits in (heads.predict(features) == labels).sum(1)]


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
