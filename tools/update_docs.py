"""Put the numbers of the demo, or of a reproduction, into the documentation.

    waterbed demo --out waterbed-demo && python tools/update_docs.py waterbed-demo
    waterbed paper --scale cpu --root DATA --networks results/networks --out results/cpu
    python tools/update_docs.py results/cpu

The first copies results.json and the two inversion grids to results/demo/ and renews docs/demo.md; the second renews
the four verdicts of the README, docs/verdicts.md and docs/probe-study.md.
"""

import json
import math
import shutil
import sys
from pathlib import Path

from waterbed.reporting.demo import summary_table
from waterbed_paper.verdicts import VERDICTS, count_phrase

ROOT = Path(__file__).parent.parent
DECIDED = ("holds", "does not hold")
# What the title and the abstract promise, each by the claim that says it.
HEADLINES = {
    "input-fisher": "Robust representations keep less information about the input.",
    "fig-4": "Robust weights hold less information about the data.",
    "inversion": "A robust representation can be inverted into the image, a standard one gives noise.",
    "far-tasks": "Robust backbones transfer better to tasks far from the source.",
}


def demo_table(results: dict) -> str:
    """The demo's table as Markdown, with its hardware and time."""
    table = summary_table(results)
    lines = ["| | standard | robust |", "|---|---:|---:|"]
    lines += [f"| {' | '.join(row)} |" for row in table.rows]
    environment = results["environment"]
    lines += [
        "",
        f"{table.caption} {results['seconds']:.0f} s on {environment['cores']} cores ({environment['device']}), "
        f"torch {environment['torch']}.",
    ]
    return "\n".join(lines)


def paper_table(summary: dict) -> str:
    """The claims behind the abstract and those that a reproduction decided as Markdown, each with a piece of evidence
    that says what the verdict does."""
    counts, claims = summary["counts"], summary["claims"]
    sure = sum(claim["identity"] and claim["verdict"] == "holds" for claim in claims)
    lines = [
        f"Of {sum(counts.values())} claims {counts['holds']} hold ({sure} of them follow from the definitions, marked "
        f"*), {counts['does not hold']} do not, {counts['undecided']} are undecided and {counts['not run']} not run; "
        f"{sum(claim['reading'] for claim in claims)} of all are our own reading of what the paper leaves open (marked "
        "°). Those behind the abstract and those that are decided, with the quantity that is above its mark (0 unless "
        "said otherwise) where the claim is true, and its 95 % interval, over seeds unless said otherwise:",
        "",
        "| claim | verdict | evidence |",
        "|---|---|---|",
    ]
    for claim in sorted(claims, key=lambda claim: "abstract" not in claim["where"]):
        if claim["verdict"] in DECIDED or ("abstract" in claim["where"] and claim["evidence"]):
            mark = "*" * claim["identity"] + "°" * claim["reading"]
            sentence = f"{claim['sentence']}{mark and ' ' + mark} ({claim['where']})"
            lines.append(f"| {sentence} | {claim['verdict']} | {deciding_text(claim)} |")
    return "\n".join([*lines, "", summary["about"]])


def probe_tables(study: dict) -> str:
    """The probe study as Markdown: its verdict, its hypotheses, and the gap of every source and target."""
    lines = [
        f"**{study['verdict']}** {study['moves']}",
        "",
        f"{study['ran']} of {study['of']} experiments were run. {study['edges']}",
        "",
    ]
    lines += ["| hypothesis | verdict | effect [95 % interval] | p, corrected |", "|---|---|---|---|"]
    for h in study["hypotheses"]:
        name = f"{h['id']}: {h['sentence']}"
        if h["value"] is None:
            lines.append(f"| {name} | {h['verdict']} | | |")
            continue
        ends = "" if h["low"] is None else f" [{h['low']:.2f}, {h['high']:.2f}]"
        mark = f" (mark {h['threshold']:g})" if h["threshold"] else ""
        lines.append(
            f"| {name} | {h['verdict']} | {h['value']:+.2f}{ends}{mark} | {h['p']:.2g}, {h['corrected']:.2g} |"
        )
    probes = list(study["gaps"][0]["probes"])
    lines += [
        "",
        "Gap [points], mean ± half of the 95 % interval over seeds; in brackets half of the 95 % interval of the test "
        "images:",
        "",
        f"| | {' | '.join(probes)} | test images |",
        f"|---|{'---:|' * (len(probes) + 1)}",
    ]
    lines += [f"| {g['name']} | {' | '.join(g['probes'].values())} | {g['test']:,} |" for g in study["gaps"]]
    return "\n".join(lines)


