"""How the scores of a backbone are combined into one, and how sure the order of two backbones is.

The rule was fixed by ``python benchmarks/choose.py fit`` on the scores in results/benchmarks/choose-scores.json and
the accuracies of mode-0 fine-tunings in results/transfer and results/cpu, and validated on targets left out one at a
time (docs/transfer.md has the tables).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from waterbed.transfer_learning.cross_validation import CrossValidated

CLEAR, PROBABLE = 0.95, 0.8


@dataclass(frozen=True)
class Rule:
    """The mean of the scores' log-odds, all with the same weight.

    Weights of their own would be fitted to a handful of targets; equal ones lose little (Dawes 1979, "The robust beauty
    of improper linear models in decision making").

    Attributes:
        scores: their names.
        noise: standard deviation of what the scores, known without error, would leave open of the difference between
            two backbones, in the log-odds of the combined score.
    """

    scores: tuple[str, ...]
    noise: float

    def combined(self, scores: Mapping[str, CrossValidated], counts: np.ndarray) -> CrossValidated:
        """One backbone's combined score on a target; higher is better, and only differences on one target count.

        Args:
            scores: of :func:`~waterbed.transfer_learning.cross_validation.cross_validate`.
            counts: (K,), how many images each class has.
        """
        odds = [log_odds(name, scores[name], counts) for name in self.scores]
        value, parts = np.mean([o.value for o in odds]), np.mean([o.parts for o in odds], axis=0)
        return CrossValidated(float(value), parts, odds[0].folds)

    def probability_better(self, first: CrossValidated, second: CrossValidated) -> float:
        """Probability that ``first`` is the better backbone in a full mode-0 fine-tuning, from two combined scores.

        Phi(D / sqrt(noise^2 + stderr(D)^2)), D the difference of the combined scores; its standard error is what these
        images and their split add to the noise.
        """
        gap = first - second
        return float(norm.cdf(gap.value / np.hypot(self.noise, gap.stderr())))


def log_odds(name: str, score: CrossValidated, counts: np.ndarray) -> CrossValidated:
    """The log-odds of a score as a share in (0, 1), so that a difference means the same on easy and on hard targets.

    The share is an accuracy, or the part of the labels' variance that the features explain: of the H-score, its value
    divided by its largest possible one, K - 1; of LogME, 1 - exp(-2 (LogME - LogME_0)), LogME_0 being the evidence of
    noise with the labels' variance. A share is at least half an image from 0 and from 1. The parts follow to first
    order.
    """
    n, p = counts.sum(), counts[counts > 0] / counts.sum()
    if name == "logme":
        chance = float(np.mean(-np.log(2 * np.pi * np.e * p * (1 - p)) / 2))
        share = 1 - np.exp(-2 * (score.value - chance))
        slope = 2 * (1 - share)
    else:
        slope = 1 / (len(p) - 1) if name == "h_score" else 0.01
        share = slope * score.value
    inside = float(np.clip(share, 0.5 / n, 1 - 0.5 / n))
    slope /= inside * (1 - inside)
    value = float(np.log(inside / (1 - inside)))
    return CrossValidated(value, value + slope * (score.parts - score.value), score.folds)


RULE = Rule(("probe", "knn"), noise=0.19)
