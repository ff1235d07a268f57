"""choose: which of several backbones suits a task best, why, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from waterbed.errors import UsageError, UsageTypeError, check_count, check_number
from waterbed.evaluation.accuracy import Accuracy
from waterbed.models.features import extract_features, head_probabilities
from waterbed.models.heads import as_classifier
from waterbed.progress import Progress
from waterbed.transfer_learning.logistic import fit_logistic, held_out
from waterbed.transfer_learning.scores import h_score, leep, logme
from waterbed.transfer_learning.transfer import target_loader

RESAMPLES = 2000


@dataclass(frozen=True)
class Candidate:
    """One backbone's results on the target; higher is better throughout, but for ``behind``.

    Attributes:
        probe: accuracy of a logistic probe on held-out images of the target, with its Wilson interval: the prediction
            of how well the backbone transfers.
        behind: percentage points behind the leader on the same images, and the 95 % bootstrap interval (low, high).
        best: bootstrap probability that it leads.
        logme, h_score, leep: scores that need no training.
    """

    name: str
    probe: Accuracy
    behind: tuple[float, float, float]
    best: float
    logme: float
    h_score: float
    leep: float


@dataclass(frozen=True)
class Choice:
    """Backbones from the best to the worst.

    Attributes:
        target: name of the data set.
        candidates: by decreasing accuracy of their probes.
        num_samples: training images of the target that were used.
        held: how many of them were held out to evaluate the probes.
    """

    target: str
    candidates: list[Candidate]
    num_samples: int
    held: int

    @property
    def best(self) -> str:
        """The name of the leader."""
        return self.candidates[0].name

    def to_frame(self) -> pd.DataFrame:
        """One row per backbone."""
        return pd.DataFrame(
            [
                {
                    "backbone": c.name,
                    "probe": float(c.probe),
                    "low": c.probe.low,
                    "high": c.probe.high,
                    "behind": c.behind[0],
                    "behind_low": c.behind[1],
                    "behind_high": c.behind[2],
                    "best": c.best,
                    "logme": c.logme,
                    "h_score": c.h_score,
                    "leep": c.leep,
                }
                for c in self.candidates
            ]
        )

    @property
    def reason(self) -> str:
        """One sentence: which backbone leads, by how much, how surely, and what the other scores say."""
        first = self.candidates[0]
        if len(self.candidates) == 1:
            return f"{first.name} is the only backbone: a probe on its features reaches {first.probe}."
        second = self.candidates[1]
        gap, low, high = second.behind
        agree = [
            label
            for label, key in (("LogME", "logme"), ("the H-score", "h_score"), ("LEEP", "leep"))
            if max(self.candidates, key=lambda c, key=key: getattr(c, key)) is first
        ]
        others = [label for label in ("LogME", "the H-score", "LEEP") if label not in agree]
        views = ((agree, "agree"), (others, "disagree"))
        verdicts = [f"{_and(names)} {verb}{'s' * (len(names) == 1)}" for names, verb in views if names]
        rivals = [c.name for c in self.candidates[1:] if c.behind[1] <= 0]
        sure = "clearly" if not rivals else f"not clearly (as good may be: {', '.join(rivals)})"
        return (
            f"{first.name} leads {sure}: {gap:.1f} points [{low:.1f}, {high:.1f}] ahead of {second.name} on "
            f"{self.held} held-out images, first in {100 * first.best:.0f} % of resamples; {', '.join(verdicts)}."
        )


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def choose(
    backbones: Mapping[str, nn.Module],
    target: Any,
    num_samples: int = 2000,
    validation: float = 0.25,
    seed: int = 0,
    root: str | Path | None = None,
    progress: bool = False,
) -> Choice:
    """Rank backbones for a target task by a logistic probe on their features.

    Args:
        backbones: name -> network, any that :func:`waterbed.wrap` takes.
        target: a name or folder for ``load_dataset`` (brought to each network's image shape), or a data object. Only
            its training images are used.
        num_samples: how many of them, drawn with ``seed``; all if there are fewer.
        validation: the fraction held out to evaluate the probes.
        root: the folder of named data sets.

    Raises:
        UsageError: no backbones, a target that cannot be loaded or has too few images.

    >>> import waterbed as wb
    >>> model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    >>> choose({"small": model}, wb.load_dataset("digits"), num_samples=100).best
    'small'
    """
    if not isinstance(backbones, Mapping):
        raise UsageTypeError("backbones must be a dict of name -> model; write {'robust': model}")
    if not backbones:
        raise UsageError("backbones is empty; pass one or more")
    check_count("num_samples", num_samples, at_least=20)
    check_number("validation", validation, above=0)
    scores, hits = {}, {}
    name = str(target)
    load = target_loader(root)
    with Progress("choosing", len(backbones), progress) as progress_bar:
        for label, backbone in backbones.items():
            model = as_classifier(backbone, getattr(target, "shape", None))
            data = load(model, target) if isinstance(target, str | Path) else target
            name = data.name
            order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:num_samples]
            features, labels = extract_features(model, data, indices=order)
            train, held = held_out(len(labels), validation, seed)
            probe = fit_logistic(features[train], labels[train], data.num_classes, seed)
            hits[label] = (probe.predict(features[held]) == labels[held]).numpy()
            probabilities = head_probabilities(model, features)
            scores[label] = (logme(features, labels), h_score(features, labels), leep(probabilities, labels))
            progress_bar.advance(message=f"{label}: {Accuracy(int(hits[label].sum()), len(held))}")
    return Choice(name, _ranked(hits, scores, seed), len(labels), len(held))


def _ranked(hits: dict[str, np.ndarray], scores: dict[str, tuple[float, float, float]], seed: int) -> list[Candidate]:
    """Candidates by accuracy; the same held-out images are resampled for all of them."""
    names = sorted(hits, key=lambda n: -hits[n].mean())
    table = np.stack([hits[n] for n in names]).astype(float)
    draws = np.random.default_rng(seed).integers(0, table.shape[1], (RESAMPLES, table.shape[1]))
    means = table[:, draws].mean(2)  # (backbones, resamples)
    first = (means == means.max(0)) / (means == means.max(0)).sum(0)
    ranked = []
    for i, n in enumerate(names):
        gaps = 100 * (means[0] - means[i])
        behind = (100 * float(table[0].mean() - table[i].mean()), *map(float, np.quantile(gaps, [0.025, 0.975])))
        accuracy = Accuracy(int(hits[n].sum()), len(hits[n]))
        ranked.append(Candidate(n, accuracy, behind, float(first[i].mean()), *scores[n]))
    return ranked
