"""The page of a reproduction, on results that are made up: no network is trained."""

import itertools
import json
import math
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from waterbed.files import write_atomic
from waterbed.inversion.study import THRESHOLDS
from waterbed.plots import curves, save_figure
from waterbed_paper.claims import CLAIMS
from waterbed_paper.drawing import described, panels
from waterbed_paper.figures import FIGURES
from waterbed_paper.found import Found
from waterbed_paper.graph import Graph, Place
from waterbed_paper.judge import judge
from waterbed_paper.nodes import nodes
from waterbed_paper.page import write_paper_page
from waterbed_paper.scale import read_scale
from waterbed_paper.tables import standing_in, tables

SCALE = """
about = "Made up."
measured = 10
[[sources]]
name = "cifar10"
data = "cifar10"
model = "resnet10"
width = 4
epochs = 2
seeds = { 0 = 3, "0.5" = 1, 1 = 3 }
trades = { 1 = 1 }
gaussian_noise = { 1 = 1 }
evaluated_eps = [0.5]
[[sources]]
name = "small"
data = "cifar100"
model = "resnet18"
seeds = { 0 = 1, 1 = 1 }
inverted = false
[[sources]]
name = "large"
data = "cifar100"
model = "resnet34"
seeds = { 0 = 1, 1 = 1 }
inverted = false
larger_than = "small"
[transfers]
targets = ["cifar10", "svhn", "mnist", "digits"]
modes = { linear = 1, 0 = 3 }
epochs = { linear = 2, 0 = 2 }
train = 1000
[inversions]
images = 4
elsewhere = "digits"
[dimension]
data = "cifar10"
sizes = [16, 32]
"""
SECTIONS = ("in-short", "claims", "figures", "tables", "slips", "scale", "not-run", "environment")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def made_up(id, config, place, rng):
    """A result of the form that the experiment of this kind gives."""
    kind, eps = id.split("/")[0], config.get("eps", 1.0 if "eps-1" in id else 0.0)

    def estimate(value, n=20):
        return {"value": value + 0.05 * rng.standard_normal(), "stderr": 0.02, "n": n}

    if kind == "network":
        return {"file": config["file"], "weight_norms": list(30 - 3 * rng.random(12).cumsum()), "train_accuracy": 80.0}
    if kind == "accuracy":
        return {"clean": 90 - 8 * eps, "robust": {f"{e:g}": 20 + 30 * eps for e in config["evaluated_eps"]}, "n": 100}
    if kind == "measures":
        names = ("input_fisher_trace", "input_fisher_lambda_max", "input_fisher_relative_trace")
        names += ("weight_rescaling_invariant_trace", "weight_log_variance", "effective_information")
        return {name: estimate(3.0 - eps) for name in names}
    if kind == "theory":
        keys = ("lambda_max_less_mean", "log_lambda_max", "lemma", "lemma_labels", "lemma_unit_noise")
        ratios = {f"{e:g}": estimate(1.0) for e in config["ratio_eps"]}
        whole = {"hits": 99, "n": 100, "eps": 0.05}
        return {
            "ratios": ratios,
            "training_eps": config["ratio_eps"][-1],
            "whole_eps": whole,
            **{key: estimate(1.0) for key in keys},
        }
    if kind == "dataset-fisher":
        return {"standard": [1.0, 2.0, 1.5], "robust": [0.5, 0.9, 0.8]}
    if kind == "anisotropy":
        return {"log_anisotropy": estimate(math.log(config["size"])), "pixels": 3 * config["size"] ** 2}
    if kind == "features":
        labels = rng.integers(0, 10, 200)
        points = (rng.standard_normal((200, 2)) + 5 * np.stack([np.cos(labels), np.sin(labels)], 1)).tolist()
        loss = {"value": 1.0, "stderr": 0.1}
        numbers = {"silhouette": 0.2, "neighbours": 70.0, "n": 200}
        return {"soft_nearest_neighbour_loss": loss, **numbers, "t_sne": points, "labels": labels.tolist()}
    if kind == "inversions":
        result = {"noise_size": 0.1}
        for task in ("own", "elsewhere"):
            for mode in ("plain", "variational", "effective"):
                result[f"{task}/{mode}"] = {"ssim": rng.random(4).tolist(), "identified": [True, False, True, True]}
            result[f"{task}/grey_ssim"] = [0.2] * 4
            result[f"{task}/picture"] = f"{config['file']}-{task}.png"
            (place.out / "pictures").mkdir(exist_ok=True)
            save_figure(curves({"y": [1, 2]}, "x", "y"), place.out / "pictures" / result[f"{task}/picture"])
        return result
    if kind == "noise-sizes":
        return {f"{beta:g}": {"noise_size": 0.05, "ssim": rng.random(4).tolist()} for beta in config["other_betas"]}
    if kind == "inversions-by-eps":
        (place.out / "pictures").mkdir(exist_ok=True)
        save_figure(curves({"y": [1, 2]}, "x", "y"), place.out / "pictures" / f"{config['name']}-by-eps.png")
        rows = {name: {"ssim": rng.random(4).tolist()} for name in config["files"]}
        return {"picture": f"{config['name']}-by-eps.png", "rows": rows}
    if kind == "convergence":
        steps = [0, 1, 3, 10, 30, 100]
        falling = [[0.8 / (1 + s), 1 / (1 + s), 1.2 / (1 + s)] for s in steps]
        gains = {key: [1.0, 1.1, 0.9] for key in ("gain_clean", "gain_objective", "speed_up")}
        arm = {"steps": steps, "quartiles": {"losses": falling, "clean_losses": falling}, **gains}
        names = ("plain", "variational, beta 1e-08", "effective, beta 1e-08")
        return {"arms": [{"arm": name, "lr": 1.0, **arm} for name in names], "thresholds": list(THRESHOLDS)}
    if kind == "transfer":
        final = 60 + 10 * eps + rng.standard_normal()
        history = [{"epoch": e, "test_clean": final * e / config["epochs"]} for e in range(1, config["epochs"] + 1)]
        attacked = {f"pgd-20 l2 eps={e:g}": 30.0 for e in config["attack_eps"]}
        return {"accuracy": final, "n": 26032, "history": history, **attacked}
    if kind == "distance":
        value = float(rng.random())
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "floor": 0.1}
    return {"relative_difference": 1e-12}


