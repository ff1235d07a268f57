"""The verdict on every claim, from the evidence of a reproduction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from waterbed.errors import UsageError, check_number
from waterbed_paper.claims import Claim
from waterbed_paper.evidence import LEVEL, Evidence
from waterbed_paper.register import CLAIMS
from waterbed_paper.results import Results

VERDICTS = ("holds", "does not hold", "undecided", "not run")


def verdict(low: float | None, high: float | None, holds_above: float = 0.0) -> str:
    """What an interval over seeds says of a claim whose quantity should be above ``holds_above``.

    Args:
        low, high: ends of the interval; None for both: nothing was run. nan (one seed has no interval): undecided.
        holds_above: 0 for a difference, 1 for a ratio.

    Raises:
        UsageError: an interval of which one end is missing, or whose ends are exchanged.

    >>> verdict(0.4, 2.1), verdict(-2.1, -0.4), verdict(-0.4, 2.1), verdict(None, None)
    ('holds', 'does not hold', 'undecided', 'not run')
    """
    check_number("holds_above", holds_above)
    if low is None and high is None:
        return "not run"
    if low is None or high is None:
        raise UsageError(f"low={low!r} and high={high!r} must both be numbers, or both None; pass both ends")
    if math.isnan(low) or math.isnan(high):
        return "undecided"
    if low > high:
        raise UsageError(f"low={low!r} is above high={high!r}; exchange them")
    if low > holds_above:
        return "holds"
    if high < holds_above:
        return "does not hold"
    return "undecided"


def count_phrase(n: int, verdict: str, among: str = "") -> str:
    """How many claims, or pieces of evidence, have a verdict.

    >>> count_phrase(1, "holds"), count_phrase(2, "does not hold"), count_phrase(3, "holds", " of 4")
    ('1 holds', '2 do not hold', '3 of 4 hold')
    """
    several = {"holds": "hold", "does not hold": "do not hold"}
    return f"{n}{among} {verdict if n == 1 else several.get(verdict, verdict)}"


@dataclass(frozen=True)
class Judged:
    """A claim with its evidence and the verdict on all of it."""

    claim: Claim
    evidence: list[Evidence]

    @property
    def verdicts(self) -> list[str]:
        """Of every piece of evidence by its 95 % interval; but of m that decide, one that speaks against the claim must
        do so by its interval at 1 - 5 %/m (Bonferroni), as chance gives a true claim of many pieces one below the mark.
        A claim that holds needs no such care: every piece has to say so. A weak piece that speaks against it is
        undecided."""
        m = max(1, sum(self.counted))
        verdicts = []
        for e, counts in zip(self.evidence, self.counted, strict=True):
            alone = self.verdict_on(e.low, e.high)
            wide = e.ends(1 - (1 - LEVEL) / m) if counts and alone == "does not hold" else (e.low, e.high)
            of_wide = self.verdict_on(*wide)
            verdicts.append("undecided" if e.weak and of_wide == "does not hold" else of_wide)
        return verdicts

    def verdict_on(self, low: float, high: float) -> str:
        """What one interval of the quantity says of the claim."""
        return verdict(low, high, self.claim.holds_above)

    @property
    def counted(self) -> list[bool]:
        """Which pieces decide: not those beside, and those of one seed only where no other is of more."""
        several = any(not e.beside and not e.alone for e in self.evidence)
        return [not e.beside and not (several and e.alone) for e in self.evidence]

    @property
    def one_seed(self) -> bool:
        """Whether all evidence is of one seed."""
        return bool(self.evidence) and all(e.alone for e in self.evidence)

    @property
    def verdict(self) -> str:
        """Holds where all that decides says so; does not hold where any speaks against it; undecided with nothing that
        decides."""
        if not self.evidence:
            return "not run"
        deciding = {v for v, counts in zip(self.verdicts, self.counted, strict=True) if counts} or {"undecided"}
        return next((v for v in ("does not hold", "undecided") if v in deciding), "holds")


def judge_claims(results: Results) -> list[Judged]:
    """Every claim of the paper, in its order."""
    return [Judged(claim, list(claim.evidence(results))) for claim in CLAIMS.values()]
