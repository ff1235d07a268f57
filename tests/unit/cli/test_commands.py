"""The commands there are: waterbed's own, and those of other packages, which break nothing of ours."""

import sys

import pytest

from waterbed.__main__ import main
from waterbed.cli import COMMANDS
from waterbed.cli.commands import load_command
from waterbed.errors import UsageError

HELLO = '''
from dataclasses import dataclass


@dataclass
class Hello:
    """Greet a network.

    More about it.
    """

    name: str = "you"

    def __call__(self):
        print("hello", self.name)
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a made-up package that offers commands: (name of the package, source, entry points)."""
    monkeypatch.syspath_prepend(tmp_path)

    def package(name, source, **points):
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{command} = {name}:{attribute}" for command, attribute in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[waterbed.commands]", *lines]))

    yield package
    for module in [m for m in sys.modules if m.startswith("made_up_")]:
        del sys.modules[module]


def test_a_package_adds_a_command(install, capsys):
    install("made_up_greeter", HELLO, hello="Hello")
    assert main(["hello", "--name", "robust"]) == 0
    assert capsys.readouterr().out == "hello robust\n"
    assert main(["--help"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("hello ")]
    assert line.split() == ["hello", "Greet", "a", "network."]
    assert main(["helo"]) == 2
    assert "did you mean 'hello'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "reason"),
    [("1 / 0", "ZeroDivisionError"), ("import made_up_nowhere", "ModuleNotFoundError"), ("", "AttributeError")],
)
def test_a_broken_package_breaks_only_its_own_command(install, capsys, source, reason):
    install("made_up_broken", source, broken="Broken")
    assert main(["data"]) == 0
    assert capsys.readouterr().err == ""
    assert "made_up_broken" not in sys.modules, "other packages are not imported for a command of ours"
    assert main(["--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"cannot be loaded ({reason}" in printed
    assert all(f" {name} " in printed for name in COMMANDS)
    assert main(["broken"]) == 2
    assert f"command='broken' (made_up_broken:Broken) cannot be loaded ({reason}" in capsys.readouterr().err


def test_nobody_takes_the_place_of_our_commands(install, capsys):
    install("made_up_intruder", HELLO, data="Hello")
    note = "waterbed: note: made_up_intruder:Hello offers a command 'data' too; waterbed's own runs\n"
    assert main(["data", "list"]) == 0
    printed = capsys.readouterr()
    assert "fashion-mini" in printed.out
    assert printed.err == note
    assert main(["--help"]) == 0
    assert capsys.readouterr().err == note


def test_two_packages_with_one_command(install):
    install("made_up_one", HELLO, hello="Hello")
    install("made_up_two", HELLO, hello="Hello")
    with pytest.raises(UsageError, match=r"made_up_\w+:Hello and made_up_\w+:Hello; uninstall"):
        load_command("hello")


@pytest.mark.parametrize("name", COMMANDS)
def test_our_table_names_what_is_there(name):
    assert load_command(name).__name__.lower() == name


def test_the_reproduction_is_a_command_like_any_other_package_s():
    assert "paper" not in COMMANDS
    assert load_command("paper").__module__ == "waterbed_paper.command"
