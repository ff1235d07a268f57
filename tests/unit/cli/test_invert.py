"""invert: pictures, studies and classes."""

import inspect
import json
from dataclasses import fields

from waterbed.__main__ import main
from waterbed.cli.invert import Invert
from waterbed.inversion.gallery import draw_gallery
from waterbed.training.run_folder import Run


def test_invert_draws_the_user_s_own_pictures(runs, tmp_path, capsys):
    pictures = runs / "data/test/bright"
    words = f"invert {runs}/robust --images {pictures} --out {tmp_path}/i --steps 3 --num-images 2 --num-samples 10"
    assert main(words.split()) == 0
    assert (tmp_path / "i/robust.png").read_bytes()[:4] == b"\x89PNG"
    numbers = json.loads((tmp_path / "i/robust.json").read_text())
    assert list(numbers) == ["plain", "variational", "effective", "settings"]
    assert numbers["settings"]["files"] == ["0.jpg", "1.jpg"]
    assert (numbers["settings"]["steps"], numbers["settings"]["data"]) == (3, "data")
    assert len(numbers["plain"]["final_losses"]) == 2
    assert numbers["effective"]["noise_size"] > 0
    assert "the first 2 of 6 pictures" in capsys.readouterr().out


def test_plain_inversion_of_one_s_own_pictures_needs_no_data(runs, tmp_path, capsys):
    Run.load(runs / "robust").export(tmp_path / "alone.safetensors")  # does not say where its data lie
    words = f"invert {tmp_path}/alone.safetensors --images {runs}/data/test/bright --mode plain --steps 2"
    assert main([*words.split(), "--out", f"{tmp_path}/i"]) == 0
    assert json.loads((tmp_path / "i/alone.json").read_text())["settings"]["data"] is None
    capsys.readouterr()
    assert main(f"invert {tmp_path}/alone.safetensors --layer head.deep --images {runs}/data/test/bright".split()) == 2
    assert "--layer 'head.deep'" in capsys.readouterr().err, "wrong words are found before data are read"


def test_invert_studies_classes_and_animations(runs, tmp_path, capsys):
    common = f"invert {runs}/robust --steps 3 --num-images 2 --num-samples 6 --out {tmp_path}/i"
    assert main([*common.split(), "--study", "convergence", "--seeds", "1", "--betas", "1e-8"]) == 0
    assert (tmp_path / "i/convergence-robust.png").is_file()
    assert main([*common.split(), "--study", "convergence", "--seeds", "1", "--betas", "1e-8", "--lr", "0.5"]) == 0
    record = json.loads((tmp_path / "i/convergence-robust.json").read_text())
    assert {arm["lr"] for arm in record["arms"]} == {0.5}, "one step size for all, where one is given"
    assert main([*common.split(), "--study", "beta", "--betas", "1e-8", "1e-6", "--animate"]) == 0
    assert list(json.loads((tmp_path / "i/robust.json").read_text())) == ["beta 1e-08", "beta 1e-06", "settings"]
    assert (tmp_path / "i/robust-beta-1e-08.gif").read_bytes()[:3] == b"GIF"
    both = common.replace("robust", f"robust {runs}/standard")
    assert main([*both.split(), "--mode", "plain"]) == 0
    assert (tmp_path / "i/compared.png").is_file()
    assert main([*common.split(), "--mode", "class"]) == 0
    assert json.loads((tmp_path / "i/robust-classes.json").read_text())["classes"] == ["bright", "dark"]
    out = capsys.readouterr().out
    assert "log ratio to plain" in out
    assert "cross-entropy" in out


def test_the_options_are_those_of_the_gallery():
    of_gallery = {p.name: p.default for p in inspect.signature(draw_gallery).parameters.values()}
    of_command = {f.name: f.default for f in fields(Invert)}
    for name in ("runs", "data", "root", "download"):
        del of_command[name]
    assert of_command == {k: v for k, v in of_gallery.items() if k not in ("models", "load_data", "progress")}
