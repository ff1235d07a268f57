"""evaluate: accuracies of runs and of single files."""

import json

from waterbed.__main__ import main
from waterbed.training.run_folder import Run


def test_evaluate_prints_intervals_for_every_run_and_eps(runs, capsys, tmp_path):
    out = tmp_path / "e.json"
    words = f"evaluate {runs}/standard {runs}/robust --eps 0.1 0.5 --steps 2 --out {out}"
    assert main(words.split()) == 0
    printed = capsys.readouterr().out
    assert "standard" in printed
    assert "robust" in printed
    content = json.loads(out.read_text())
    assert list(content["robust"]["robust"]) == ["pgd-2 l2 eps=0.1", "pgd-2 l2 eps=0.5"]
    assert content["standard"]["clean"]["n"] == 12


def test_commands_take_an_exported_network(runs, tmp_path):
    Run.load(runs / "robust").export(tmp_path / "exported.safetensors")
    words = f"evaluate {tmp_path}/exported.safetensors --data {runs}/data --steps 1 --out {tmp_path}/e.json"
    assert main(words.split()) == 0
    assert list(json.loads((tmp_path / "e.json").read_text())) == ["exported"]
