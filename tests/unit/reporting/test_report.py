import math

import pytest

import waterbed as wb
from waterbed.plots import curves, curves_with_errors
from waterbed.reporting.page import Picture, Section, Table, write_page
from waterbed.training.run_folder import Run


def test_text_is_escaped_and_everything_inside(tmp_path):
    section = Section(
        "<b>bold</b>",
        ["a < b"],
        [Table("caption", ["", "x"], [["row", "<script>"]])],
        [Picture(curves({"y": [1, 2]}, "x", "y"), "caption", "a line")],
    )
    write_page(tmp_path / "p.html", "title", "lead", [section], {"torch": "2"})
    page = (tmp_path / "p.html").read_text()
    assert "&lt;script&gt;" in page
    assert page.count("<script>") == 1, "the page's own"
    assert "<b>bold" not in page
    assert "a &lt; b" in page
    assert 'alt="a line"' in page
    assert "data:image/png;base64," in page


def test_report_needs_runs(tmp_path):
    with pytest.raises(wb.UsageError, match="runs is empty"):
        wb.report([], tmp_path / "r.html")


def test_report_of_runs_in_memory(tiny, tmp_path):
    run = Run(tiny, [{"epoch": 1, "loss": 0.5, "train_accuracy": 80.0, "weight_norm": 3.0}], None, {"lr": 0.1})
    page = wb.report([run, run], tmp_path / "r.html").read_text()
    assert "run (1)" in page
    assert "80" in page


def test_report_draws_the_measures_of_every_run_with_their_errors(tiny, tmp_path, monkeypatch):
    drawn = []
    real = curves_with_errors

    def record(series, xlabel, ylabel, log):
        drawn.append((series, xlabel, ylabel))
        return real(series, xlabel, ylabel, log=log)

    monkeypatch.setattr("waterbed.reporting.run_training.curves_with_errors", record)
    name = "input_fisher_trace"
    history = [
        {"epoch": 1, "loss": 0.5, "weight_norm": 3.0},
        {"epoch": 2, "loss": 0.4, "weight_norm": 3.0, name: 2.0, f"{name}_stderr": 0.25},
        {"epoch": 4, "loss": 0.3, "weight_norm": 3.0, name: 1.0},
    ]
    page = wb.report([Run(tiny, history, None, {}), Run(tiny, history[:1], None, {})], tmp_path / "r.html").read_text()
    ((series, _, _),) = [one for one in drawn if one[2] == name]
    assert series.pop("run (2)") == []
    assert list(series) == ["run (1)"]
    assert series["run (1)"][0] == (2, 2.0, 0.25)
    assert series["run (1)"][1][:2] == (4, 1.0)
    assert math.isnan(series["run (1)"][1][2])
    assert 'id="measures"' in page
    assert "how fast the predicted distribution moves with the image" in page
    assert 'id="measures"' not in wb.report([Run(tiny, history[:1], None, {})], tmp_path / "n.html").read_text()


def test_bars_are_95_percent_intervals():
    axes = curves_with_errors({"a": [(1, 5.0, 0.5), (2, 4.0, float("nan"))]}, "x", "y").axes[0]
    (bars,) = axes.containers[0].lines[2]
    low, high = bars.get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((5 - 0.98, 5 + 0.98))
    assert len(set(bars.get_segments()[1][:, 1])) == 1
