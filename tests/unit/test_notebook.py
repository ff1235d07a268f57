"""What a notebook shows of results: tables with what matters, names escaped."""

import copy
import pickle
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
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
from waterbed.transfer_learning.table import TransferTable

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
    assert found.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
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
