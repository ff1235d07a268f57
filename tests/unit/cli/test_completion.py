"""completion: what a shell offers at the press of the tab key."""

import json
import shutil
import subprocess

import pytest

from waterbed.__main__ import main
from waterbed.cli import COMMANDS

pytest.importorskip("shtab")


def script(shell, capsys):
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.fixture
def offered(tmp_path, capsys):
    """What bash offers for the last of some words."""
    (tmp_path / "c.bash").write_text(script("bash", capsys))
    (tmp_path / "runs").mkdir()

    def offered(*words):
        quoted = " ".join(map(repr, words))
        lines = f"""source c.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
        _shtab_waterbed waterbed {words[-1]!r} {words[-2]!r} 2> /dev/null; printf '%s\\n' "${{COMPREPLY[@]}}" """
        done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, cwd=tmp_path, timeout=60)
        return done.stdout.split()

    return offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_offers_commands_options_choices_and_files(offered):
    assert offered("waterbed", "ev") == ["evaluate"]
    assert {"train", "report", "paper"} <= set(offered("waterbed", ""))
    assert offered("waterbed", "evaluate", "--num") == ["--num-samples"]
    assert offered("waterbed", "train", "--schedule", "one") == ["one-cycle"]
    assert offered("waterbed", "evaluate", "--js") == ["--json"]
    assert "runs" in offered("waterbed", "report", "ru")


def test_fish_and_zsh_know_every_command_with_what_it_does(capsys):
    for shell in ("fish", "zsh"):
        text = script(shell, capsys)
        assert all(name in text for name in COMMANDS)
        assert "Radii of the attacks" in text, "from the source of the command"
        assert "Passes over the training images" in text, "from the settings of a training"


def test_another_shell_is_refused_in_words(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "choose one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err


def test_the_script_as_json(capsys):
    assert main(["completion", "bash", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shell"] == "bash"