def headline_table(summary: dict) -> str:
    """The four verdicts of the README: a row per promise of the abstract."""
    claims = {claim["id"]: claim for claim in summary["claims"]}
    lines = ["| the paper says | we find | evidence |", "|---|---|---|"]
    for id, sentence in HEADLINES.items():
        lines.append(f"| {sentence} (`{id}`) | {claims[id]['verdict']} | {deciding_text(claims[id])} |")
    return "\n".join(lines)


def deciding_text(claim: dict) -> str:
    """A piece of evidence that says what the verdict does, and how many say what."""
    judged = [e for e in claim["evidence"] if e["counts"]]
    deciding = [e for e in judged if e["verdict"] == claim["verdict"]]
    return evidence_text(deciding[0], [e["verdict"] for e in judged], mark_text(claim))


def evidence_text(evidence: dict, verdicts: list[str], mark: str) -> str:
    """Such as "cifar10 to mnist: 5.2 [4.1, 6.3]; of 3 pieces of evidence 2 hold, 1 undecided"."""
    value, low, high = (math.nan if evidence[key] is None else evidence[key] for key in ("value", "low", "high"))
    interval = "" if math.isclose(low, high) else f" [{low:.3g}, {high:.3g}]"
    interval = " (one seed)" if math.isnan(low) else interval
    interval += f" over {evidence['over']}s" * (bool(interval) and evidence["over"] != "seed") + mark
    tally = ", ".join(count_phrase(verdicts.count(v), v) for v in VERDICTS if v in verdicts)
    share = f"; of {len(verdicts)} pieces of evidence {tally}" if len(verdicts) > 1 else ""
    return f"{evidence['label'].replace('|', chr(92) + '|')}: {value:.3g}{interval}{share}"


def mark_text(claim: dict) -> str:
    """Of a claim whose mark is not 0."""
    return f" (mark {claim['mark']:g})" * bool(claim["mark"])


def with_table(page: Path, name: str, table: str) -> str:
    """The page's text with a fresh table between the markers of that name."""
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    before, rest = page.read_text().split(start)
    return f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}"


def pages(source: Path) -> dict[Path, str]:
    """Each page that has numbers of a folder of results, a reproduction's or the demo's, with its fresh text."""
    if (source / "summary.json").is_file():
        summary = json.loads((source / "summary.json").read_text())
        readme, verdicts = ROOT / "README.md", ROOT / "docs" / "verdicts.md"
        fresh = {
            readme: with_table(readme, "verdicts", headline_table(summary)),
            verdicts: with_table(verdicts, "paper table", paper_table(summary)),
        }
        if (source / "probe-study.json").is_file():
            page = ROOT / "docs" / "probe-study.md"
            study = probe_tables(json.loads((source / "probe-study.json").read_text()))
            fresh[page] = with_table(page, "study", study)
        return fresh
    demo = ROOT / "docs" / "demo.md"
    return {demo: with_table(demo, "demo table", demo_table(json.loads((source / "results.json").read_text())))}


if __name__ == "__main__":
    source, committed = Path(sys.argv[1]), ROOT / "results" / "demo"
    if not (source / "summary.json").is_file() and source.resolve() != committed:
        committed.mkdir(parents=True, exist_ok=True)
        for name in ("results.json", "inversion-standard.png", "inversion-robust.png"):
            shutil.copy(source / name, committed / name)
    for page, text in pages(source).items():
        page.write_text(text)
