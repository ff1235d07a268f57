"""The settings of fine-tuning: its own defaults, and what a cached trunk or logistic regression cannot honour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waterbed.errors import UsageError, check_choice, check_count
from waterbed.training.config import OF_IMAGES, TrainConfig

# The defaults of fine-tuning; those not named are the same as in training from scratch.
FINETUNING = TrainConfig(epochs=20, augment="none", watch=0, progress=False)
SOLVERS = ("sgd", "logistic")
OF_THE_WHOLE_NETWORK = (
    "validation",
    "ema",
    "precision",
    "threads",
    "sync_batchnorm",
    "compile",
    "checkpoint_minutes",
    "trackers",
    "measures",
    "mixup",
    "cutmix",
)
OF_LOGISTIC_REGRESSION = (*OF_IMAGES, "watch", "seed", "resume", "progress", "precision", "workers", "device")


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


def check_logistic(mode: int | str, given: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` for arguments of :func:`finetune` that logistic regression has no use for.

    Args:
        given: what the caller passed.
    """
    if mode != "linear":
        raise UsageError(f"solver='logistic' fits the head alone; pass mode='linear', not {mode!r}")
    for name, value in steps_of(given).items():
        raise UsageError(f"{name}={value!r} means nothing to solver='logistic'; leave it out, or pass solver='sgd'")


def steps_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of the arguments given, those that only make sense for a training by gradient steps.

    >>> steps_of({"epochs": 5, "seed": 1, "lr": None})
    {'epochs': 5}
    """
    return {name: value for name, value in given.items() if value is not None and name not in OF_LOGISTIC_REGRESSION}


def augmenting_recipe(views: int, augmenting: Mapping[str, Any]) -> TrainConfig:
    """The recipe of a cache with these changes of each image; raise unless its ``views`` differ from each other."""
    for name in augmenting:
        check_choice("the setting", name, OF_IMAGES)
    recipe = TrainConfig.of(None, augmenting, FINETUNING)
    check_count("views", views)
    if views > 1 and recipe.of_images() == FINETUNING.of_images():
        raise UsageError(f"views={views} of images that are not augmented are all the same; pass augment= or views=1")
    return recipe
