"""Options made from a dataclass of settings."""

from dataclasses import dataclass, field, fields

import pytest

from waterbed.cli.options import options_of, values_of
from waterbed.cli.parsing import parse_options


@dataclass(frozen=True)
class Settings:
    rate: float = field(default=0.1, metadata={"help": "learning rate"})
    kind: str = field(default="a", metadata={"help": "a or b", "choices": ("a", "b")})
    names: tuple[object, ...] = field(default=(), metadata={"help": "names or objects"})


@dataclass(kw_only=True)
class Command(options_of(Settings(rate=0.5), names=tuple[str, ...])):
    """A command."""

    out: str


def test_defaults_are_those_of_the_instance_and_values_go_back():
    assert [f.name for f in fields(Command)] == ["rate", "kind", "names", "out"]
    command = parse_options(Command, ["--out", "o", "--names", "x", "y"], "test")
    assert values_of(Settings, command) == {"rate": 0.5, "kind": "a", "names": ("x", "y")}
    assert Settings(**values_of(Settings, command)) == Settings(0.5, "a", ("x", "y"))


def test_help_lines_are_sentences_but_choices_stay_as_they_are_typed(capsys):
    with pytest.raises(SystemExit):
        parse_options(Command, ["--help"], "test")
    printed = capsys.readouterr().out
    assert "Learning rate. (default: 0.5)" in printed
    assert "a or b. (default: a)" in printed
