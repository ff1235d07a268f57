"""What the page about runs says of what the commands have kept in their folders."""

import json
import re

import matplotlib.figure
import pytest

import waterbed as wb
from waterbed.plots import save_figure
from waterbed.reporting.page import Interval, Pair, Table
from waterbed.reporting.results import read_results
from waterbed.reporting.run_evaluations import accuracy_section
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.choice import SCORES


def accuracy(value, n=100):
    return {"value": value, "low": value - 5, "high": value + 5, "correct": int(value), "n": n}


def evaluation(clean, robust, n=100, **more):
    settings = {"data": "digits", "epoch": 2}
    return {"clean": accuracy(clean, n), "robust": {k: accuracy(v, n) for k, v in robust.items()}, "n": n,
            "settings": settings, **more}  # fmt: skip


@pytest.fixture
def kept(tiny, tmp_path):
    """Two runs: of one everything is known, of the other its training alone."""
    folder = tmp_path / "robust"
    folder.mkdir()
    one = evaluation(70.0, {"pgd-20 l2 eps=0.25": 60.0, "pgd-20 l2 eps=0.5": 44.0})
    standard = evaluation(71.0, {"autoattack l2 eps=0.5": 41.0}, 50, eps=0.5, norm="l2", notes={})
    standard["masking"] = {"verdict": "no sign of gradient masking"}
    row = {"model": "old name", "target": "mnist", "mode": 0, "protocol": "tuned", "n": 50, "metric": "top-1"}
    score = {k: 50.0 for name in ("probe", "knn", "logme") for k in (name, f"{name}_low", f"{name}_high")}
    choice = {"num_samples": 400, "reason": "It is a tie.", "rows": [{"backbone": "robust", **score}]}
    files = {
        "evaluation.json": [one, standard],
        "evaluation-letters.json": [evaluation(33.0, {}) | {"settings": {"data": "letters"}}],
        "measures.json": {"weight_fisher_trace": {"value": 12.0, "stderr": None, "unit": "nats", "n": 9, "method": ""}},
        "transfers.json": [{**row, "seed": s, "accuracy": 80.0 + s} for s in (0, 1)],
        "choices.json": {"mnist": choice},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps({"robust": content}))
    (folder / "inversions.json").write_text(json.dumps({"plain": {"ssim": [0.5, 0.7]}, "settings": {"steps": 9}}))
    save_figure(matplotlib.figure.Figure(), folder / "inversions.png")
    (folder / "environment.json").write_text(json.dumps({"torch": "9.9"}))
    history = [{"epoch": e, "loss": 1.0 / e, "weight_norm": 3.0, "test_clean": 50.0 + e} for e in (1, 2)]
    config = {"lr": 0.1, "data": {"name": "digits"}, "objective": {"name": "adversarial", "eps": 0.5, "norm": "l2"}}
    other = {**config, "objective": {"name": "standard"}}
    return [Run(tiny, history, folder, config), Run(tiny, history, None, other)]


def part(page, id):
    """A section of the page, without pictures."""
    found = re.search(f'<section id="{id}".*?(?=<section id=|</main>)', page, re.DOTALL)
    return re.sub(r'src="data:[^"]*"', "", found[0])


def test_everything_that_is_kept_is_told(kept, tmp_path):
    page = wb.report(kept, tmp_path / "r.html").read_text()
    assert "70.0 [65.0, 75.0]" in part(page, "in-short"), "the evaluation on most images"
    assert "autoattack" not in part(page, "in-short"), "it was on fewer"
    assert "52.0" in part(page, "in-short"), "of the other run what was watched in training"
    accuracies = part(page, "accuracy")
    for words in ("pgd-20 l2 eps=0.5", "41.0 [36.0, 46.0]", "of letters", "no sign of gradient masking", "<img"):
        assert words in accuracies
    assert "12" in part(page, "measures")
    assert "plain SSIM 0.60" in part(page, "inversions")
    assert "80.50" in part(page, "transfer")
    assert "robust" in part(page, "transfer"), "by the name that the run has now"
    assert "It is a tie." in part(page, "choice-1")
    cells = re.findall(r'data-name="([^"]*)">([^<]*)</td>', part(page, "choice-1"))
    assert [name for name, _ in cells] == [label for label, _ in SCORES.values()]
    assert dict(cells)["combined"] == "", "a score that is not there moves no other"
    assert dict(cells)["probe [%]"] == "50 [50, 50]"
    assert "9.9" in part(page, "trained-in")


def test_settings_that_differ_come_first(kept, tmp_path):
    page = part(wb.report(kept, tmp_path / "r.html").read_text(), "settings")
    first, every = page.split("<details>")
    assert "objective.name" in first
    assert ">lr<" not in first
    assert ">lr<" in every


def test_curves_of_all_runs_lie_over_each_other(kept, tmp_path):
    page = part(wb.report(kept, tmp_path / "r.html").read_text(), "training")
    assert page.count('alt="Line plot of training loss over epochs: robust from 1 to 0.5; run from 1 to 0.5."') == 1


def test_commands_for_what_is_not_known(kept, tmp_path):
    assert 'id="missing"' not in wb.report(kept[:1], tmp_path / "r.html").read_text()
    (kept[0].path / "measures.json").unlink()
    page = wb.report(kept, tmp_path / "r.html").read_text()
    assert re.findall("<code>(.*?)</code>", part(page, "missing")) == [f"waterbed measure {kept[0].path}"]


def test_of_two_evaluations_the_one_on_more_images(kept):
    found = read_results(kept[0].path)
    found.evaluations.append(evaluation(99.0, {"pgd-20 l2 eps=0.5": 98.0}, n=10))
    table = accuracy_section({"robust": found}).tables[0]
    assert dict(table.rows)["pgd-20 l2 eps=0.5"] == "44.0 [39.0, 49.0]"


def test_damaged_results_are_named(kept, tmp_path):
    (kept[0].path / "transfers.json").write_text("[")
    with pytest.raises(wb.UsageError, match=r"transfers.json' is damaged \(JSONDecodeError\)"):
        wb.report(kept, tmp_path / "r.html")


@pytest.mark.parametrize(
    ("cell", "width"), [("a" * 20, 32), ("a" * 60, 32), (Interval(0, 0, 0, 0), 32), (Pair("1.00", "2 ± 1; of 100"), 32)]
)
def test_a_table_is_shown_row_by_row_where_it_does_not_fit(cell, width):
    assert Table("", ["", "x"], [["a", cell]]).breakpoint == width
    widths = [Table("", ["x"] * n, [[cell] * n]).breakpoint for n in (1, 2, 3, 4, 5, 9)]
    assert widths[-1] == 0
    assert sorted(widths, key=lambda w: w or 99) == widths
