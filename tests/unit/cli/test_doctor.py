"""waterbed doctor: what it finds, as tables and as JSON."""

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch

from waterbed.__main__ import main
from waterbed.cli.doctor import OPENS, advice, missing
from waterbed.files import read_toml

FOR_DEVELOPERS = {"test", "docs", "dev", "benchmark"}
CPU = {"device": "cpu", "cores": 4, "load": 1.0, "threads": 3}


def test_every_extra_says_what_it_opens():
    project = read_toml(Path(__file__).parents[3] / "pyproject.toml")["project"]
    assert set(OPENS) == set(project["optional-dependencies"]) - FOR_DEVELOPERS


def test_json_holds_what_the_tables_show(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WATERBED_DATA", str(tmp_path / "not" / "there yet"))
    monkeypatch.setattr("waterbed.distributed._auto_precision", lambda device: "bf16")
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"] == torch.__version__
    assert found["machine"]["precision"] == "bf16"
    assert found["disk"][1]["path"].endswith("there yet")
    assert 0 < found["disk"][1]["free_gb"] <= found["disk"][1]["total_gb"]
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert torch.__version__ in printed
    assert all(name in printed for name in OPENS)
    assert found["disk"][1]["path"] in printed


def test_an_extra_lacks_what_is_not_installed(monkeypatch):
    wanted = ["numpy>=1; extra == 'hf'", 'made-up-package>=2; extra == "hf"', "another-one; extra == 'hfx'", "torch"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    assert missing("hf") == ["made-up-package"]
    assert missing("slurm") is None, "an older installation, which does not declare it"


@pytest.mark.parametrize(
    ("machine", "lines"),
    [
        (CPU, []),
        ({**CPU, "threads": 4}, ["4 threads for about 3 free cores; set OMP_NUM_THREADS=3"]),
        ({**CPU, "load": 9.0}, ["3 threads for about 1 free core; set OMP_NUM_THREADS=1"]),
        ({**CPU, "load": None, "threads": 9}, []),
        ({**CPU, "device": "cuda", "threads": 9}, []),
    ],
)
def test_more_threads_than_free_cores_are_named(machine, lines):
    assert advice(machine, []) == lines


def test_a_full_disk_is_named():
    disks = [{"path": "a", "free_gb": 1.5}, {"path": "b", "free_gb": 2.5}]
    assert advice(CPU, disks) == ["the disk of a has 1.5 GB free; make room"]
