"""judge: the verdict on every claim from a reproduction's evidence."""

from __future__ import annotations

from dataclasses import dataclass

from waterbed_paper.claims import CLAIMS, Claim
from waterbed_paper.evidence import EVIDENCE
from waterbed_paper.found import LEVEL, Evidence, Found


@dataclass(frozen=True)
class Judged:
    """A claim with its evidence and the verdict on all of it."""

    claim: Claim
    evidence: list[Evidence]

    @property
    def verdicts(self) -> list[str]:
        """Of every piece of evidence by its 95 % interval; but of m that decide, one that speaks against the claim must
        do so by its interval at 1 - 5 %/m (Bonferroni), as chance gives a true claim of many pieces one below the mark.
        A claim that holds needs no such care: every piece has to say so."""
        m = max(1, sum(self.counted))
        found = []
        for e, counts in zip(self.evidence, self.counted, strict=True):
            said = self.claim.judge(e.low, e.high)
            wide = e.ends(1 - (1 - LEVEL) / m) if counts and said == "does not hold" else (e.low, e.high)
            found.append(self.claim.judge(*wide))
        return found

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
        said = {v for v, counts in zip(self.verdicts, self.counted, strict=True) if counts} or {"undecided"}
        return next((v for v in ("does not hold", "undecided") if v in said), "holds")


def judge(found: Found) -> list[Judged]:
    """Every claim of the paper, in its order."""
    return [Judged(claim, list(EVIDENCE[id](found)) if id in EVIDENCE else []) for id, claim in CLAIMS.items()]
