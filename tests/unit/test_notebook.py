"""What a notebook shows of results: tables with what matters, names escaped."""

import copy
import pickle
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.evaluation.accuracy import Accuracy, Score
from waterbed.information.estimate import Estimate
from waterbed.information.measure import Measures
from waterbed.tables import html_table
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.choice import Candidate
from waterbed.transfer_learning.cross_validation import CrossValidated
from waterbed.transfer_learning.distance import DatasetDistance
from waterbed.transfer_learning.table import TransferTable
from waterbed.transfer_learning.tradeoff import trade_off

NAME = "<script>alert('&')</script>"


class Cells(HTMLParser):
    """The text of caption and cells; a tag of any other kind is remembered."""

    def __init__(self, html):
        super().__init__()
        self.cells, self.tags = [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data.rstrip("\n ") if data.isspace() else data


def cells(result):
    found = Cells(result._repr_html_() if hasattr(result, "_repr_html_") else result)
    assert found.tags - {"img"} <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    return [cell.strip() for cell in found.cells]


def test_cells_are_escaped_and_whole():
    long, before = "x" * 200, pd.get_option("display.max_colwidth")
    rows = [[i, long, NAME] for i in range(100)]
    found = cells(html_table(["a", NAME, "c"], rows, NAME))
    assert found[:4] == [NAME, "a", NAME, "c"]
    assert found[4:] == [cell for i in range(100) for cell in (str(i), long, NAME)]
    assert pd.get_option("display.max_colwidth") == before


def run(**given):
    history = [{"epoch": 1, "loss": 2.0, "test_clean": 50.0}, {"epoch": 2, "loss": 1.23456, "test_clean": 61.0}]
    config = {"data": {"name": NAME}, "objective": {"name": "trades"}}
    return Run(wb.create_model("resnet10", 2, width=2), **{"history": history, "config": config, **given})


def test_a_run_is_one_line_and_a_table():
    text = repr(run(path=Path("runs/robust")))
    assert text.count("\n") == 0
    assert len(text) < 200
    for part in ("path=runs/robust", "network=resnet10", "objective=trades", "epochs=2", "loss=1.235", "test_clean=61"):
        assert part in text
    found = cells(run())
    assert found[:3] == ["Run", "what", "value"]
    facts = dict(zip(found[3::2], found[4::2], strict=True))
    assert facts["data"] == NAME
    assert facts["epochs"] == "2"
    assert "path" not in facts


def test_a_run_without_a_record_is_shown_too():
    assert repr(Run(nn.Linear(2, 2))) == "Run(network=Linear, epochs=0)"


def test_a_score_shows_every_attack_with_its_interval():
    score = Score(Accuracy(90, 100), {NAME: Accuracy(40, 100)}, 100, 88.5)
    found = cells(score)
    assert found[0] == "Score on 100 images"
    assert found[3:] == [
        "clean",
        "90.00 % [82.6, 94.5]",
        "clean, mean per class",
        "88.50 %",
        NAME,
        str(Accuracy(40, 100)),
    ]


def test_a_transfer_table_is_laid_out_by_model_and_target():
    row = {"model": NAME, "mode": 0, "n": 108}
    rows = [{**row, "target": t, "seed": s, "accuracy": 90.0 + s} for t in ("digits", "mnist") for s in (0, 1)]
    found = cells(TransferTable(rows))
    assert found[1:4] == ["model", "digits", "mnist"]
    assert found[4:] == [NAME, *["90.50 ± 6.35 [83.8, 94.9], n 108"] * 2]
    assert cells(TransferTable())[0] == "No fine-tunings"


def test_a_choice_shows_scores_order_and_reason():
    names = ("combined", "probe", "knn", "logme", "h_score", "leep")
    score = CrossValidated(1.05, np.array([1.0, 1.2, 0.9, 1.1]))
    both = [Candidate(n, dict.fromkeys(names, score), score, p) for n, p in ((NAME, 0.5), ("other", 0.97))]
    choice = wb.Choice("digits", both, 1500)
    found = cells(choice)
    assert found[0] == f"digits, 1,500 training images. {choice.reason}"
    assert found[1:3] == ["backbone", "combined"]
    assert found[9:17] == [NAME, *(score.text(d) for d in (2, 1, 1, 3, 2, 2)), ""]
    assert [found[17], found[24]] == ["other", "97 %"]


def test_measures_are_a_dict_that_prints_as_a_table():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    data = [(torch.rand(1, 2, 2), 0) for _ in range(3)]
    measures = wb.measure(model, data, 2, quantities=["input_fisher_trace", "weight_fisher_trace"])
    assert isinstance(measures, dict)
    assert measures == dict(measures) == copy.deepcopy(measures) == pickle.loads(pickle.dumps(measures))
    lines = str(measures).splitlines()
    assert lines[0] == f"input_fisher_trace   {measures['input_fisher_trace']}"
    assert lines[1].startswith("weight_fisher_trace  ")
    found = cells(Measures({NAME: Estimate(2.0, 0.1, "nats", 100, "exact")}))
    assert found[-5:] == [NAME, "2 ± 0.1", "nats", "100", "exact"]
    assert str(Measures()) == "no measures"


@pytest.fixture
def distance():
    return DatasetDistance(3.0, 0.1, 2.4, 3.0, 0.3, (50, 60), f"class EMD by {NAME}", 0, 2.8)


def trade_off_of(targets):
    rows = [
        {"model": m, "target": t, "mode": 0, "seed": s, "accuracy": 80.0 + s + 5 * (m == NAME), "n": 100}
        for m in ("standard", NAME)
        for t in targets
        for s in (0, 1)
    ]
    return TransferTable(rows), trade_off(TransferTable(rows), {t: float(i) for i, t in enumerate(targets)})


def test_a_robustness_report_shows_what_was_not_run_and_what_the_gradient_is_worth():
    data = [(torch.rand(1, 2, 2), 0) for _ in range(3)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    report = wb.evaluate_standard(model, data, eps=0.1, autoattack="never")
    found = cells(report)
    assert "undecided (too few examples" in found[0]
    assert found[-3:-1] == ["autoattack l2 eps=0.1", "not run"]
    assert [label.get_text() for label in report.plot().axes[0].get_yticklabels()] == list(
        k for k, a in {"clean": report.clean, **report.robust}.items() if a is not None
    )


def test_a_trade_off_shows_every_gap_and_the_correlation():
    _, result = trade_off_of(["a", "b", NAME])
    found = cells(result)
    assert "over 3 targets" in found[0]
    assert found[5:9] == [NAME, "a", "0", "+5.00 ± 0.00"]


def test_a_distance_shows_what_it_is_corrected_for(distance):
    found = cells(distance)
    assert found[0] == f"Distance of 50 and 60 images; class EMD by {NAME}"
    assert found[4] == "2.8 [2.4, 3]"


def test_an_inversion_is_a_picture_with_its_numbers():
    result = wb.invert(wb.create_model("resnet10", 2, width=2, in_channels=1), torch.rand(2, 1, 8, 8), steps=1)
    found = cells(result)
    assert found[0] == repr(result)
    assert {"rmse", "psnr", "ssim"} <= set(found)
    assert result._repr_html_().count("<img") == 1
    assert len(result.plot().axes) == 4


@pytest.mark.parametrize("kind", ["run", "score", "radii", "table", "trade-off", "distance", "measures"])
def test_results_draw_themselves_in_one_look(kind, distance):
    table, gaps = trade_off_of(["a", "b"])
    radii = {f"pgd l2 eps={eps:g}": Accuracy(90 - int(50 * eps), 100) for eps in (0.5, 1.0)}
    drawn = {
        "run": (run(), "accuracy [%]"),
        "score": (Score(Accuracy(90, 100), {NAME: Accuracy(40, 100)}, 100, 88.5), ""),
        "radii": (Score(Accuracy(90, 100), radii, 100, 88.5), "accuracy [%]"),
        "table": (table, ""),
        "trade-off": (gaps, "accuracy minus that of standard [points]"),
        "distance": (distance, ""),
        "measures": (Measures({"x": Estimate(1e6 + 1, 0.1, "nats", 100, "exact")}), ""),
    }
    result, label = drawn[kind]
    figure = result.plot()
    assert figure.axes[0].get_ylabel() == label
    assert figure._repr_png_().startswith(b"\x89PNG"), "a notebook shows it without pyplot"
    for ax in figure.axes:
        assert not ax.spines["top"].get_visible()
        assert not ax.xaxis.get_offset_text().get_text()


def test_several_radii_are_a_curve_from_the_clean_accuracy():
    radii = {f"pgd l2 eps={eps:g}": Accuracy(n, 100) for eps, n in ((1.0, 20), (0.5, 50))}
    (line, *_) = Score(Accuracy(90, 100), radii, 100, 88.5).plot().axes[0].lines
    assert line.get_xydata().tolist() == [[0, 90], [0.5, 50], [1, 20]]


def test_a_run_without_an_epoch_says_so():
    with pytest.raises(wb.UsageError, match="no epoch to draw"):
        Run(nn.Linear(2, 2)).plot()


def test_in_a_notebook():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("ipywidgets")
    code = """import torch, waterbed as wb
from waterbed.progress import Progress
with Progress("working", 3) as bar:
    bar.advance(message="first")
wb.evaluate(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), [(torch.rand(1, 2, 2), 0)]).plot()"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120).execute()
    outputs = notebook.cells[0].outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)
    widgets = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert "working" in str(widgets), "progress is a widget, not lines"
