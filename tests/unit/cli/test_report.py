"""report: one page about runs, of what the other commands keep in their folders."""

import json
import re
import shutil

import pytest

from waterbed.__main__ import main

KEPT = ("evaluation*", "measures*", "transfers.json", "choices.json", "inversions*")  # by other tests of this session


@pytest.fixture(autouse=True)
def copied(runs, tmp_path):
    """Copies of the runs, of which nothing is known yet."""
    for name in ("standard", "robust"):
        shutil.copytree(runs / name, tmp_path / name, ignore=shutil.ignore_patterns(*KEPT))


def test_report_is_one_file(tmp_path):
    assert main(["report", f"{tmp_path}/standard", f"{tmp_path}/robust", "--out", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page), "nothing is fetched from elsewhere"
    assert page.count("<img") == page.count('alt="Line plot') > 2


def test_what_commands_keep_is_what_the_report_tells(runs, tmp_path):
    both = f"{tmp_path}/standard {tmp_path}/robust"
    data = f"{runs}/data"
    transfer = f"transfer {both} --targets {data} --mode linear"
    for words in (
        f"evaluate {both} --steps 1 --num-samples 4 --eps 0.1 0.2",
        f"invert {both} --mode plain --steps 1 --num-images 2 --out {tmp_path}/i",
        f"invert {tmp_path}/robust --mode class --steps 1 --num-images 2 --out {tmp_path}/i",
        f"{transfer} --solver sgd --lr 0.1 --epochs 1 --seeds 0",
        f"{transfer} --solver sgd --lr 0.1 --epochs 1 --seeds 0 1",
        f"{transfer} --solver sgd --lr 0.1 --epochs 2 --seeds 0",
        f"choose --target {data} --backbones {both}",
    ):
        assert main(words.split()) == 0
    kept = {name: json.loads((tmp_path / "robust" / name).read_text())["robust"] for name in
            ("transfers.json", "choices.json")}  # fmt: skip
    asked = [(row["seed"], row["settings"].get("epochs")) for row in kept["transfers.json"]]
    assert asked == [(0, "1"), (1, "1"), (0, "2")], "the same again replaces, other settings are added"
    assert {row["model"] for row in kept["transfers.json"]} == {"robust"}
    assert set(kept["choices.json"]) == {"data"}
    for name in ("inversions.png", "inversions-classes.png"):
        assert (tmp_path / "robust" / name).read_bytes() == (
            tmp_path / "i" / name.replace("inversions", "robust")
        ).read_bytes()
    assert main([*f"report {both} --out {tmp_path}/r.html".split()]) == 0
    page = (tmp_path / "r.html").read_text()
    for id in ("in-short", "settings", "accuracy", "training", "inversions", "transfer", "choice", "missing"):
        assert f'<section id="{id}"' in page
    assert f"waterbed measure {tmp_path}/standard {tmp_path}/robust" in page
    assert "waterbed evaluate" not in page


def test_what_is_kept_never_replaces_a_file_of_the_users_own(runs, tmp_path, capsys):
    robust = tmp_path / "robust"
    for name, words in {
        "transfers.json": f"transfer {robust} --targets {runs}/data",
        "choices.json": f"choose --target {runs}/data --backbones {robust}",
        "inversions.png": f"invert {robust} --mode plain --steps 1 --out {tmp_path}/i",
    }.items():
        (robust / name).write_text("my own")
        assert main(words.split()) == 2
        assert "was not written by this command" in capsys.readouterr().err
        assert (robust / name).read_text() == "my own"
