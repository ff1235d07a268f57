"""Names that others chose: on a terminal, in a picture, in a spreadsheet."""

import csv
import io
import json
import shutil
import subprocess
import sys
from importlib import resources

import pandas as pd
import pytest
import torch

from waterbed.__main__ import main
from waterbed.cli.output import print_rows, say
from waterbed.plots import curves, curves_with_errors, image_grid, intervals, png
from waterbed.progress import Progress
from waterbed.text import csv_text, printable

NAMES = [r"$\frac$", "$5 and $6", r"a\$b", "_hidden", "\x1b[31mred", "two\nlines", "\udce9"]


def test_names_are_drawn_as_they_are_whatever_they_hold():
    series = {name: [1.0, 2.0] for name in NAMES}
    figure = curves(series, "x", "y")
    (legend,) = figure.legends  # above the axes, as the names are many
    assert len(legend.get_texts()) == len(NAMES), "none is left out"
    png(figure)
    png(curves_with_errors({name: [(1, 2.0, 0.1)] for name in NAMES}, "x", "y"))
    png(image_grid({name: torch.zeros(1, 1, 4, 4) for name in NAMES}, titles=NAMES[:1]))
    png(intervals(NAMES, {"score": [(1, 0, 2)] * len(NAMES)}, title=NAMES[0]))


def test_nothing_steers_the_terminal(capsys):
    print_rows(["run", "\x1b[2J"], [["\x1b]0;title\x07", "[bold]1[/bold]"]], "\x1b[31m")
    say("\x1b[31m of \udce9")
    assert main(["data", "./\x1b[31m\udce9"]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert r"\x1b[31m of \udce9" in out
    assert "[bold]1[/bold]" in out


def test_names_in_progress_are_no_markup(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("[/red]\x1b[31m", total=2) as progress:
        progress.advance(message="[/nothing]")
    assert progress.description == r"[/red]\x1b[31m"


@pytest.mark.parametrize("cell", ["=HYPERLINK(1)", "+1+1", "-1+1", "@SUM(1)", "\tx", "\rx"])
def test_a_spreadsheet_sees_no_formula(cell):
    text = csv_text(pd.DataFrame({"model": [cell, "robust"], "gap": [-1.5, float("nan")], "n": [-3, 4]}))
    (_, first, second) = csv.reader(io.StringIO(text))
    assert first == [f"'{printable(cell)}", "-1.5", "-3"]
    assert second == ["robust", "", "4"]


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's script")
def test_the_tables_of_a_page_are_saved_without_formulas():
    script = resources.files("waterbed.reporting").joinpath("page.js").read_text()
    (safe,) = [line for line in script.splitlines() if line.startswith("const safe")]
    cells = ["=1", "@a", "+a", "-2+3+cmd|' /C calc'!A0", "+1+HYPERLINK(1)", "-1.2 ± 0.3 [-1, 2], n 3", "+0.5", "robust"]
    code = f"{safe}\nconsole.log(JSON.stringify({json.dumps(cells)}.map(safe)))"
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [f"'{cell}" for cell in cells[:5]] + cells[5:]


def test_numbers_stay_numbers_even_as_text():
    assert csv_text(pd.DataFrame({"a": ["-1.5", "+2", "-"]})) == "a\n-1.5\n+2\n'-\n"
