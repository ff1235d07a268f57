"""distance and choose: which backbone for which data."""

import json

from waterbed.__main__ import main


def test_distance_and_choose(runs, tmp_path, capsys):
    words = f"distance {runs}/data digits --extractor {runs}/robust --out {tmp_path}/d.json"
    assert main(words.split()) == 0
    (pair,) = json.loads((tmp_path / "d.json").read_text())["pairs"]
    assert 0 < pair["similarity"] < 1
    assert pair["value"] > 0
    assert main(["distance", "digits", "--extractor", f"{runs}/robust"]) == 2
    words = f"choose --target digits --backbones {runs}/standard {runs}/robust --num-samples 100 --out {tmp_path}/c.csv"
    assert main(words.split()) == 0
    assert (tmp_path / "c.csv").read_text().count("\n") == 3
    captured = capsys.readouterr()
    assert "beats" in captured.out
    assert (tmp_path / "c.png").read_bytes()[1:4] == b"PNG"
    assert "two or more" in captured.err
