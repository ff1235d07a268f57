"""train: its options are the settings of a training and of an objective, which are declared elsewhere."""

import re
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO

import pytest

from waterbed.__main__ import main
from waterbed.cli.options import from_config
from waterbed.cli.train import Train
from waterbed.training.config import TrainConfig
from waterbed.training.objective_config import ObjectiveConfig
from waterbed.training.run_folder import Run


@pytest.fixture(scope="module")
def entries():
    """Option -> its lines in --help, as one."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit):
            main(["train", "--help"])
    text = re.sub("[│╭╮╰╯─]", " ", printed.getvalue())
    pairs = [part.split(None, 1) for part in re.split(r"\n\s+(?=--?\w)", text)[1:]]
    assert len(dict(pairs)) == len(pairs), "no option is listed twice"
    return {option.rstrip(","): " ".join(lines.split()) for option, lines in pairs}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, f.name) for kind in (TrainConfig, ObjectiveConfig) for f in fields(kind)]
)
def test_every_setting_is_an_option_with_its_default_and_help(entries, kind, name):
    (setting,) = [f for f in fields(kind) if f.name == name]
    default = " ".join(map(str, setting.default)) if isinstance(setting.default, tuple) else str(setting.default)
    entry = entries[f"--{name.replace('_', '-')}"].lower()
    shown = f" (default: {default})" if setting.default not in (None, ()) else ""  # the help says what nothing means
    assert entry.endswith(f"{setting.metadata['help']}.{shown}".lower())


def test_no_setting_is_declared_by_the_command_itself():
    assert not {f.name for f in fields(TrainConfig)} & set(vars(Train).get("__annotations__", {}))


def test_the_options_reach_the_training(tmp_path, capsys):
    file = tmp_path / "recipe.toml"
    file.write_text('data = "digits"\nmodel = "resnet10"\nwidth = 2\nepochs = 1\nwatch = 5\nmomentum = 0.5\n')
    out = tmp_path / "run"
    words = f"train --config {file} --out {out} --objective trades --beta 3 --attack-steps 1 --eps 0.25 --seed 4"
    assert main([*words.split(), "--batch-size", "512", "--no-nesterov", "--no-progress"]) == 0
    printed = capsys.readouterr()
    assert f"{out}: epoch 1: loss" in printed.out
    assert printed.err == "", "no progress was asked for"
    config = Run.load(out).config
    expected = {"epochs": 1, "watch": 5, "momentum": 0.5, "seed": 4, "batch_size": 512, "nesterov": False}
    assert {name: config[name] for name in expected} == expected
    assert {name: config["objective"][name] for name in ("name", "beta", "steps", "eps")} == {
        "name": "trades",
        "beta": 3.0,
        "steps": 1,
        "eps": 0.25,
    }


def test_wrong_settings_are_found_before_the_data_are_read(tmp_path, capsys):
    for words in ("--epochs 0", "--schedule linear", "--objective sgd", "--validation 1"):
        assert main(["train", "nowhere", "--out", str(tmp_path / "run"), *words.split()]) == 2
        assert words.split()[0].removeprefix("--") in capsys.readouterr().err


def test_files_of_options_know_the_same_names(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text("trackers = ['tensorboard']\nmilestones = [1, 2]\nlr = 1\n")
    command = from_config(Train, file)
    assert (command.trackers, command.milestones, command.lr) == (("tensorboard",), (1, 2), 1.0)
