"""Radii on the command line and in TOML files: 0.5 or 8/255, read by one function."""

import json

import pytest

from waterbed.__main__ import main
from waterbed.cli.evaluate import Evaluate
from waterbed.cli.measure import Measure
from waterbed.cli.options import from_config
from waterbed.cli.parsing import parse_options
from waterbed.cli.sweep import Sweep
from waterbed.cli.train import Train
from waterbed.cli.transfer import Transfer
from waterbed.errors import UsageError
from waterbed.training.run_folder import Run


@pytest.mark.parametrize(
    ("kind", "words", "name", "value"),
    [
        (Train, "digits --out o --eps 8/255", "eps", 8 / 255),
        (Train, "digits --out o --eps 0.25", "eps", 0.25),
        (Evaluate, "run --eps 8/255 0.5", "eps", (8 / 255, 0.5)),
        (Measure, "run --eps 1/2", "eps", 0.5),
        (Sweep, "recipe.toml --out o --eps 0 4/255", "eps", (0.0, 4 / 255)),
        (Sweep, "recipe.toml --out o --evaluated-eps 4/255", "evaluated_eps", (4 / 255,)),
        (Transfer, "run --targets digits --attack-eps 4/255", "attack_eps", (4 / 255,)),
    ],
)
def test_fractions_on_the_command_line(kind, words, name, value):
    assert getattr(parse_options(kind, words.split(), "test"), name) == value


def test_fractions_in_files(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text('eps = "8/255"\n')
    assert from_config(Train, file).eps == 8 / 255
    file.write_text('eps = ["8/255", 1, 0.5]\n')
    assert from_config(Evaluate, file).eps == (8 / 255, 1, 0.5)
    for line in ('eps = "8:255"', 'eps = ["1/2", "half"]'):
        file.write_text(line)
        with pytest.raises(UsageError, match=r"eps='.*' is no number; write 0\.5 or a fraction such as 8/255"):
            from_config(Train if "[" not in line else Evaluate, file)
    file.write_text('norm = "8/255"\nlr = "1/2"\n')
    with pytest.raises(UsageError, match="lr='1/2'; it must be of type float"):
        from_config(Train, file)


def test_a_wrong_radius_is_one_line(capsys):
    for words in ("train digits --out o --eps 8:255", "evaluate nowhere --eps 0.5 half", "evaluate nowhere --eps 1/0"):
        assert main(words.split()) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        assert "is no number; write 0.5 or a fraction such as 8/255" in printed


def test_linf_train_and_l1_evaluate(tmp_path):
    words = f"train digits --out {tmp_path}/run --model resnet10 --width 2 --epochs 1 --batch-size 512 --watch 5"
    assert main([*words.split(), "--eps", "8/255", "--norm", "linf", "--attack-steps", "1", "--no-progress"]) == 0
    objective = Run.load(tmp_path / "run").config["objective"]
    assert (objective["eps"], objective["norm"]) == (8 / 255, "linf")
    words = f"evaluate {tmp_path}/run --eps 255/255 --norm l1 --steps 2 --num-samples 20 --out {tmp_path}/e.json"
    assert main(words.split()) == 0
    (scores,) = json.loads((tmp_path / "e.json").read_text()).values()
    assert list(scores["robust"]) == ["pgd-2 l1 eps=1"]


@pytest.mark.filterwarnings("default")
def test_a_radius_beyond_every_image_is_one_line_on_stderr(capsys):
    assert main(["evaluate", "nowhere", "--eps", "8", "8", "--norm", "linf"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "waterbed: warning: --eps 8.0 with --norm 'linf' allows every image: pixels lie in [0, 1]; did you mean 8/255?"
    )
    assert len(lines) == 2, "said once, then the error of the folder that is not there"


@pytest.mark.filterwarnings("default")
def test_warnings_of_others_are_shown_as_ever(monkeypatch, capsys):
    import warnings

    monkeypatch.setattr("waterbed.__main__.parse", lambda args: lambda: warnings.warn("theirs", stacklevel=1))
    with pytest.warns(UserWarning, match="theirs"):
        assert main(["evaluate"]) == 0
    assert "waterbed: warning" not in capsys.readouterr().err


def test_the_standard_evaluation_refuses_l1(runs, capsys):
    assert main(f"evaluate {runs}/standard --attacks standard --norm l1 --eps 1".split()) == 2
    assert "--norm 'l1' has no standard AutoAttack" in capsys.readouterr().err
