"""The optimiser that a training's settings ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from waterbed.errors import UsageTypeError
from waterbed.own_code import import_function
from waterbed.training.config import TrainConfig, shown


def make_optimizer(parameters: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW, or what the caller's factory makes of the parameters.

    Raises:
        UsageError: the factory is named, and cannot be imported.
        UsageTypeError: the factory returns something else than an optimiser.

    >>> make_optimizer([nn.Parameter(torch.zeros(2))], TrainConfig(optimizer="adamw")).defaults["lr"]
    0.001
    """
    if config.own_optimizer:
        make = config.optimizer
        make = import_function("optimizer", make) if isinstance(make, str) else make
        optimizer = make(list(parameters))
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UsageTypeError(
                f"optimizer={shown(config.optimizer)} returned {type(optimizer).__name__}; it must return a "
                "torch.optim.Optimizer over the parameters it is given"
            )
        return optimizer
    groups = list(parameters) if config.decay_norms else without_decay_of_norms(parameters)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups,
        config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov and config.momentum > 0,
    )


def without_decay_of_norms(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Two groups, the second without weight decay: what has one dimension is a bias or scales a normalised channel.

    >>> layer = nn.Linear(3, 2)
    >>> [[tuple(p.shape) for p in group["params"]] for group in without_decay_of_norms(list(layer.parameters()))]
    [[(2, 3)], [(2,)]]
    """
    groups = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
