"""Messages of the library name what was typed."""

import warnings

import pytest

from waterbed.__main__ import main
from waterbed.cli.choose import Choose
from waterbed.cli.distance import Distance
from waterbed.cli.evaluate import Evaluate
from waterbed.cli.invert import Invert
from waterbed.cli.train import Train
from waterbed.cli.transfer import Transfer
from waterbed.cli.wording import as_typed
from waterbed.errors import UsageWarning

TRAIN = Train(data="digit", out="o", model="resnet19", attack_steps=0, size=9)


@pytest.mark.parametrize(
    ("message", "command", "typed"),
    [
        ("size=9 is small; choose another out=", TRAIN, "--size 9 is small; choose another --out"),
        ("steps=0 must be >= 1", TRAIN, "--attack-steps 0 must be >= 1"),
        ("name='resnet19' is unknown", TRAIN, "--model 'resnet19' is unknown"),
        ("name_or_folder='digit' is unknown", TRAIN, "DATA 'digit' is unknown"),
        ("path_or_name='a b' is no run", Evaluate(("x", "a b")), "NAME 'a b' is no run"),
        ("path_or_name='net' is no run", Distance(("a", "b"), extractor="net"), "--extractor 'net' is no run"),
        ("data=('a',) names 1 set(s)", Distance(("a",), extractor="net"), "NAME 'a' names 1 set(s)"),
        ("data='mnist' has no images", Transfer(runs=("r",), targets=("mnist",)), "--targets 'mnist' has no images"),
        ("eps=0.5 is large", Transfer(runs=("r",), attack_eps=(0.5,), eps=1.0), "--attack-eps 0.5 is large"),
        ("name='a' is unknown", Choose(target="t", backbones=("a", "b")), "--backbones 'a' is unknown"),
        (
            "fake_relu=True finds no ReLU; pass fake_relu=False",
            Invert(("r",)),
            "--fake-relu finds no ReLU; pass --no-fake-relu",
        ),
        (
            "objective=TRADES(attack=PGD(eps=0.1, steps=0)) needs steps=0",
            TRAIN,
            "--objective TRADES(attack=PGD(eps=0.1, steps=0)) needs --attack-steps 0",
        ),
        # Not known, or no argument of the message's own: left as it is.
        ("k=0 must be >= 1", TRAIN, "k=0 must be >= 1"),
        ("count=0 must be >= 1", Invert(("r",), seed=0), "count=0 must be >= 1"),
        ("write PGD(eps=0.5)", TRAIN, "write PGD(eps=0.5)"),
        ("the loader's file 'a size=9' is not the model's", TRAIN, "the loader's file 'a size=9' is not the model's"),
    ],
)
def test_an_argument_is_the_option_that_was_typed(message, command, typed):
    assert as_typed(message, command) == typed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train digits --out o --milestones 3", "--milestones"),
        ("train nowhere/at-all --out o", "DATA 'nowhere/at-all'"),
        ("data nowhere/at-all", "DATA 'nowhere/at-all'"),
        ("measure nowhere", "NAME 'nowhere'"),
        ("distance digits digits --extractor nowhere", "--extractor 'nowhere'"),
        ("choose --target digits --backbones nowhere", "--backbones 'nowhere'"),
        ("convert nowhere.pt --out o.safetensors", "FILE 'nowhere.pt'"),
        ("report nowhere", "NAME 'nowhere'"),
        ("sweep nowhere.toml --out o", "nowhere.toml"),
    ],
)
def test_commands_name_what_was_typed(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "=" not in error.replace("<=", "").replace(">=", "")


@pytest.mark.filterwarnings("default")
def test_warnings_too(capsys, monkeypatch):
    monkeypatch.setattr("waterbed.cli.data.Data.__call__", lambda self: warnings.warn("size=4", UsageWarning, 2))
    assert main(["data", "--size", "4"]) == 0
    assert capsys.readouterr().err == "waterbed: warning: --size 4\n"
