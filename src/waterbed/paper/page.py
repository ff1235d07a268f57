"""The page of a reproduction: verdicts on every claim with their evidence, figures and tables beside the published
ones, and what was not run."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waterbed.models import write_atomic
from waterbed.paper.claims import VERDICTS, Claim
from waterbed.paper.figures import FIGURES
from waterbed.paper.found import Evidence, Found
from waterbed.paper.judge import Judged
from waterbed.paper.published import slips
from waterbed.paper.tables import CLAIMS_OF, NOT_RUN, rerun, setting, tables
from waterbed.reporting.page import Finding, Interval, Section, Table, write_page
from waterbed.runs import make_folder, to_json

TITLE = "Adversarial training reduces information and improves transferability: a reproduction"
PAPER = (
    'The paper: Terzi, Achille, Maggipinto and Susto, "Adversarial Training Reduces Information and Improves '
    'Transferability", AAAI 2021.'
)
WORDS = (
    "DIR in the commands is a new folder, or that of this page for what was not run there; DATA is the folder of the "
    "data sets (none are needed that come with the package)"
)
SIGNS = {"holds": "✓", "does not hold": "✗", "undecided": "?", NOT_RUN: "–"}
COLOURS = {"holds": "good", "does not hold": "bad", "undecided": "open", NOT_RUN: "none"}
DATA_NOTE = "data.txt"  # beside the page, if its data are not the official sets: what the page is to say of them
# The claim that each group starts with.
GROUPS = {
    "prop-3.2": "Information about the input",
    "fig-4": "Information in the weights",
    "inversion": "Inversion",
    "fig-6": "Representations and transfer",
    "fig-14": "Fine-tuning more than the head",
    "lemma-5.1": "Robustness of what is built on a robust backbone",
}


def write_paper_page(found: Found, judged: Sequence[Judged], out: str | Path) -> Path:
    """Write ``out``/index.html, its figures as ``out``/figures/NAME.png and the verdicts as ``out``/summary.json.

    Args:
        found: the results.
        judged: every claim with its evidence, of :func:`waterbed.paper.judge.judge`.
        out: the folder.
    """
    out = make_folder(out)
    figures = _figures(found, make_folder(out / "figures"))
    shown = tables(found)
    environment = _environment(found)
    sections = [
        _in_short(judged),
        _claims(judged, _where_to_look({s.id: s.title for s in (*figures, *shown)})),
        Section("Figures", [_words(found)], sections=figures, id="figures"),
        Section(
            "Tables",
            [f"Published numbers stand as they were printed. A dash: not in the paper. {_words(found)}"],
            sections=shown,
            id="tables",
        ),
        _slips(),
        _scale(found, out / DATA_NOTE),
        _not_run(found),
    ]
    write_page(
        out / "index.html", TITLE, f"Scale {found.scale.name}: {found.scale.about} {PAPER}", sections, environment
    )
    write_atomic(out / "summary.json", to_json(_summary(found, judged, environment)).encode())
    return out / "index.html"


def _words(found: Found) -> str:
    kept = "; NETWORKS is the folder of the networks that were trained for it" if found.graph.place.networks else ""
    return f"{WORDS}{kept}."


def _in_short(judged: Sequence[Judged]) -> Section:
    groups: dict[str, Counter[str]] = {}
    for name, members in _grouped(judged).items():
        groups[name] = Counter(j.verdict for j in members)
    total = sum(groups.values(), Counter())
    rows = [[name, *(counts[v] for v in VERDICTS)] for name, counts in (*groups.items(), ("all claims", total))]
    columns = ["claims about", *(f"{SIGNS[v]} {v}" for v in VERDICTS)]
    sure = [j.claim.where.split(";")[0] for j in judged if j.claim.identity and j.verdict == "holds"]
    several = {"holds": "hold", "does not hold": "do not hold"}
    said = ", ".join(f"{total[v]} {v if total[v] == 1 else several.get(v, v)}" for v in VERDICTS)
    text = (
        f"Of {total.total()} claims: {said}.",
        "A verdict is of this scale alone. A claim holds where every interval of its evidence lies above the mark, "
        "does not hold where any lies below, and is undecided otherwise. Intervals are at 95 %; one of m pieces of "
        "evidence counts against a claim only if its interval at 1 - 5 %/m still lies below. Evidence from one seed "
        "has no interval: it is shown, and leaves a claim undecided that has no other. Seeds of equal values (shares "
        "of few epochs) have none either, and are undecided. What stands beside is not judged. The column from says "
        "what an interval is over: seeds, which stand for training again; targets; or images or starts of networks of "
        "which alone the verdict then is.",
        *_of_one_seed(judged),
        *([f"Of those that hold, these follow from the definitions and test the code: {'; '.join(sure)}."] * any(sure)),
    )
    return Section("In short", text, [Table("Number of claims with each verdict", columns, rows)], id="in-short")


def _of_one_seed(judged: Sequence[Judged]) -> list[str]:
    """Which claims are undecided because all evidence on them is of one seed."""
    single = [j.claim.where.split(";")[0] for j in judged if j.verdict == "undecided" and j.one_seed]
    return [f"Undecided because all evidence is of one seed: {'; '.join(dict.fromkeys(single))}."] if single else []


def _grouped(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    groups: dict[str, list[Judged]] = {}
    for j in judged:
        name = GROUPS.get(j.claim.id) or (list(groups)[-1] if groups else "Claims")
        groups.setdefault(name, []).append(j)
    return groups


def _where_to_look(titles: dict[str, str]) -> dict[str, dict[str, str]]:
    """Claim -> name -> anchor of the figures and tables that speak to it."""
    see: dict[str, dict[str, str]] = {}
    behind = {drawing.name: drawing.claims for drawing in FIGURES}
    behind |= {f"table-{number}": claims for number, claims in CLAIMS_OF.items()}
    for anchor, claims in behind.items():
        for claim in claims if anchor in titles else ():
            see.setdefault(claim, {})[titles[anchor].split(":")[0]] = anchor
    return see


def _claims(judged: Sequence[Judged], see: dict[str, dict[str, str]]) -> Section:
    text = (
        "Every claim has a quantity that is above a mark (0 unless said otherwise) where the claim is true. Each line "
        "of evidence has its mean and 95 % interval; the drawing has the interval as a line, the mean as a bar and the "
        "mark dotted, to a scale of its own for each claim, that of the evidence that decides.",
    )
    parts = [
        Section(name, findings=[_finding(j, see.get(j.claim.id, {})) for j in members], id=f"claims-{i}")
        for i, (name, members) in enumerate(_grouped(judged).items(), 1)
    ]
    return Section("Claims and verdicts", text, sections=parts, id="claims")


def _finding(j: Judged, see: dict[str, str]) -> Finding:
    claim = j.claim
    mark = f"; above {claim.holds_above:g} where the claim is true" if claim.holds_above else ""
    details = {"Quantity": claim.quantity + mark, "Test": claim.test, "Name": claim.id}
    evidence = _evidence(j, "The value: " + details.pop("Quantity")) if j.evidence else None
    return Finding(
        f"claim-{claim.id}", claim.sentence, j.verdict, SIGNS[j.verdict], COLOURS[j.verdict], claim.where, evidence,
        details, see,
    )  # fmt: skip


def _evidence(j: Judged, caption: str) -> Table:
    columns = ["evidence", "says", "value", "95 % interval", "to scale", "from"]
    rows = [
        [e.label, _says(e, v, counts, j), _short(e.value), _ends(e), _drawn(e, j), _behind(e)]
        for e, v, counts in zip(j.evidence, j.verdicts, j.counted, strict=True)
    ]
    return Table(f"{caption}.", columns, rows)


def _says(e: Evidence, verdict: str, counts: bool, j: Judged) -> str:
    if counts:
        among = j.claim.judge(e.low, e.high) != verdict
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


def _figures(found: Found, folder: Path) -> list[Section]:
    sections = []
    for drawing in FIGURES:
        pictures = drawing.pictures(found, folder)
        if drawing.extra and not pictures:
            continue
        there = any(id.startswith(drawing.only) for id in found.graph.nodes)
        text = [drawing.published]
        if not pictures:
            text.append("Ours: not run." if there else "Ours: not run; this scale has no experiment for it.")
        command = rerun(found, drawing.only) if there else ""
        sections.append(Section(drawing.title, text, pictures=pictures, id=drawing.name, command=command))
    return sections


def _slips() -> Section:
    rows = [[slip.where, slip.says, slip.evidence] for slip in slips()]
    table = Table(
        "Where the paper contradicts itself, or a formula is not what it stands for",
        ["where", "what it says", "what speaks against it"],
        rows,
        True,
    )
    return Section("The paper's own slips", tables=[table], id="slips")


def _scale(found: Found, note: Path) -> Section:
    scale = found.scale
    rows = []
    for s in scale.sources:
        kinds = {"adversarial (0: standard)": s.seeds, "TRADES": s.trades, "Gaussian noise": s.gaussian_noise}
        trained = "; ".join(f"{kind}: {_counts(seeds)}" for kind, seeds in kinds.items() if seeds)
        rows.append([s.name, setting(s), trained, _counts(scale.modes_of(s)), f"{scale.measured_of(s)}"])
    columns = ["source", "how it is trained", "eps (number of seeds)", "modes (seeds)", "images measured"]
    t, i = scale.transfers, scale.inversions
    targets = ", ".join(t.targets) or "none"
    text = [
        f"Targets: {targets}. Inversions of {i.images} images, {i.steps} steps of {i.optimizer}; their convergence on "
        f"{i.convergence_images} images from {i.convergence_seeds} starts, {i.convergence_steps} steps of gradient "
        "descent.",
        *([note.read_text(encoding="utf-8").strip()] if note.is_file() else []),
    ]
    return Section("What this scale runs", text, [Table("Sources", columns, rows, wrap=True)], id="scale")


def _counts(seeds: dict[str, int]) -> str:
    return ", ".join(f"{key} ({n})" for key, n in seeds.items()) or "none"


def _not_run(found: Found) -> Section:
    missing = found.graph.missing()
    if not missing:
        text = ["Every experiment of this scale was run."]
    else:
        text = [f"{len(missing)} of {len(found.graph.nodes)} experiments of this scale were not run."]
    every, lacking = (Counter(id.split("/")[0] for id in ids) for ids in (found.graph.nodes, missing))
    rows = [[kind, n - lacking[kind], lacking[kind]] for kind, n in every.items()]
    table = Table("Experiments by kind", ["kind", "run", "not run"], rows)
    folded = {f"The {len(missing)} that were not run": missing} if missing else {}
    command = rerun(found, [*lacking]) if missing else ""
    return Section("What was not run", text, [table], id="not-run", command=command, folded=folded)


def _environment(found: Found) -> dict[str, Any]:
    """Of all experiments together, as each recorded it: every value that there was."""
    values: dict[str, dict[str, None]] = {}
    seconds = 0.0
    for id in found.graph.nodes:
        if found.graph.result(id) is not None:
            record = json.loads(found.graph.file(id).read_text())
            seconds += record.get("seconds") or 0.0  # unknown for results taken over
            for key, value in record.get("environment", {}).items():
                values.setdefault(key, {})[str(value)] = None
    joined: dict[str, Any] = {key: "; ".join(several) for key, several in values.items()}
    hours = f"{seconds / 3600:.1f} hours in all, without what results taken over had cost"
    return joined | {"experiments": hours} if joined else {"experiments": NOT_RUN}


def _summary(found: Found, judged: Sequence[Judged], environment: dict[str, Any]) -> dict[str, Any]:
    counts = Counter(j.verdict for j in judged)
    return {
        "scale": found.scale.name,
        "about": found.scale.about,
        "counts": {v: counts[v] for v in VERDICTS},
        "claims": [_record(j.claim, j) for j in judged],
        "not_run": found.graph.missing(),
        "environment": environment,
    }


def _record(claim: Claim, j: Judged) -> dict[str, Any]:
    evidence = [
        {key: getattr(e, key) for key in ("label", "value", "low", "high", "n", "over", "beside")}
        | {"verdict": v, "counts": counts}
        for e, v, counts in zip(j.evidence, j.verdicts, j.counted, strict=True)
    ]
    return {
        "id": claim.id,
        "where": claim.where,
        "sentence": claim.sentence,
        "mark": claim.holds_above,
        "verdict": j.verdict,
        "evidence": evidence,
    }
