"""The page of a reproduction: verdicts on every claim with their evidence, figures and tables beside the published
ones, and what was not run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from waterbed.files import make_folder, to_json, write_atomic
from waterbed.reporting.page import Picture, Section, Table, write_page
from waterbed_paper.claims import Claim
from waterbed_paper.corrections import corrected_counts, corrected_verdicts
from waterbed_paper.page_claims import claims_section, in_short
from waterbed_paper.page_probe import probe_sections
from waterbed_paper.phrases import NOT_RUN, rerun_command, training_phrase
from waterbed_paper.published import slips
from waterbed_paper.register import FIGURES, TABLES
from waterbed_paper.results import Results
from waterbed_paper.verdicts import VERDICTS, Judged

TITLE = "Adversarial training reduces information and improves transferability: a reproduction"
PAPER = (
    "The paper says: a network trained on adversarial images keeps less information about its input and in its "
    "weights, its features can be inverted to images all the same, and they transfer better to tasks far from its own."
)
CITATION = (
    'The paper: Terzi, Achille, Maggipinto and Susto, "Adversarial Training Reduces Information and Improves '
    'Transferability", AAAI 2021.'
)
FIRST_PICTURE = ("fig-9", "fig-1")  # the first of these figures for which experiments drew images
WORDS = "DIR in the commands is a new folder, or that of this page for what was not run there"
DATA_NOTE = "data.txt"  # beside the page, if its data are not the official sets: what the page is to say of them


def write_paper_page(results: Results, judged: Sequence[Judged], out: str | Path) -> Path:
    """Write ``out``/index.html, its figures as ``out``/figures/NAME.png and the verdicts as ``out``/summary.json.

    Args:
        results: of the reproduction.
        judged: every claim with its evidence, of :func:`waterbed_paper.verdicts.judge_claims`.
        out: the folder.
    """
    out = make_folder(out)
    figures = _figures(results, make_folder(out / "figures"))
    tables = [_folded(table.section(results)) for table in TABLES]
    environment = _environment(results)
    sections = [
        in_short(judged, len(results.graph.missing()), _first_picture(results)),
        Section("Figures", [_words(results)], sections=figures, id="figures"),
        claims_section(judged, _where_to_look({s.id: s.title for s in (*figures, *tables)})),
        Section(
            "Tables",
            [
                "Published numbers are the printed ones, to two digits after the point. A dash: not in the paper. "
                f"{_words(results)}"
            ],
            sections=tables,
            id="tables",
        ),
        *probe_sections(results),
        _slips(),
        _scale(results, out / DATA_NOTE),
        _not_run(results),
    ]
    write_page(out / "index.html", TITLE, PAPER, sections, environment)
    write_atomic(out / "summary.json", to_json(_summary(results, judged, environment)).encode())
    return out / "index.html"


def _first_picture(results: Results) -> list[Picture]:
    """Images that experiments drew, for the top of the page."""
    figures = {figure.name: figure for figure in FIGURES}
    pictures = (picture for name in FIRST_PICTURE for picture in figures[name].files(results))
    return [replace(picture, wide=False) for picture in islice(pictures, 1)]


def _folded(section: Section) -> Section:
    """The section with its tables folded away."""
    parts = len(section.tables)
    tables = [
        replace(t, summary=t.summary or (f"The table, part {i} of {parts}" if parts > 1 else "The table"))
        for i, t in enumerate(section.tables, 1)
    ]
    return replace(section, tables=tables)


def _words(results: Results) -> str:
    place = results.graph.place
    data = "; DATA is the folder of the data sets" if place.root is not None else ""
    networks = "; NETWORKS is the folder of the networks that were trained for it" if place.networks is not None else ""
    return f"{WORDS}{data}{networks}."


def _where_to_look(titles: dict[str, str]) -> dict[str, dict[str, str]]:
    """Claim -> name -> anchor of the figures and tables that speak to it."""
    see: dict[str, dict[str, str]] = {}
    behind = {figure.name: figure.claims for figure in FIGURES}
    behind |= {f"table-{table.number}": table.claims for table in TABLES}
    for anchor, claims in behind.items():
        for claim in claims if anchor in titles else ():
            see.setdefault(claim, {})[titles[anchor].split(":")[0]] = anchor
    return see


def _figures(results: Results, folder: Path) -> list[Section]:
    sections = []
    for figure in FIGURES:
        pictures = figure.pictures(results, folder)
        if figure.extra and not pictures:
            continue
        there = any(id.startswith(figure.only) for id in results.graph.nodes)
        text = [figure.published]
        if not pictures:
            text.append("Ours: not run." if there else "Ours: not run; this scale has no experiment for it.")
        command = rerun_command(results, figure.only) if there else ""
        sections.append(Section(figure.title, text, pictures=pictures, id=figure.name, command=command))
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


def _scale(results: Results, note: Path) -> Section:
    scale = results.scale
    rows = []
    for s in scale.sources:
        kinds = {"adversarial (0: standard)": s.seeds, "TRADES": s.trades, "Gaussian noise": s.gaussian_noise}
        trained = "; ".join(f"{kind}: {_counts(seeds)}" for kind, seeds in kinds.items() if seeds)
        rows.append([s.name, training_phrase(s), trained, _counts(scale.modes_of(s)), f"{scale.measured_of(s)}"])
    columns = ["source", "how it is trained", "eps (number of seeds)", "modes (seeds)", "images measured"]
    t, i = scale.transfers, scale.inversions
    targets = ", ".join(t.targets) or "none"
    long = f", and on {i.long_images} images {i.long_steps:,} steps" if i.long_eps else ""
    text = [
        f"{CITATION} Scale {scale.name}: {scale.about}",
        f"Targets: {targets}. Inversions of {i.images} images, {i.steps} steps of {i.optimizer}; their convergence on "
        f"{i.convergence_images} images from {i.convergence_seeds} starts, {i.convergence_steps} steps of gradient "
        f"descent{long}.",
        *([note.read_text(encoding="utf-8").strip()] if note.is_file() else []),
    ]
    return Section("What this scale runs", text, [Table("Sources", columns, rows, wrap=True)], id="scale")


def _counts(seeds: dict[str, int]) -> str:
    return ", ".join(f"{key} ({n})" for key, n in seeds.items()) or "none"


def _not_run(results: Results) -> Section:
    missing = results.graph.missing()
    if not missing:
        text = ["Every experiment of this scale was run."]
    else:
        text = [f"{len(missing)} of {len(results.graph.nodes)} experiments of this scale were not run."]
    every, lacking = (Counter(id.split("/")[0] for id in ids) for ids in (results.graph.nodes, missing))
    rows = [[kind, n - lacking[kind], lacking[kind]] for kind, n in every.items()]
    table = Table("Experiments by kind", ["kind", "run", "not run"], rows)
    folded = {f"The {len(missing)} that were not run": missing} if missing else {}
    command = rerun_command(results, [*lacking]) if missing else ""
    return Section("What was not run", text, [table], id="not-run", command=command, folded=folded)


def _environment(results: Results) -> dict[str, Any]:
    """Of all experiments together, as each recorded it: every value that there was."""
    values: dict[str, dict[str, None]] = {}
    seconds = 0.0
    for id in results.graph.nodes:
        if results.graph.result(id) is not None:
            record = json.loads(results.graph.file(id).read_text())
            seconds += record.get("seconds") or 0.0  # unknown for results taken over
            for key, value in record.get("environment", {}).items():
                values.setdefault(key, {})[str(value)] = None
    joined: dict[str, Any] = {key: "; ".join(several) for key, several in values.items()}
    spent = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    spent += " in all, without what results taken over had cost"
    return joined | {"experiments": spent} if joined else {"experiments": NOT_RUN}


def _summary(results: Results, judged: Sequence[Judged], environment: dict[str, Any]) -> dict[str, Any]:
    counts, corrected = Counter(j.verdict for j in judged), corrected_verdicts(judged)
    return {
        "scale": results.scale.name,
        "about": results.scale.about,
        "counts": {v: counts[v] for v in VERDICTS},
        "corrected_counts": {m: {v: n[v] for v in VERDICTS} for m, n in corrected_counts(judged).items()},
        "claims": [_record(j.claim, j) | _corrected(corrected.get(j.claim.id, {})) for j in judged],
        "not_run": results.graph.missing(),
        "environment": environment,
    }


def _corrected(by_method: dict[str, tuple[float, str]]) -> dict[str, Any]:
    return {"corrected": {method: {"p": p, "verdict": verdict} for method, (p, verdict) in by_method.items()}}


def _record(claim: Claim, j: Judged) -> dict[str, Any]:
    evidence = [
        {key: getattr(e, key) for key in ("label", "note", "value", "low", "high", "n", "over", "beside")}
        | {"verdict": v, "counts": counts}
        for e, v, counts in zip(j.evidence, j.verdicts, j.counted, strict=True)
    ]
    return {
        "id": claim.id,
        "where": claim.where,
        "identity": claim.identity,
        "reading": claim.reading,
        "sentence": claim.sentence,
        "mark": claim.holds_above,
        "verdict": j.verdict,
        "evidence": evidence,
    }
