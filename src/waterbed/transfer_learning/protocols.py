"""How a fine-tuning is trained: by the paper's fixed settings, or by settings tuned for each backbone and task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from waterbed.errors import UsageError, check_choice
from waterbed.training.config import OF_IMAGES, UNRECORDED, TrainConfig
from waterbed.transfer_learning.settings import FINETUNING

# Appendix C, in its order: of backbones trained on CIFAR, then on ImageNet. It names no augmentation and not Nesterov's
# form of momentum; both are left out.
PAPER = replace(
    FINETUNING,
    epochs=120,
    batch_size=128,
    lr=1e-2,
    schedule="step",
    milestones=(50, 80),
    weight_decay=5e-4,
    momentum=0.9,
    nesterov=False,
)
PAPER_IMAGENET = replace(PAPER, epochs=300, batch_size=256, milestones=(150, 250), weight_decay=1e-4)

FIXED = {"paper": PAPER, "paper-imagenet": PAPER_IMAGENET}
PROTOCOLS = ("tuned", *FIXED)
# Settings that do not change what is trained, or that appendix C does not speak of; the others are fixed.
FREE = (*OF_IMAGES, *UNRECORDED, "watch", "seed", "compile")


def fixed_recipe(protocol: str, settings: Mapping[str, Any]) -> TrainConfig:
    """The recipe of a protocol of the paper, with settings that it leaves open.

    Args:
        protocol: one of :data:`FIXED`.
        settings: keywords of :func:`waterbed.finetune`; what is None is not given.

    Raises:
        UsageError: a setting that the protocol fixes.

    >>> fixed_recipe("paper", {"seed": 3}).milestones
    (50, 80)
    >>> fixed_recipe("paper", {"epochs": 5})
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: epochs=5 contradicts protocol='paper', which fixes epochs=120; leave it out, or pass \
protocol='tuned'
    """
    check_choice("protocol", protocol, PROTOCOLS)
    recipe = FIXED[protocol]
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if name not in FREE:
            fixes = f", which fixes {name}={getattr(recipe, name)!r}" if hasattr(recipe, name) else ""
            raise UsageError(
                f"{name}={value!r} contradicts protocol={protocol!r}{fixes}; leave it out, or pass protocol='tuned'"
            )
    return replace(recipe, **given)
