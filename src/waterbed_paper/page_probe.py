"""The page of the probe study: its hypotheses with their tests, figures, and the gap of every source and target."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from waterbed.files import make_folder, to_json, write_atomic
from waterbed.plots import save_figure
from waterbed.reporting.page import Picture, Section, Table, write_page
from waterbed_paper.drawing import described
from waterbed_paper.effects import Effect
from waterbed_paper.evidence import over_seeds
from waterbed_paper.phrases import NOT_RUN, rerun_command
from waterbed_paper.probe_figures import BARS, by_eps, by_size, by_source_accuracy, by_weight_decay
from waterbed_paper.probe_results import LONGER, NO_DECAY, PAPERS, PRINTED, STANDARDISED, TUNED, Probe, ProbeResults
from waterbed_paper.results import Results
from waterbed_paper.scale import Source
from waterbed_paper.topics.probe_study import HYPOTHESES, Outcome, judge_hypotheses

PAGE = "probe-study.html"
TITLE = 'The probe study: how much of "robust backbones transfer better" is the probe?'
SHOWN = (PAPERS, PRINTED, LONGER, NO_DECAY, STANDARDISED, TUNED)
FIGURES = (
    (
        "probe-by-weight-decay",
        by_weight_decay,
        "Gap (robust less standard) against the weight decay of SGD; ringed: the paper's setting; left: its protocol "
        "as printed on these fewer images; right: a logistic probe whose weight decay is chosen on held-out images. ",
    ),
    (
        "probe-by-size",
        by_size,
        "Gap against the number of training images of the target, by the paper's probe (at its length) and the tuned "
        "one. ",
    ),
    ("probe-by-eps", by_eps, "Gap to the standard backbone against the eps of training; some eps have one seed. "),
    (
        "probe-by-source-accuracy",
        by_source_accuracy,
        "Every network's mean accuracy on its targets against its accuracy on the source: no robust network is as "
        "accurate as a standard one, so that equal accuracy is by regression. ",
    ),
)


def write_probe_page(results: Results, out: str | Path) -> Path | None:
    """Write ``out``/probe-study.html and .json, and the figures to ``out``/figures; nothing if no probe was run.

    Returns:
        The path of the page.
    """
    r = ProbeResults(results)
    own = [id for id in results.graph.nodes if id.startswith("probe/")]
    ids = [id for id in own if id.rpartition("/")[2] not in results.scale.probes.further]  # those are of other figures
    ran = [id for id in ids if results.graph.result(id) is not None]
    if not ran:
        return None
    out = make_folder(out)
    tested = judge_hypotheses(r)
    how = f"{len(ran)} of {len(ids)} experiments were run."
    sections = [
        Section(
            "In short",
            [verdict_sentence(tested), moves_sentence(r), how, _how(r), _edges(r)],
            [hypotheses_table(tested)],
            id="in-short",
        ),
        Section("Figures", sections=_figures(r, make_folder(out / "figures")), id="figures"),
        Section("Gaps", [], [_gaps_table(r, source) for source in r.sources], id="gaps"),
        Section("Accuracies", [], [_accuracies_table(r, source) for source in r.sources], id="accuracies"),
        Section("To run it again", command=rerun_command(results, ["probe/"]), id="again"),
    ]
    lead = f"Scale {results.scale.name}: linear probes of the frozen features of every network, in many settings."
    write_page(out / PAGE, TITLE, lead, sections, {"experiments": how})
    content: dict[str, Any] = {
        "verdict": verdict_sentence(tested),
        "moves": moves_sentence(r),
        "edges": _edges(r),
        "ran": len(ran),
        "of": len(ids),
    }
    content["gaps"] = [row for source in r.sources for row in _gaps(r, source)]
    write_atomic(out / "probe-study.json", to_json({**content, "hypotheses": [_record(t) for t in tested]}).encode())
    return out / PAGE


def probe_sections(results: Results) -> list[Section]:
    """The part of the reproduction's page that tells of the study; none if it was not run."""
    r = ProbeResults(results)
    tested = judge_hypotheses(r)
    if all(t.effect is None for t in tested):
        return []
    text = [
        verdict_sentence(tested),
        moves_sentence(r),
        f"Figures, gaps and accuracies are on a page of their own, {PAGE}, beside this.",
    ]
    return [Section("How much of it is the probe", text, [hypotheses_table(tested)], id="probe-study")]


