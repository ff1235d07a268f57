"""--json, --quiet and --data, which every command has."""

import json
import shutil
from importlib.metadata import entry_points

import pytest

from waterbed.__main__ import main
from waterbed.cli import COMMANDS
from waterbed.cli.parsing import _with_data
from waterbed.cli.train import Train
from waterbed.cli.transfer import Transfer


@pytest.fixture
def robust(runs, tmp_path):
    return shutil.copytree(runs / "robust", tmp_path / "robust")


def printed(capsys, words):
    assert main([*words.split(), "--json"]) == 0
    out = capsys.readouterr().out
    return json.loads(out)


def test_commands_print_numbers_and_nothing_else(robust, runs, tmp_path, capsys):
    data = runs / "data"
    found = printed(capsys, f"evaluate {robust} --steps 1 --num-samples 4")
    assert found["robust"]["clean"]["n"] == 4
    found = printed(capsys, f"measure {robust} --num-samples 4 --quantities input_fisher_trace")
    assert found["robust"]["input_fisher_trace"]["value"] > 0
    found = printed(capsys, f"invert {robust} --mode plain --steps 1 --num-images 2 --out {tmp_path}/i")
    assert len(found["robust"]["plain"]["final_losses"]) == 2
    found = printed(capsys, f"distance {data} digits --extractor {robust} --num-samples 20")
    assert found["pairs"][0]["target"] == "digits"
    found = printed(capsys, f"transfer {robust} --data {data} --mode linear --solver logistic")
    assert found["rows"][0]["accuracy"] >= 0
    assert "history" not in found["rows"][0]
    found = printed(capsys, f"choose --data {data} --backbones {robust}")
    assert found["best"] == "robust"
    found = printed(capsys, f"data {data}")
    assert found["shape"] == [3, 12, 16]
    found = printed(capsys, f"report {robust} --out {tmp_path}/r.html")
    assert found == {"out": f"{tmp_path}/r.html"}
    found = printed(capsys, f"convert {robust} --out {tmp_path}/w.safetensors")
    assert "resnet10" in found["summary"]
    found = printed(capsys, f"train --data {data} --out {tmp_path}/t --model resnet10 --width 2 --size 8 --dry-run")
    assert found
    assert {row["name"] for row in printed(capsys, "data")} >= {"digits", "cifar10"}


def test_errors_are_no_json(capsys):
    assert main(["measure", "nowhere", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("waterbed: error: ")


def test_every_command_returns_what_it_found():
    own = {point.name: point for point in entry_points(group="waterbed.commands")}
    for name, value in {**COMMANDS, **{n: p.value for n, p in own.items()}}.items():
        module, _, kind = value.partition(":")
        call = getattr(__import__(module, fromlist=[kind]), kind).__call__
        assert call.__annotations__["return"] == "Any", f"{name} prints no JSON"


def test_quiet_leaves_results_and_errors(robust, runs, tmp_path, capsys):
    words = f"train {runs}/data --out {tmp_path}/t --model resnet10 --width 2 --size 8 --epochs 1 --objective standard"
    assert main([*words.split(), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    words = f"evaluate {tmp_path}/t --steps 1 --num-samples 4"
    assert main([*words.split(), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "clean" in out
    assert "written" not in out
    assert err == ""
    assert main(words.split()) == 0
    assert "written" in capsys.readouterr().out
    assert main(["measure", "nowhere", "--quiet"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "words", "meant"),
    [
        (Train, "--out o --milestones 3 --data digits --epochs 2", "digits --out o --milestones 3 --epochs 2"),
        (Train, "--data=digits --out o", "digits --out o"),
        (Transfer, "a b --data mnist digits --mode 0", "a b --targets mnist digits --mode 0"),
        (Transfer, "a --targets mnist", "a --targets mnist"),
    ],
)
def test_data_are_named_by_one_option(kind, words, meant):
    assert _with_data(kind, words.split()) == meant.split()
