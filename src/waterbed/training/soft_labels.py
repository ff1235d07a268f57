"""Which objectives can be trained on labels that are probabilities."""

from __future__ import annotations

from typing import Any

from waterbed.errors import UsageError
from waterbed.training.config import OF_LABELS, TrainConfig


def check_takes_labels(objective: Any, config: TrainConfig) -> None:
    """Raise :class:`UsageError` if the settings make labels probabilities and the objective does not take them.

    >>> import waterbed as wb
    >>> check_takes_labels(wb.MART(wb.PGD(eps=0.5)), TrainConfig(mixup=0.2))
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: mixup=0.2 makes labels probabilities (N, K), and objective 'mart' needs one class for \
each image; leave mixup out, or pass another objective, such as TRADES (an own one: with soft_labels = True)
    """
    for name in OF_LABELS:
        if getattr(config, name) and not getattr(objective, "soft_labels", False):
            raise UsageError(
                f"{name}={getattr(config, name)!r} makes labels probabilities (N, K), and objective "
                f"{objective.config()['name']!r} needs one class for each image; leave {name} out, or pass another "
                "objective, such as TRADES (an own one: with soft_labels = True)"
            )