def verdict_sentence(tested: list[Outcome]) -> str:
    """The study's verdict, from the tests of the two mean gaps and of their difference."""
    by_id = {t.hypothesis.id: t for t in tested}
    papers, tuned, probe = (by_id[id] for id in ("generic-papers", "generic", "probe"))
    if papers.effect is None or tuned.effect is None or probe.effect is None:
        return "The study was not run."
    ends = {
        "holds": "part of what looks like a better robust backbone is the probe",
        "does not hold": "the paper's probe does not favour the robust backbone but the standard one",
        "undecided": "whether the probe favours one of the backbones is undecided",
    }
    return (
        "The gap (accuracy of the robust backbone less that of the standard one, mean over targets) is "
        f"{with_ends(papers.effect)} points by the paper's probe and {with_ends(tuned.effect)} by a tuned one, a "
        f"difference of {with_ends(probe.effect)}: {ends[probe.verdict]}."
    )


def moves_sentence(r: ProbeResults) -> str:
    """On which source and target the gap falls and rises most between the paper's probe and the tuned one."""
    moves = {}
    for source in r.sources:
        for target in r.targets(source):
            papers, tuned = r.gaps(source, target, PAPERS), r.gaps(source, target, TUNED)
            if papers and papers.keys() == tuned.keys():
                both = [sum(gaps.values()) / len(gaps) for gaps in (papers, tuned)]
                moves[f"from {source.name} to {target} from {both[0]:+.1f} to {both[1]:+.1f}"] = both[1] - both[0]
    if not moves:
        return ""
    down, up = min(moves, key=moves.__getitem__), max(moves, key=moves.__getitem__)
    return f"Target by target (means, not tested), a tuned probe moves the gap {down} at one end and {up} at the other."


def with_ends(effect: Effect | None) -> str:
    """Such as "1.25 [0.31, 2.19]".

    >>> with_ends(Effect(1.0, 0.0, 0.0)), with_ends(None)
    ('+1.00', 'not run')
    """
    if effect is None:
        return NOT_RUN
    low, high = effect.interval()
    return f"{effect.value:+.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def hypotheses_table(tested: list[Outcome]) -> Table:
    """Every hypothesis with its effect, p and verdict."""
    rows = [
        [
            t.hypothesis.sentence,
            t.verdict,
            with_ends(t.effect),
            f"{t.hypothesis.threshold:g}",
            "" if t.effect is None else f"{t.p:.2g}",
            "" if t.effect is None else f"{t.adjusted:.2g}",
            t.hypothesis.statistic,
        ]
        for t in tested
    ]
    return Table(
        f"The {len(HYPOTHESES)} hypotheses, written down before the runs: 95 % t interval over seeds, two-sided p, and "
        "p corrected for the number of hypotheses (Holm), by which each is judged at 5 %.",
        ["hypothesis", "verdict", "effect", "mark", "p", "corrected", "what the effect is"],
        rows,
        wrap=True,
    )


def _how(r: ProbeResults) -> str:
    s = r.settings
    sizes = ", ".join(f"{n:,}" for n in sorted(s.sizes))
    return (
        f"Targets have {sizes} training images, {s.held} held-out ones and at most {s.test:,} test images, the same "
        f"for all networks. The paper's probe is SGD, {s.training.epochs} epochs, rate {s.training.lr:g} and weight "
        f"decay {s.training.weight_decay:g}, with the rate raised so that it goes as far (rate times steps) as on "
        "50,000 images; as printed it goes a small part of that way. The tuned probe is logistic regression on "
        "standardised features, its weight decay chosen on the held-out images. Effects are means over a source's "
        "targets, then over seeds; only the two sources' networks stand behind them."
    )


