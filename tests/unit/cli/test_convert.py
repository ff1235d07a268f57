"""convert: networks of other projects go through all commands."""

from waterbed.__main__ import main
from waterbed.training.run_folder import Run


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
