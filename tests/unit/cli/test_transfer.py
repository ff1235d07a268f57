"""transfer, alone and against distance."""

import json
from dataclasses import fields
from itertools import product

from waterbed.__main__ import main
from waterbed.cli.transfer import SETTINGS, Transfer
from waterbed.transfer_learning.settings import FINETUNING


def test_transfer_against_distance(runs, tmp_path, capsys):
    names = f"{runs}/data digits"
    assert main(f"distance {runs}/data {names} --extractor {runs}/robust --out {tmp_path}/d.json".split()) == 0
    words = f"transfer {runs}/standard {runs}/robust --targets {names} --mode 0 --seeds 0 --epochs 1 --num-train 16"
    words += f" --attack-eps 0.5 --distances {tmp_path}/d.json --out {tmp_path}/t.csv --watch 1"
    assert main(words.split()) == 0
    printed = capsys.readouterr().out
    assert "the farther, the larger" in printed
    assert "Test accuracy [%], mode 0, protocol tuned" in " ".join(printed.split())
    assert "n 1" in printed
    assert "[%] under pgd-20 l2 eps=0.5" in printed
    assert "Mean per-class" not in printed, "neither target is reported so"
    header = (tmp_path / "t.csv").read_text().splitlines()[0]
    assert "pgd-20 l2 eps=0.5" in header
    assert (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
    gaps = json.loads((tmp_path / "t.tradeoff.json").read_text())["gaps"]
    assert [g["model"] for g in gaps] == ["robust", "robust"]
    assert {g["target"] for g in gaps} == {"data", "digits"}, "folders go by their names"
    records = [json.loads(line)["row"] for line in (tmp_path / "t.rows.jsonl").read_text().splitlines()]
    assert [(r["target"], r["model"]) for r in records] == list(product(("data", "digits"), ("standard", "robust")))
    assert all("test_clean" in r["history"][0] for r in records)
    assert main([*words.replace("d.json", "none.json").split()]) == 2


def test_transfer_writes_a_row_per_fine_tuning(runs, tmp_path):
    words = f"transfer {runs}/standard --targets {runs}/data digits --mode linear --seeds 0 1 --epochs 1"
    assert main([*words.split(), "--out", str(tmp_path / "t.csv")]) == 0
    assert (tmp_path / "t.csv").read_text().count("\n") == 5


def test_the_protocol_and_the_candidates_of_the_command_line(runs, tmp_path, capsys):
    words = f"transfer {runs}/standard --targets {runs}/data --mode linear --seeds 0 1 --out {tmp_path}/t.csv"
    assert main([*words.split(), "--protocol", "paper"]) == 0
    assert "protocol paper" in " ".join(capsys.readouterr().out.split())
    assert main(words.split()) == 0
    capsys.readouterr()
    rows = [json.loads(line)["row"] for line in (tmp_path / "t.rows.jsonl").read_text().splitlines()]
    assert [(r["protocol"], r["solver"], r["lr"]) for r in rows] == [("paper", "sgd", 0.01)] * 2 + [
        ("tuned", "logistic", None)
    ]
    assert main([*words.split(), "--protocol", "paper", "--epochs", "3"]) == 2
    assert "--epochs 3 contradicts --protocol 'paper'" in " ".join(capsys.readouterr().err.split())
    more = "--epochs 1 --lr 0.3 --weight-decay 100 1e-4"
    assert main([*words.split(), *more.split()]) == 0
    rows = [json.loads(line)["row"] for line in (tmp_path / "t.rows.jsonl").read_text().splitlines()]
    assert rows[-1]["weight_decay"] in (100, 1e-4)
    assert rows[-1]["edge"].startswith(("largest weight_decay", "smallest weight_decay"))
    assert f"best at the {rows[-1]['edge']} tried" in capsys.readouterr().out


def test_distances_that_do_not_fit(runs, tmp_path, capsys):
    file = tmp_path / "d.json"
    words = f"transfer {runs}/standard --targets {runs}/data digits --distances {file}"
    file.write_text("[]")
    assert main(words.split()) == 2
    assert "is not a file that waterbed distance --out wrote" in capsys.readouterr().err
    file.write_text(json.dumps({"pairs": [{"source": "a", "target": "data", "value": 1.0}]}))
    assert main(words.split()) == 2
    assert "has data from a, but not digits; run waterbed distance" in capsys.readouterr().err


def test_settings_of_the_training_are_those_of_fine_tuning():
    defaults = {f.name: f.default for f in fields(Transfer)}
    assert {name: defaults[name] for name in SETTINGS} == {name: getattr(FINETUNING, name) for name in SETTINGS}
    assert not set(SETTINGS) & set(vars(Transfer)["__annotations__"])


def test_robust_fine_tuning(runs, tmp_path, capsys):
    words = f"transfer {runs}/standard --targets {runs}/data --seeds 0 --epochs 1 --lr 0.1 --attack-eps 0.5"
    words += f" --objective adversarial --eps 0.5 --attack-steps 1 --out {tmp_path}/t.csv"
    assert main([*words.split(), "--mode", "2"]) == 0
    (line,) = (tmp_path / "t.rows.jsonl").read_text().splitlines()
    assert "AdversarialTraining" in json.loads(line)["asked"]["settings"]["objective"]
    capsys.readouterr()
    assert main(words.split()) == 2
    assert "trains on cached activations" in capsys.readouterr().err
