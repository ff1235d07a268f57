"""choose: which of several backbones suits a task best, why, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from waterbed.data.task import as_task
from waterbed.devices import seeded_generator
from waterbed.errors import UsageError, UsageTypeError, check_count
from waterbed.models.features import extract_features, head_probabilities
from waterbed.models.heads import as_classifier
from waterbed.progress import Progress
from waterbed.transfer_learning.choice import Candidate, Choice
from waterbed.transfer_learning.cross_validation import CrossValidated, cross_validate
from waterbed.transfer_learning.ranking import RULE
from waterbed.transfer_learning.transfer import target_loader


def choose(
    backbones: Mapping[str, nn.Module],
    target: Any,
    num_samples: int = 2000,
    seed: int = 0,
    root: str | Path | None = None,
    progress: bool = False,
    *,
    workers: int = 0,
) -> Choice:
    """Rank backbones for a target task by scores of their features, and say how sure the order is.

    The accuracies of a logistic probe, in repeated stratified cross-validation, and of k-NN are combined, and
    differences turned into probabilities, by a rule that was fixed on fine-tunings of other backbones
    (:mod:`waterbed.transfer_learning.ranking`). LogME, the H-score and LEEP are shown beside them; nothing is
    fine-tuned.

    Args:
        backbones: name -> network, any that :func:`waterbed.wrap` takes.
        target: a name or folder for ``load_dataset`` (brought to each network's image shape), a data object, or a pair
            (train, test). Only its training images are used.
        num_samples: how many of them, drawn with ``seed``; all if there are fewer.
        seed: also of the splits. The same seed gives the same choice.
        root: the folder of named data sets.
        workers: processes that decode images, for data too large for memory.

    Raises:
        UsageError: no backbones, a target that cannot be loaded or has too few images.

    >>> import waterbed as wb
    >>> model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    >>> choice = choose({"small": model}, wb.load_dataset("digits"), num_samples=100)
    >>> choice.best, choice.verdict
    ('small', 'only')
    """
    if not isinstance(backbones, Mapping):
        raise UsageTypeError("backbones must be a dict of name -> model; write {'robust': model}")
    if not backbones:
        raise UsageError("backbones is empty; pass one or more")
    check_count("num_samples", num_samples, at_least=20)
    if not isinstance(target, str | Path):
        target = as_task(target)
    scores: dict[str, dict[str, CrossValidated]] = {}
    load = target_loader(root)
    with Progress("choosing", len(backbones), progress) as progress_bar:
        for label, backbone in backbones.items():
            model = as_classifier(backbone, getattr(target, "shape", None))
            data = load(model, target) if isinstance(target, str | Path) else target
            order = torch.randperm(len(data.train), generator=seeded_generator(seed))[:num_samples]
            features, labels = extract_features(model, data, indices=order, workers=workers)
            own = cross_validate(features, labels, head_probabilities(model, features), seed=seed)
            scores[label] = {"combined": RULE.combined(own, labels.bincount().numpy()), **own}
            progress_bar.advance(message=f"{label}: {own['probe'].value:.2f} %")
    return Choice(data.name, ranked(scores), len(labels))


def ranked(scores: Mapping[str, Mapping[str, CrossValidated]]) -> list[Candidate]:
    """Candidates by their combined scores, each compared with the leader."""
    names = sorted(scores, key=lambda name: -scores[name]["combined"].value)
    first = scores[names[0]]
    return [
        Candidate(
            name,
            scores[name],
            first["probe"] - scores[name]["probe"],
            RULE.probability_better(first["combined"], scores[name]["combined"]),
        )
        for name in names
    ]
