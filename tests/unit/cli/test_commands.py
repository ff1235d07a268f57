"""The commands as a user runs them, on a folder of images of their own."""

import gc
import json
import re
import subprocess
import sys
import time
from itertools import product

import pytest

from waterbed.__main__ import main
from waterbed.cli import COMMANDS
from waterbed.training.run_folder import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two trained runs, standard and robust, on a folder with two classes of 16 x 12 pictures."""
    import numpy as np
    from PIL import Image

    place = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 6)):
        for name, level in (("bright", 150), ("dark", 40)):
            (place / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(level, level + 60, (12, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "data" / split / name / f"{i}.jpg")
    for name, objective in (("standard", "standard"), ("robust", "trades")):
        words = f"train {place}/data --out {place}/{name} --objective {objective} --model resnet10 --width 2 --size 8"
        assert main([*words.split(), "--epochs", "2", "--batch-size", "16", "--attack-steps", "2"]) == 0
    return place


def test_evaluate_prints_intervals_for_every_run_and_eps(runs, capsys, tmp_path):
    out = tmp_path / "e.json"
    words = f"evaluate {runs}/standard {runs}/robust --eps 0.1 0.5 --steps 2 --out {out}"
    assert main(words.split()) == 0
    shown = capsys.readouterr().out
    assert "standard" in shown
    assert "robust" in shown
    content = json.loads(out.read_text())
    assert list(content["robust"]["robust"]) == ["pgd-2 l2 eps=0.1", "pgd-2 l2 eps=0.5"]
    assert content["standard"]["clean"]["n"] == 12


def test_measure_writes_estimates_with_errors(runs, tmp_path, capsys):
    out = tmp_path / "m.json"
    assert main(f"measure {runs}/standard {runs}/robust --num-samples 10 --out {out}".split()) == 0
    content = json.loads(out.read_text())
    for run in ("standard", "robust"):
        estimate = content[run]["weight_log_variance"]
        assert estimate["n"] == 10
        assert estimate["stderr"] > 0
        assert estimate["unit"] == "nats"
        assert "damping 1e-08" in estimate["method"]
    assert "input_fisher_trace" in capsys.readouterr().out


def test_measure_takes_any_quantity(runs, tmp_path, capsys):
    names = "kl_curvature_ratio gaussian_curvature_ratio weight_information weight_fisher_logdet effective_information"
    words = (
        f"measure {runs}/robust --num-samples 6 --out {tmp_path}/m.json --quantities {names} weight_fisher_lambda_max"
    )
    assert main([*words.split(), "input_fisher_relative_trace"]) == 0
    content = json.loads((tmp_path / "m.json").read_text())["robust"]
    for name in names.split():
        left_out = re.search(r"(\d+) inputs with S = 0 left out", content[name]["method"])
        assert content[name]["n"] + (int(left_out[1]) if left_out else 0) == 6
        assert content[name]["value"] == content[name]["value"], "not nan"
    assert main(["measure", f"{runs}/robust", "--quantities", "entropy"]) == 2
    assert "quantities='entropy' is unknown" in capsys.readouterr().err


def test_sweep_is_one_table_and_one_picture(runs, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'data = "{runs}/data"\nsize = 8\nmodel = "resnet10"\nwidth = 2\n'
        "epochs = 2\nbatch_size = 16\nattack_steps = 1\n"
    )
    words = f"sweep {recipe} --out {tmp_path}/s --eps 0 0.5 --seeds 2 --num-samples 6"
    assert main(words.split()) == 0
    points = json.loads((tmp_path / "s/sweep.json").read_text())["points"]
    assert [(p["eps"], p["seed"]) for p in points] == [(0.0, 0), (0.0, 1), (0.5, 0), (0.5, 1)]
    assert all(len(p["weight_norms"]) == 2 for p in points)
    assert (tmp_path / "s/sweep.png").read_bytes()[:4] == b"\x89PNG"
    first = capsys.readouterr().out
    assert "weight log variance" in first
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("weights.safetensors")}
    assert main(words.split()) == 0
    assert all(p.stat().st_mtime_ns == t for p, t in times.items()), "finished runs are not repeated"
    recipe.write_text("epochs = 1")
    assert main(words.split()) == 2
    assert "names no data" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")  # submitit leaves its log files to the garbage collector
def test_a_sweep_by_submitit_is_the_sweep_itself(runs, tmp_path):
    pytest.importorskip("submitit")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'data = "{runs}/data"\nsize = 8\nmodel = "resnet10"\nwidth = 2\nepochs = 1\nattack_steps = 1\n')
    points = []
    for launcher in ("here", "debug"):
        words = f"sweep {recipe} --out {tmp_path}/{launcher} --eps 0.5 --num-samples 6 --launcher {launcher}"
        assert main(words.split()) == 0
        points.append(json.loads((tmp_path / launcher / "sweep.json").read_text())["points"])
    assert points[0] == points[1]
    gc.collect()  # here, where warnings about them are ignored


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
    assert "layer='head.deep'" in capsys.readouterr().err, "wrong words are found before data are read"


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


def test_commands_take_an_exported_network(runs, tmp_path):
    Run.load(runs / "robust").export(tmp_path / "kept.safetensors")
    words = f"evaluate {tmp_path}/kept.safetensors --data {runs}/data --steps 1 --out {tmp_path}/e.json"
    assert main(words.split()) == 0
    assert list(json.loads((tmp_path / "e.json").read_text())) == ["kept"]


def test_networks_of_other_projects_go_through_the_commands(runs, tmp_path, capsys):
    import torch

    network = Run.load(runs / "robust").model
    names = {"backbone.": "", "head.": "fc."}
    state = {k: v for k, v in network.state_dict().items() if k not in ("mean", "std")}
    state = {next(k.replace(a, b, 1) for a, b in names.items() if k.startswith(a)): v for k, v in state.items()}
    torch.save(state, tmp_path / "theirs.pt")
    words = f"convert {tmp_path}/theirs.pt --out {tmp_path}/ours.safetensors --mean 0 0 0 --std 1 1 1 --size 8"
    assert main(words.split()) == 0
    assert "images 3 x 8 x 8" in capsys.readouterr().out
    for file in ("ours.safetensors", "theirs.pt"):
        assert main(f"evaluate {tmp_path}/{file} --data {runs}/data --steps 1 --num-samples 4".split()) == 0
        words = f"transfer {tmp_path}/{file} --targets {runs}/data --mode linear --seeds 0 --epochs 1"
        assert main(words.split()) == 0
    words = f"invert {tmp_path}/ours.safetensors --data {runs}/data --mode plain --steps 2 --num-images 2"
    assert main([*words.split(), "--out", f"{tmp_path}/i"]) == 0
    assert (tmp_path / "i/ours.png").is_file()
    assert main(["report", f"{tmp_path}/ours.safetensors", "--out", f"{tmp_path}/r.html"]) == 0
    capsys.readouterr()
    assert main(["evaluate", f"{tmp_path}/theirs.pt"]) == 2
    assert "with --data" in capsys.readouterr().err
    assert main(["evaluate", f"{tmp_path}/theirs.pt", "--data", "digits"]) == 2
    assert "has 10 classes, 'theirs' 2" in capsys.readouterr().err


def test_transfer_against_distance(runs, tmp_path, capsys):
    names = f"{runs}/data digits"
    assert main(f"distance {runs}/data {names} --extractor {runs}/robust --out {tmp_path}/d.json".split()) == 0
    words = f"transfer {runs}/standard {runs}/robust --targets {names} --mode 0 --seeds 0 --epochs 1 --num-train 16"
    words += f" --attack-eps 0.5 --distances {tmp_path}/d.json --out {tmp_path}/t.csv --watch 1"
    assert main(words.split()) == 0
    shown = capsys.readouterr().out
    assert "the farther, the larger" in shown
    assert "Test accuracy [%], mode 0" in shown
    assert "[%] under pgd-20 l2 eps=0.5" in shown
    assert "Mean per-class" not in shown, "neither target is reported so"
    header = (tmp_path / "t.csv").read_text().splitlines()[0]
    assert "pgd-20 l2 eps=0.5" in header
    assert (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
    gaps = json.loads((tmp_path / "t.tradeoff.json").read_text())["gaps"]
    assert [g["model"] for g in gaps] == ["robust", "robust"]
    assert {g["target"] for g in gaps} == {"data", "digits"}, "folders go by their names"
    kept = [json.loads(line)["row"] for line in (tmp_path / "t.rows.jsonl").read_text().splitlines()]
    assert [(r["target"], r["model"]) for r in kept] == list(product(("data", "digits"), ("standard", "robust")))
    assert all("test_clean" in r["history"][0] for r in kept)
    assert main([*words.replace("d.json", "none.json").split()]) == 2


def test_transfer_and_report(runs, tmp_path, capsys):
    words = f"transfer {runs}/standard --targets {runs}/data digits --mode linear --seeds 0 1 --epochs 1"
    assert main([*words.split(), "--out", str(tmp_path / "t.csv")]) == 0
    assert (tmp_path / "t.csv").read_text().count("\n") == 5
    assert main(["report", str(runs / "standard"), str(runs / "robust"), "--out", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page), "nothing is fetched from elsewhere"
    assert page.count("<img") == page.count('alt="Line plot') == 2


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
    assert "leads" in captured.out
    assert "two or more" in captured.err


def test_data_lists_and_describes(runs, capsys):
    assert main(["data"]) == 0
    assert "fashion-mini" in capsys.readouterr().out
    assert main(["data", str(runs / "data"), "--size", "8"]) == 0
    assert "3 x 8 x 8" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"waterbed {command}" in capsys.readouterr().out


def test_help_comes_quickly_and_version_too():
    seconds = []
    for _ in range(3):  # the machine may be busy once, hardly three times
        started = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "waterbed", "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 1
    assert all(command in done.stdout for command in COMMANDS)
    assert main(["--version"]) == 0
