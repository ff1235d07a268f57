"""The page of a reproduction, on results that are made up: no network is trained."""

import csv
import itertools
import json
import math
import os
import re
import shutil
import subprocess

import pytest

from waterbed_paper.graph import Graph, Place
from waterbed_paper.page import write_paper_page
from waterbed_paper.plan import plan_nodes
from waterbed_paper.register import CLAIMS, FIGURES
from waterbed_paper.results import Results
from waterbed_paper.scale import read_scale
from waterbed_paper.verdicts import judge_claims

SECTIONS = ("in-short", "claims", "figures", "tables", "slips", "scale", "not-run", "environment")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def test_every_section_claim_figure_and_table_is_there(written):
    _, _, _, _, page = written
    wanted = {*SECTIONS, *(f"claim-{id}" for id in CLAIMS), *(d.name for d in FIGURES if not d.extra)}
    assert wanted | {f"table-{n}" for n in range(1, 13)} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_links_lead_to_places_on_the_page(written):
    page = written[4]
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_nothing_is_fetched_from_elsewhere(written):
    _, _, _, text, page = written
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.search(r"https?://|@import|url\(|<script [^>]|fetch\(", text)


def test_headings_are_in_order(written):
    levels = written[4].levels
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_pictures_say_what_is_seen(written):
    pictures = written[4].pictures
    assert all(len(picture["alt"]) > 40 for picture in pictures)
    assert any("cifar10" in p["alt"] and " at 1" in p["alt"] for p in pictures)


def test_tables_can_be_read_aloud(written):
    page = written[4]
    assert set(page.scopes) == {"col", "row"}
    assert page.tags.count("caption") == page.tags.count("table")


def test_landmarks_and_skip_link(written):
    _, _, _, text, page = written
    assert {"header", "nav", "main"} <= set(page.tags)
    assert 'class="skip" href="#main"' in text


def test_verdicts_are_told_in_words(written):
    _, _, judged, text, _ = written
    claims = text[text.index('id="claims"') :]
    badges = re.findall(r'class="verdict"><span aria-hidden="true">(.)</span> ([a-z ]+)</span>', claims)
    assert [verdict for _, verdict in badges] == [j.verdict for j in judged]
    assert len(set(badges)) == len({verdict for _, verdict in badges})


def test_claims_behind_the_abstract_come_first(written):
    _, _, judged, text, _ = written
    start = text.index('id="abstract"')
    table = text[start : text.index("</table>", start)]
    rows = re.findall(r'<a href="#claim-([^"]+)">[^<]+</a></th><td[^>]*>. ([a-z ]+)</td><td[^>]*>([^<]+)</td>', table)
    verdicts = {j.claim.id: j.verdict for j in judged}
    assert {id for id, _, _ in rows} == {
        *("input-fisher", "fig-4", "waterbed", "fig-1-noise-once", "fig-2-fit", "far-tasks")
    }
    assert all(verdicts[id] == verdict for id, verdict, _ in rows)
    tallies = {id: tally for id, _, tally in rows}
    assert tallies["waterbed"] == f"1 of 1 {verdicts['waterbed']}"
    assert start < text.index('id="claims"')


def test_the_first_screen_has_four_verdicts_and_a_picture(written):
    _, _, judged, text, _ = written
    first = text[text.index("<main") : text.index('id="abstract"')]
    verdicts = {j.claim.id: j.verdict for j in judged}
    cards = re.findall(r'class="card [a-z]+">.*?</span> ([a-z ]+)</span><p><a href="#claim-([^"]+)">', first)
    assert [id for _, id in cards] == ["input-fisher", "fig-4", "inversion", "far-tasks"]
    assert all(verdicts[id] == verdict for verdict, id in cards)
    assert "<img" in first
    assert 'class="wide"' not in first, "it fits a phone"


def test_evidence_and_tables_are_folded_away(written):
    text = written[3]
    claims = text[text.index('id="claims"') : text.index('id="tables"')]
    for part in claims.split("<article")[1:]:
        assert part.index("<details>") < part.index("<dl>")
        assert "<table" not in part[: part.index("<details>")]
    tables = text[text.index('id="tables"') : text.index('id="slips"')]
    assert tables.count("<details><summary>") >= 12


def test_what_is_counted_apart_is_said(written):
    _, results, judged, text, _ = written
    start = text.index('id="counts-title"')
    short = text[start : text.index("<table", start)]
    assert f"Not run: {len(results.graph.missing())} of this scale&#39;s experiments" in short
    sure = [j.claim.id for j in judged if j.claim.identity and j.verdict == "holds"]
    assert "example-3.3" not in sure, "it was not run"
    assert f"{len(sure)} follow from the definitions, or nearly so, and test the code: {', '.join(sure)}." in short
    assert "7 are our own reading" in short


