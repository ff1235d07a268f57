"""The claims on the page of a reproduction: in short, then each with its verdict and the evidence behind it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from waterbed.reporting.page import Card, Finding, Interval, Link, Picture, Section, Table
from waterbed_paper.corrections import METHODS, corrected_counts, corrected_verdicts
from waterbed_paper.evidence import Evidence
from waterbed_paper.phrases import NOT_RUN
from waterbed_paper.register import GROUPS
from waterbed_paper.verdicts import VERDICTS, Judged, count_phrase

SIGNS = {"holds": "✓", "does not hold": "✗", "undecided": "?", NOT_RUN: "–"}
COLOURS = {"holds": "good", "does not hold": "bad", "undecided": "open", NOT_RUN: "none"}
HEADLINES = ("input-fisher", "fig-4", "inversion", "far-tasks")  # what the title of the paper and its abstract say


def in_short(judged: Sequence[Judged], missing: int, pictures: Sequence[Picture] = ()) -> Section:
    """The verdicts on what the paper is about, a picture, then those behind the abstract and how many there are.

    Args:
        judged: every claim with its evidence, of :func:`waterbed_paper.verdicts.judge_claims`.
        missing: how many experiments of the scale were not run.
        pictures: shown below the first verdicts.
    """
    by_id = {j.claim.id: j for j in judged}
    cards = [
        Card(j.claim.sentence, _anchor(j), f"Evidence: {_tally(j)}.", j.verdict, SIGNS[j.verdict], COLOURS[j.verdict])
        for j in (by_id[id] for id in HEADLINES)
    ]
    groups = {name: Counter(j.verdict for j in members) for name, members in _grouped(judged).items()}
    total = sum(groups.values(), Counter())
    corrected = {f"all claims, after {METHODS[m]}": counts for m, counts in corrected_counts(judged).items()}
    every = {**groups, "all claims": total, **corrected}
    rows = [[name, *(counts[v] for v in VERDICTS)] for name, counts in every.items()]
    columns = ["claims about", *(f"{SIGNS[v]} {v}" for v in VERDICTS)]
    tally = ", ".join(count_phrase(total[v], v) for v in VERDICTS)
    short = [
        f"Such networks were trained again, small ones, and {total.total()} claims of the paper judged: {tally}. A "
        "verdict is of these networks alone."
    ]
    text = []
    if missing:
        text.append(f"Not run: {missing} of this scale's experiments. Verdicts are of what was, and may change.")
    identities = [j.claim.id for j in judged if j.claim.identity and j.verdict == "holds"]
    if identities:
        text.append(
            f"Of those that hold, {len(identities)} follow from the definitions, or nearly so, and test the code: "
            f"{', '.join(identities)}."
        )
    readings = Counter(j.verdict for j in judged if j.claim.reading)
    text.append(
        f"{readings.total()} are our own reading of what the paper does not claim so definitely "
        f"({', '.join(j.claim.id for j in judged if j.claim.reading)}): "
        f"{', '.join(count_phrase(readings[v], v) for v in VERDICTS if readings[v])}."
    )
    first = [
        [Link(j.claim.sentence, _anchor(j)), f"{SIGNS[j.verdict]} {j.verdict}", _tally(j)]
        for j in judged
        if "abstract" in j.claim.where
    ]
    abstract = Table("Each with what is behind its verdict", ["claim", "verdict", "evidence"], first, wrap=True)
    counts = Table("Number of claims with each verdict", columns, rows, summary="Verdicts by topic")
    parts = [
        Section("The claims behind the abstract", tables=[abstract], id="abstract"),
        Section("What is counted apart", text, [counts], id="counts"),
    ]
    return Section("What we found", short, pictures=pictures, id="in-short", sections=parts, cards=cards)


def _tally(j: Judged) -> str:
    """How many pieces of the evidence that counts say what."""
    deciding = Counter(v for v, counts in zip(j.verdicts, j.counted, strict=True) if counts)
    return (
        "; ".join(count_phrase(deciding[v], v, f" of {deciding.total()}") for v in VERDICTS if deciding[v])
        or "none that counts"
    )


def claims_section(judged: Sequence[Judged], see: Mapping[str, Mapping[str, str]]) -> Section:
    """Every claim with its verdict and the evidence, in groups.

    Args:
        judged: every claim with its evidence, of :func:`waterbed_paper.verdicts.judge_claims`.
        see: claim -> name -> anchor of the figures and tables that speak to it.
    """
    single = [j.claim.id for j in judged if j.verdict == "undecided" and j.one_seed]
    text = [
        "Every claim has a quantity that is above a mark (0 unless said otherwise) where the claim is true. Each line "
        "of evidence has its mean and 95 % interval; the drawing has the interval as a line, the mean as a bar and the "
        "mark dotted, to a scale of its own for each claim, that of the evidence that decides.",
        "A claim holds where every interval of its evidence lies above the mark, does not hold where any lies below, "
        "and is undecided otherwise. Intervals are at 95 %; one of m pieces of evidence counts against a claim only if "
        "its interval at 1 - 5 %/m still lies below. Evidence from one seed has no interval: it is shown, and leaves a "
        "claim undecided that has no other. Seeds of equal values (shares of few epochs) have none either, and are "
        "undecided. What stands beside is not judged. The column from says what an interval is over: seeds, which "
        "stand for training again, or targets; where it is over images or starts, the verdict is of these networks "
        "alone.",
    ]
    count = len(corrected_verdicts(judged))
    text.append(
        f"Among {count} claims chance alone makes some look decided. So each also has its p-value corrected over all "
        "of them: by Holm, at most one wrong verdict in twenty pages like this, and by Benjamini and Hochberg, at most "
        "5 % of the verdicts wrong. What is above 0.05 after that is undecided. The verdicts in the headings are "
        "before any correction; what follows from the definitions is left out of it."
    )
    folded = {"How a claim is judged": text}
    if single:
        text.append(f"Undecided because all evidence is of one seed: {', '.join(single)}.")
    corrected = corrected_verdicts(judged)
    parts = [
        Section(
            name,
            findings=[_finding(j, see.get(j.claim.id, {}), corrected.get(j.claim.id, {})) for j in members],
            id=f"claims-{i}",
        )
        for i, (name, members) in enumerate(_grouped(judged).items(), 1)
    ]
    return Section("Claims and verdicts", sections=parts, id="claims", folded=folded, prose=True)


def _finding(j: Judged, see: Mapping[str, str], corrected: Mapping[str, tuple[float, str]]) -> Finding:
    claim = j.claim
    mark = f"; above {claim.holds_above:g} where the claim is true" if claim.holds_above else ""
    details = {"Quantity": claim.quantity + mark, "Test": claim.test}
    if corrected:
        said = [f"{METHODS[method]} p = {_short(p)}, {verdict}" for method, (p, verdict) in corrected.items()]
        details["Corrected over all claims"] = "; ".join(said)
    details["Name"] = claim.id
    evidence = _evidence(j, "The value: " + details.pop("Quantity")) if j.evidence else None
    return Finding(
        _anchor(j), claim.sentence, j.verdict, SIGNS[j.verdict], COLOURS[j.verdict], claim.where, evidence,
        details, see,
    )  # fmt: skip


def _evidence(j: Judged, caption: str) -> Table:
    columns = ["evidence", "says", "value", "95 % interval", "to scale", "from"]
    rows = [
        [
            f"{e.label} ({e.note})" if e.note else e.label,
            _says(e, v, counts, j),
            _short(e.value),
            _ends(e),
            _drawn(e, j),
            _behind(e),
        ]
        for e, v, counts in zip(j.evidence, j.verdicts, j.counted, strict=True)
    ]
    return Table(f"{caption}.", columns, rows)


def _says(e: Evidence, verdict: str, counts: bool, j: Judged) -> str:
    if counts:
        if e.weak and e.high < j.claim.holds_above:
            return f"{SIGNS[verdict]} {verdict}: too small an example to contradict"
        among = j.verdict_on(e.low, e.high) != verdict
        return f"{SIGNS[verdict]} {verdict}" + f" as one of {sum(j.counted)}" * among
    return f"beside: {verdict}" if e.beside else "one seed: shown alone"


def _ends(e: Evidence) -> str:
    if math.isnan(e.low):
        return "none"
    return "exact" if e.low == e.high and e.n == 1 else f"{_short(e.low)} to {_short(e.high)}"


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "none"
    return f"{value:.3g}" if abs(value) > 1e-12 else "0"


def _behind(e: Evidence) -> str:
    if e.low == e.high and e.n == 1:
        return "one number"
    return f"{e.n} {e.over}{'' if e.n == 1 else 's'}"


def _drawn(e: Evidence, j: Judged) -> Interval | str:
    """The interval as shares of a width that holds the evidence that decides on the claim, and its mark; what stands
    beside may end at the edge."""
    if not math.isfinite(e.value):
        return ""
    deciding = [one for one, counts in zip(j.evidence, j.counted, strict=True) if counts] or j.evidence
    ends = [v for one in deciding for v in (one.low, one.value, one.high) if math.isfinite(v)]
    left, right = min([*ends, j.claim.holds_above]), max([*ends, j.claim.holds_above])
    width = (right - left) or 1.0

    def share(value: float) -> float:
        return round(min(max(0.03 + 0.94 * (value - left) / width, 0.0), 1.0), 4)

    low, high = (e.value if math.isnan(v) else v for v in (e.low, e.high))
    return Interval(share(low), share(e.value), share(high), share(j.claim.holds_above))


def _grouped(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    by_id = {j.claim.id: j for j in judged}
    return {name: [by_id[claim.id] for claim in claims] for name, claims in GROUPS.items()}


def _anchor(j: Judged) -> str:
    return f"claim-{j.claim.id}"
