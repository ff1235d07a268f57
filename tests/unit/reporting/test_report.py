import pytest

import waterbed as wb
from waterbed.plots import curves
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
    assert "<script>" not in page
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