def _edges(r: ProbeResults) -> str:
    """How often the tuned probe took an end of the weight decays that it could choose from."""
    taken = [
        record["weight_decay"]
        for source in r.sources
        for network in source.networks()
        for target in r.targets(source)
        if (record := r.record(network, target, TUNED)) is not None
    ]
    low, high = min(r.settings.strengths), max(r.settings.strengths)
    return (
        f"Of {len(taken)} tuned probes {taken.count(low)} took the smallest weight decay there was ({low:g}), "
        f"{taken.count(high)} the largest ({high:g})."
    )


def _figures(r: ProbeResults, folder: Path) -> list[Section]:
    sections = []
    for name, draw, caption in FIGURES:
        figure = draw(r)
        if figure is not None:
            save_figure(figure, folder / f"{name}.png")
            picture = Picture(folder / f"{name}.png", caption + BARS, described(figure), len(figure.axes) > 3, True)
            sections.append(Section(caption.split(";")[0].split(":")[0].strip(". "), pictures=[picture], id=name))
    return sections


def _gaps(r: ProbeResults, source: Source) -> list[dict[str, Any]]:
    """A row per target that was probed: its name, the gap by each probe in words, and how many test images."""
    rows = []
    for target in r.targets(source):
        n = next((n for network in source.networks() if (n := r.tested(network, target))), None)
        if n is not None:
            probes = {probe.label: _gap_cell(r, source, target, probe) for probe in SHOWN}
            rows.append({"name": f"{source.name} to {target}", "probes": probes, "test": n})
    return rows


def _gaps_table(r: ProbeResults, source: Source) -> Table:
    rows = [[row["name"], *row["probes"].values(), f"{row['test']:,}"] for row in _gaps(r, source)]
    return Table(
        f"From {source.name}: gap at eps {source.robust:g} [points], mean ± half of the 95 % interval over seeds; in "
        "brackets half of the 95 % interval of the test images (unpaired, of one seed: on the safe side).",
        ["", *(probe.label for probe in SHOWN), "test images"],
        rows,
    )


def _gap_cell(r: ProbeResults, source: Source, target: str, probe: Probe) -> str:
    pairs = r.pairs(source, target, probe)
    if not pairs:
        return NOT_RUN
    e = over_seeds("", [robust - standard for standard, robust in pairs.values()])
    n = r.tested(source.network(0.0), target) or 1
    variance = sum(a * (100 - a) for pair in pairs.values() for a in pair) / len(pairs) / n
    seeds = "" if math.isnan(e.low) else f" ± {e.high - e.value:.1f}"
    return f"{e.value:+.1f}{seeds} ({1.96 * math.sqrt(variance):.1f})"


def _accuracies_table(r: ProbeResults, source: Source) -> Table:
    rows = []
    for target in r.targets(source):
        for i, kind in enumerate(("standard", "robust")):
            pairs = [r.pairs(source, target, probe) for probe in SHOWN]
            if any(pairs):
                means = [f"{sum(p[i] for p in by.values()) / len(by):.1f}" if by else NOT_RUN for by in pairs]
                rows.append([f"{target}, {kind}", *means])
    return Table(
        f"From {source.name}: test accuracy [%], mean over seeds.", ["", *(probe.label for probe in SHOWN)], rows
    )


def _record(t: Outcome) -> dict[str, Any]:
    low, high = (math.nan, math.nan) if t.effect is None else t.effect.interval()
    return {
        "id": t.hypothesis.id,
        "sentence": t.hypothesis.sentence,
        "threshold": t.hypothesis.threshold,
        "value": None if t.effect is None else t.effect.value,
        "low": low,
        "high": high,
        "p": t.p,
        "corrected": t.adjusted,
        "verdict": t.verdict,
    }