def test_what_is_said_of_the_data_is_on_the_page(tmp_path):
    scale = read_scale("demo")
    results = Results(scale, Graph(plan_nodes(scale), Place(tmp_path)))
    (tmp_path / "data.txt").write_text("All ships are missing.\n")
    assert "<p>All ships are missing.</p>" in write_paper_page(results, judge_claims(results), tmp_path).read_text()


def test_what_was_not_run_says_so(written):
    text = written[3]
    assert "Ours: not run; this scale has no experiment for it." in text
    assert "<code>transfer/large/standard/seed-0/svhn/mode-0</code>" in text
    assert "waterbed paper --scale made-up.toml --out DIR --only transfer/cifar10/" in text


def test_with_no_results_every_number_is_missing(tmp_path):
    scale = read_scale("demo")
    results = Results(scale, Graph(plan_nodes(scale), Place(tmp_path)))
    text = write_paper_page(results, judge_claims(results), tmp_path).read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["counts"] == {"holds": 0, "does not hold": 0, "undecided": 0, "not run": len(CLAIMS)}
    assert "<img" not in text
    assert not list((tmp_path / "figures").iterdir())


def test_summary_and_figures_lie_beside_the_page(written):
    out, _, judged, _, _ = written
    summary = json.loads((out / "summary.json").read_text())
    assert [(c["id"], c["verdict"]) for c in summary["claims"]] == [(j.claim.id, j.verdict) for j in judged]
    assert sum(summary["counts"].values()) == len(CLAIMS)
    assert summary["environment"]["device"] == "b; a"
    first = next(e for j in judged for e in j.evidence if math.isfinite(e.low))
    assert first.low in [e["low"] for c in summary["claims"] for e in c["evidence"]]
    for name in ("fig-2", "fig-4", "fig-5", "fig-6", "fig-7", "fig-8", "fig-9", "fig-10", "fig-14", "trades"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 1000
    assert (out / "index.html").stat().st_size < 8e6


def chromium(folder, *arguments):
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run"]
    command += ["--disable-background-networking", "--enable-logging=stderr", "--virtual-time-budget=5000"]
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, env=environment)


PROBE = """<script>addEventListener("load", () => document.title = JSON.stringify({
scrolling: (document.querySelectorAll("details").forEach(e => e.open = true),
[...document.querySelectorAll(".scroll:has(table)")].filter(e => e.scrollWidth > e.clientWidth).length),
broken: [...document.images].filter(i => !i.naturalWidth).length, pictures: document.images.length,
document: document.documentElement.scrollWidth, window: innerWidth,
buttons: document.querySelectorAll("main table .csv").length, tables: document.querySelectorAll("main table").length,
csv: csv(document.querySelector("#table-1 table")), search: (() => {
const input = document.querySelector(".search input"); input.value = "batch norms";
input.dispatchEvent(new Event("input")); const found = document.querySelectorAll(".found a[href='#claim-batch-norm']");
return [document.querySelector(".search").hidden, found.length]; })(),
fetched: performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length}));</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [380, 800, 1280])
def test_in_a_browser(written, tmp_path, width):
    # Headless windows are at least 500 pixels wide; a frame is as narrow as it is asked to be.
    _, _, _, text, page = written
    (tmp_path / "inner.html").write_text(text.replace("</body>", PROBE + "</body>"))
    frame = f'<title>f</title><iframe src="inner.html" style="border:0;width:{width}px;height:3000px"></iframe>'
    listen = '<script>addEventListener("load", () => setTimeout(() => document.title = frames[0].document.title, 100));'
    outer = tmp_path / "outer.html"
    outer.write_text(f"<!DOCTYPE html><body style='margin:0'>{frame}{listen}</script>")
    local = "--allow-file-access-from-files"
    shot = tmp_path / f"{width}.png"
    seen = chromium(tmp_path, local, f"--window-size={max(width, 600)},3000", "--dump-dom", outer.as_uri())
    chromium(tmp_path, local, f"--window-size={max(width, 600)},3000", f"--screenshot={shot}", outer.as_uri())
    report = json.loads(re.search(r"<title>(.*?)</title>", seen.stdout).group(1))
    assert report["window"] == width
    assert report["document"] <= width
    assert report["scrolling"] == 0, "no table is clipped"
    assert report["buttons"] == report["tables"]
    assert report["search"] == [False, 1]
    head, first, *_ = report["csv"].splitlines()
    assert head.startswith('source to target,"mode 0, robust (published)","mode 0, robust (ours)"')
    assert len(next(csv.reader([first]))) == 5
    assert (report["broken"], report["fetched"]) == (0, 0)
    assert report["pictures"] == len(page.pictures)
    assert "CONSOLE" not in seen.stderr
    assert shot.stat().st_size > 10_000
