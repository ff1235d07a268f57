"""What a claim of the paper is: one sentence that an experiment can support or contradict, with its evidence.

Every claim names a quantity that is positive (above ``holds_above``) where the claim is true, so that one rule judges
them all: :func:`waterbed_paper.verdicts.verdict`, on an interval of that quantity over seeds. The claims themselves
are in :mod:`waterbed_paper.topics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from waterbed_paper.evidence import Evidence
from waterbed_paper.results import Results

# Tests that several claims share.
OVER_SEEDS = (
    "95 % t interval over seeds, paired where both networks share a seed: above 0 supports, below 0 contradicts."
)
OVER_IMAGES = "95 % interval over images, networks of the first seed: above 0 supports, below 0 contradicts."
BEST_OF_SEVERAL = (
    "The best of those tried decides, chosen afterwards: with k tried, the lower end of its interval is that at 1 - "
    "5 %/k."
)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        id: short name.
        where: figure, table, proposition or section.
        sentence: the claim, in one sentence.
        quantity: what is measured; it is above ``holds_above`` where the claim is true.
        test: the statistic, and which sign or interval of it supports or contradicts the claim.
        evidence: takes the results and yields intervals of the quantity; nothing where nothing was run.
        holds_above: 0 for a difference; the ratio that counts as much for a ratio.
        identity: it follows from the definitions, or so nearly that no training could contradict it: only an error of
            the code or of the estimate can.
        reading: ours, of a figure or sentence that claims nothing so definite.
    """

    id: str
    where: str
    sentence: str
    quantity: str
    test: str
    evidence: Callable[[Results], Iterator[Evidence]]
    holds_above: float = 0.0
    identity: bool = False
    reading: bool = False
