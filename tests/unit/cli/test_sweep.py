"""sweep: a recipe at several eps and seeds."""

import gc
import json

import pytest

from waterbed.__main__ import main


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
