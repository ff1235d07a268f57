"""The command line as such: help, version, messages, files of options."""

import os
import subprocess
import sys

import pytest

from waterbed.__main__ import main
from waterbed.cli import COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"waterbed {command}" in text
    for wrong in ("{None}", "default: None", "default: )", "REQUIRED"):
        assert wrong not in text, "no default where there is none"


@pytest.mark.parametrize("columns", ["20", "80", None])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train", "Missing from waterbed train"),
        ("train --out a-folder-with-a-long-name/below-another-one/run", "DATA Name of a data set"),
        ("train digits --out o --epochs", "--epochs"),
        ("train digits --out o --epochs many", "'many'"),
        ("train digits --out o --epochs 1.5", "'1.5'"),
        ("train digits --out o --no-epochs", "Unrecognized options: --no-epochs"),
        ("train digits mnist --out o", "Unrecognized options: mnist"),
        ("train digits --out o --epoch 3", "--epoch, 3 (did you mean --epochs?)"),
        ("transfer run --targets digits --num_trian 3", "did you mean --num-train?"),
        ("measure run --num-samples none-of-them", "'none-of-them'"),
        ("train digits --config", "--config needs a file"),
    ],
)
def test_what_tyro_refuses_is_one_line(words, message, columns, capsys, monkeypatch):
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    assert main(words.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("waterbed: error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert not set(printed.err) & set("│╭╮╰╯─")
    if "--config" not in words:
        assert printed.err.endswith(f"; see waterbed {words.split()[0]} --help\n")
    assert os.environ.get("COLUMNS") == columns


def test_help_and_version_import_neither_torch_nor_a_command_that_does_not_run():
    code = (
        "import sys; from waterbed.__main__ import main; main(['--help']); main(['--version']);"
        "main(['report', 'run', '--print-config']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    code = code.replace("main(['--help']);", "").replace("'torch'", "'waterbed.cli.train'")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_help_comes_quickly_and_version_too():
    def used():
        children = os.times()
        return children.children_user + children.children_system  # how busy the machine is does not count

    before = used()
    done = subprocess.run([sys.executable, "-m", "waterbed", "--help"], capture_output=True, text=True, check=True)
    assert used() - before < 1
    assert all(command in done.stdout for command in COMMANDS)
    assert main(["--version"]) == 0


def test_help_shows_the_defaults_of_a_config(capsys, tmp_path):
    (tmp_path / "c.toml").write_text("epochs = 77\n")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "c.toml"), "--help"])
    assert "(default: 77)" in capsys.readouterr().out