def fill(graph, skip=()):
    """Write a result of every experiment but those whose id starts so."""
    rng = np.random.default_rng(0)
    for id, node in graph.nodes.items():
        if not id.startswith(tuple(skip) or ("-",)):
            record = {"key": graph.key(id), "result": made_up(id, node.config, graph.place, rng)}
            record |= {"seconds": 36.0, "environment": {"torch": "2", "device": "a" if "eps" in id else "b"}}
            graph.file(id).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(graph.file(id), json.dumps(record).encode())


def found_in(folder, scale=SCALE, skip=()):
    folder.mkdir(exist_ok=True)
    file = folder / "made-up.toml"
    file.write_text(scale)
    read = read_scale(file)
    graph = Graph(nodes(read), Place(folder))
    fill(graph, skip)
    return Found(read, graph)


class Reader(HTMLParser):
    """Headings, pictures, anchors, tables and what is fetched."""

    def __init__(self, text):
        super().__init__()
        self.levels, self.pictures, self.ids, self.links, self.scopes = [], [], [], [], []
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "img":
            self.pictures.append(attrs)
        if tag == "th":
            self.scopes.append(attrs.get("scope"))
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [value for key, value in attrs.items() if key in ("href", "src", "srcset", "poster", "data")]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page of which the fine-tunings from the larger network and example 3.3 were not run."""
    out = tmp_path_factory.mktemp("paper") / "out"
    found = found_in(out, skip=("transfer/large", "example-3.3"))
    judged = judge(found)
    page = write_paper_page(found, judged, out)
    text = page.read_text()
    return out, found, judged, text, Reader(text)


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
    assert not re.search(r"https?://|@import|url\(|<script", text)


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
    badges = re.findall(r'class="verdict"><span aria-hidden="true">(.)</span> ([a-z ]+)</span>', text)
    assert [verdict for _, verdict in badges] == [j.verdict for j in judged]
    assert len(set(badges)) == len({verdict for _, verdict in badges})


def test_claims_behind_the_abstract_come_first(written):
    _, _, judged, text, _ = written
    start = text.index("The claims behind the abstract")
    table = text[start : text.index("</table>", start)]
    rows = re.findall(r'<a href="#claim-([^"]+)">[^<]+</a></th><td>. ([a-z ]+)</td><td>([^<]+)</td>', table)
    verdicts = {j.claim.id: j.verdict for j in judged}
    assert {id for id, _, _ in rows} == {
        *("input-fisher", "fig-4", "waterbed", "fig-1-noise-once", "fig-2-fit", "far-tasks")
    }
    assert all(verdicts[id] == verdict for id, verdict, _ in rows)
    tallies = {id: tally for id, _, tally in rows}
    assert tallies["waterbed"] == f"1 of 1 {verdicts['waterbed']}"
    assert start < text.index('id="claims"')


def test_what_is_counted_apart_is_said(written):
    _, found, judged, text, _ = written
    start = text.index('id="in-short-title"')
    short = text[start : text.index("<table", start)]
    assert f"Not run: {len(found.graph.missing())} of this scale&#39;s experiments" in short
    sure = [j.claim.id for j in judged if j.claim.identity and j.verdict == "holds"]
    assert "example-3.3" not in sure, "it was not run"
    assert f"{len(sure)} follow from the definitions and test the code: {', '.join(sure)}." in short
    assert "6 are our own reading" in short


def test_transfer_against_eps_has_a_panel_a_target(tmp_path):
    eps = "[0.0, 0.5, 1.0]"
    found = found_in(tmp_path / "out", SCALE.replace("[transfers]", f"[transfers]\neps = {eps}"))
    (drawing,) = (d for d in FIGURES if d.name == "transfer-by-eps")
    titles = [ax.get_title() for ax in drawing.draw(found).axes]
    assert [t for t in titles if t] == [
        "cifar10: the source itself, clean",
        *(f"cifar10 to {target}" for target in ("svhn", "mnist", "digits")),
    ]


def test_published_and_ours_stand_in_one_cell(written):
    _, found, _, _, _ = written
    by_id = {section.id: section.tables[0] for section in tables(found)}
    table = by_id["table-1"]

    def cell_of(table, name, column=1):
        return next(row for row in table.rows if row[0] == name)[column]

    assert table.columns[:3] == ["source to target", "mode 0, robust", "mode 0, standard"]
    cell = cell_of(table, "cifar10 to svhn")
    assert cell.published == "58.34"
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", cell.ours)
    more = cell_of(table, "cifar10 to digits")
    assert more.published == "–"
    assert by_id["table-2"].rows[0][1].ours == "not run"
    assert "resnet10 of width 4, 2 epochs" in table.caption
    assert "at most 1,000 training images of the target" in table.caption


def test_table_4_counts_the_images_that_were_trained_on(tmp_path):
    found = found_in(tmp_path)
    place, file = found.graph.place, "cifar10-standard.safetensors"
    place.network(file).parent.mkdir()

    def cell():
        (table,) = next(section for section in tables(found) if section.id == "table-4").tables
        return next(row for row in table.rows if row[0] == "cifar10")[table.columns.index("ours, as a source")]

    assert "not run" not in cell(), "it was run, though its network is elsewhere"
    assert "49,059" not in cell()
    place.network(file).touch()
    card = {"schema": 1, "config": {"data": {"train": 49059, "test": 9806}}}
    place.network(file).with_suffix(".json").write_text(json.dumps(card))
    assert cell() == "49,059 training images, 9,806 test images"


def test_one_seed_says_so(written):
    table = {section.id: section.tables[0] for section in tables(written[1])}["table-3"]
    ours = {row[0]: row[1].ours for row in table.rows}
    assert ours["for ResNet-18, cifar100 to svhn"].endswith("(one seed)")
    assert ours["for ResNet-50, cifar100 to svhn"] == "not run"


def test_the_pair_of_sizes_stands_for_the_papers(written):
    scale = written[1].scale
    assert standing_in(scale, "cifar100", "resnet50", sized=True).name == "large"
    assert standing_in(scale, "cifar100", "resnet18", sized=True).name == "small"
    assert standing_in(scale, "imagenet", "resnet50", sized=False) is None


def test_what_is_said_of_the_data_is_on_the_page(tmp_path):
    scale = read_scale("demo")
    found = Found(scale, Graph(nodes(scale), Place(tmp_path)))
    (tmp_path / "data.txt").write_text("All ships are missing.\n")
    assert "<p>All ships are missing.</p>" in write_paper_page(found, judge(found), tmp_path).read_text()


def test_lines_are_described_point_by_point():
    figure, axes = panels(1, 2)
    axes[0, 0].plot([0, 1, 2], [8.5, 8.1, 8.8], label="log-variance")
    axes[0, 1].plot(range(9), [3, 1, 2, 2, 2, 2, 2, 9, 4], label="loss")
    text = described(figure)
    assert "log-variance, 8.5 at 0, 8.1 at 1, 8.8 at 2" in text
    assert "loss, 3 at 0 to 4 at 8, least 1 at 1, greatest 9 at 7" in text
    figure, axes = panels(1, 2)
    axes[0, 0].scatter([0, 1], [0, 1])
    for ax, title in zip(axes[0], ("a cloud", "nothing"), strict=True):
        ax.set_title(title)
    assert described(figure) == "2 panels. a cloud. nothing: not run."


@pytest.mark.parametrize("drawing", FIGURES, ids=lambda drawing: drawing.name)
def test_a_line_of_the_legend_looks_alike_in_all_panels(written, drawing):
    figure = drawing.draw(written[1])
    looks = {}
    for ax in figure.axes if figure is not None and figure.legends else ():
        for one in ax.lines:
            if not one.get_label().startswith("_"):
                looks.setdefault(one.get_label(), set()).add((one.get_color(), one.get_marker(), one.get_linestyle()))
    assert all(len(found) == 1 for found in looks.values())
    assert len(set.union(set(), *looks.values())) == len(looks), "two lines that look alike"


def test_what_was_not_run_says_so(written):
    text = written[3]
    assert "Ours: not run; this scale has no experiment for it." in text
    assert "<code>transfer/large/standard/seed-0/svhn/mode-0</code>" in text
    assert "waterbed paper --scale made-up.toml --out DIR --only transfer/cifar10/" in text


def test_with_no_results_every_number_is_missing(tmp_path):
    scale = read_scale("demo")
    found = Found(scale, Graph(nodes(scale), Place(tmp_path)))
    text = write_paper_page(found, judge(found), tmp_path).read_text()
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
scrolling: [...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth).length,
broken: [...document.images].filter(i => !i.naturalWidth).length, pictures: document.images.length,
document: document.documentElement.scrollWidth, window: innerWidth,
fetched: performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:")).length}));</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [380, 1280])
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
    assert width < 1280 or report["scrolling"] == 0
    assert (report["broken"], report["fetched"]) == (0, 0)
    assert report["pictures"] == len(page.pictures)
    assert "CONSOLE" not in seen.stderr
    assert shot.stat().st_size > 10_000
