"""Choice: backbones in order, how sure the order is, in words, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from waterbed.plots import intervals
from waterbed.tables import html_table
from waterbed.transfer_learning.cross_validation import CrossValidated
from waterbed.transfer_learning.ranking import CLEAR, PROBABLE

SCORES = {  # label and digits, in the order of table and picture
    "combined": ("combined", 2),
    "probe": ("probe [%]", 1),
    "knn": ("k-NN [%]", 1),
    "logme": ("LogME [nats]", 3),
    "h_score": ("H-score", 2),
    "leep": ("LEEP [nats]", 2),
}
OPINIONS = {"probe": "the probe", "knn": "k-NN", "logme": "LogME", "h_score": "the H-score", "leep": "LEEP"}


@dataclass(frozen=True)
class Candidate:
    """One backbone's results on the target.

    Attributes:
        scores: "combined", "probe", "knn", "logme", "h_score" and "leep"; higher is better.
        behind: percentage points by which its probe is behind the leader's, on the same folds.
        leader_better: calibrated probability that the leader is better than it in a full mode-0 fine-tuning; 0.5 for
            the leader itself.
    """

    name: str
    scores: Mapping[str, CrossValidated]
    behind: CrossValidated
    leader_better: float

    @property
    def chance(self) -> str:
        """``leader_better`` in percent, never rounded up."""
        return "over 99 %" if self.leader_better > 0.99 else f"{int(100 * self.leader_better)} %"


@dataclass(frozen=True)
class Choice:
    """Backbones from the best to the worst.

    Attributes:
        target: name of the data set.
        candidates: by decreasing combined score.
        num_samples: training images of the target that were used, all of them for training and for evaluation in turn.
    """

    target: str
    candidates: Sequence[Candidate]
    num_samples: int

    @property
    def best(self) -> str:
        """The name of the leader."""
        return self.candidates[0].name

    @property
    def verdict(self) -> str:
        """How sure it is that the leader is better than every other backbone in a full mode-0 fine-tuning.

        "clearly" from a probability of 0.95, "probably" from 0.8, "tie" below; "only" where there is one backbone.
        """
        if len(self.candidates) == 1:
            return "only"
        least = min(c.leader_better for c in self.candidates[1:])
        return "clearly" if least >= CLEAR else "probably" if least >= PROBABLE else "tie"

    @property
    def reason(self) -> str:
        """A sentence or two: which backbone leads, how surely, by how much, and what the single scores say."""
        first, *others = self.candidates
        if not others:
            return (
                f"{first.name} is the only backbone: a probe on its features reaches {first.scores['probe'].text()} %."
            )
        rival = min(others, key=lambda c: c.leader_better)
        lead = f"{self._lead(rival)} when the head and the last norm are fine-tuned (mode 0) is "
        lead += rival.chance
        if self.verdict == "tie":
            lead += ", so fine-tune them all" if len(self._tied) > 2 else ", so fine-tune both"
        where = "ahead of" if rival.behind.value >= 0 else "behind"
        gap = rival.behind.scaled(1 if where == "ahead of" else -1)
        return f"{lead}. Its probe is {gap.text()} points {where} that of {rival.name}; {self._opinions}."

    def _lead(self, rival: Candidate) -> str:
        first = self.best
        if self.verdict == "tie":
            return f"It is a tie between {_and(self._tied)}: the chance that {first} beats {rival.name}"
        return f"{first} {self.verdict} leads: the chance that it also beats {rival.name}"

    @property
    def _tied(self) -> list[str]:
        """The leader and those that may well be as good."""
        return [self.best, *(c.name for c in self.candidates[1:] if c.leader_better < PROBABLE)]

    @property
    def _opinions(self) -> str:
        """Which of the other scores have the same leader."""
        firsts = {score: max(self.candidates, key=lambda c, s=score: c.scores[s].value).name for score in OPINIONS}
        agree = [label for score, label in OPINIONS.items() if firsts[score] == self.best]
        differ = [label for score, label in OPINIONS.items() if firsts[score] != self.best]
        parts = [f"{_and(agree)} put{'s' * (len(agree) == 1)} {self.best} first"] if agree else []
        parts += [f"{_and(differ)} {'do' if len(differ) > 1 else 'does'} not"] if differ and agree else []
        return ", ".join(parts) or f"no single score puts {self.best} first"

    def to_frame(self) -> pd.DataFrame:
        """One row per backbone: every score with its 95 % interval (``probe``, ``probe_low``, ``probe_high``, ...),
        ``behind`` [points] with its own, and ``leader_better``."""
        rows = []
        for c in self.candidates:
            values = {**c.scores, "behind": c.behind}
            columns = {"backbone": c.name, "leader_better": c.leader_better}
            for name, score in values.items():
                low, high = score.interval()
                columns |= {name: score.value, f"{name}_low": low, f"{name}_high": high}
            rows.append(columns)
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        columns = ["backbone", *(label for label, _ in SCORES.values()), "chance that the leader is better"]
        rows = [
            [c.name, *(c.scores[s].text(digits) for s, (_, digits) in SCORES.items()), "" if i == 0 else c.chance]
            for i, c in enumerate(self.candidates)
        ]
        return html_table(columns, rows, f"{self.target}, {self.num_samples:,} training images. {self.reason}")

    def plot(self) -> Figure:
        """One panel per score, one line per backbone in order, with 95 % intervals; the leader in colour.

        Differences between backbones are surer than the intervals suggest: the same images and folds serve all.
        """
        return intervals(
            [c.name for c in self.candidates],
            {
                label: [(c.scores[s].value, *c.scores[s].interval()) for c in self.candidates]
                for s, (label, _) in SCORES.items()
            },
            title=f"{self.target}, {self.num_samples:,} training images: " + HEADINGS[self.verdict].format(self.best),
            leader=True,
        )


HEADINGS = {
    "only": "{} alone",
    "clearly": "{} clearly leads",
    "probably": "{} probably leads",
    "tie": "no clear leader",
}


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
