"""The settings of fine-tuning: its own defaults, and what a cached trunk or logistic regression cannot honour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from waterbed.errors import UsageError, check_number
from waterbed.training.config import TrainConfig

# The defaults of fine-tuning; those not named are the same as in training from scratch.
FINETUNING = TrainConfig(epochs=20, augment="none", watch=0, progress=False)
SOLVERS = ("sgd", "logistic")
OF_THE_WHOLE_NETWORK = ("validation", "ema", "precision", "workers", "checkpoint_minutes", "trackers", "measures")
OF_LOGISTIC_REGRESSION = ("augment", "watch", "seed", "resume", "progress", "precision")


def check_rates(lr: float | Sequence[float]) -> tuple[float, ...]:
    """The learning rates to choose from, one or more.

    >>> check_rates(0.1)
    (0.1,)
    """
    rates = (lr,) if isinstance(lr, int | float) else tuple(lr)
    if not rates:
        raise UsageError("lr is empty; pass one learning rate or more")
    for rate in rates:
        check_number("lr", rate, above=0)
    return rates


def check_cacheable(config: TrainConfig) -> None:
    """Raise :class:`UsageError` for a setting that training on a cached trunk cannot honour.

    Such a training runs in float32, writes its folder when it is done, and keeps the weights of the last epoch.

    >>> check_cacheable(TrainConfig(ema=0.9))
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: ema=0.9 cannot be honoured on a cached trunk; pass cache='never', or mode=1 or 2
    """
    for name in OF_THE_WHOLE_NETWORK:
        value = getattr(config, name)
        if value != getattr(TrainConfig(), name) and (name, value) != ("precision", "fp32"):
            raise UsageError(
                f"{name}={value!r} cannot be honoured on a cached trunk; pass cache='never', or mode=1 or 2"
            )


def check_logistic(
    mode: int | str, config: TrainConfig, lr: float | Sequence[float] | None, views: int, search_epochs: int | None
) -> None:
    """Raise :class:`UsageError` for arguments of :func:`finetune` that logistic regression has no use for."""
    if mode != "linear":
        raise UsageError(f"solver='logistic' fits the head alone; pass mode='linear', not {mode!r}")
    given = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name not in OF_LOGISTIC_REGRESSION
        and getattr(config, field.name) not in (getattr(FINETUNING, field.name), getattr(TrainConfig(), field.name))
    }
    options = {"lr": lr, "views": None if views == 1 else views, "search_epochs": search_epochs}
    given |= {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        raise UsageError(f"{name}={value!r} means nothing to solver='logistic'; leave it out, or pass solver='sgd'")
