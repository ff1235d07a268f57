"""completion: commands, options and files at the press of the tab key."""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from textwrap import dedent
from typing import Annotated, Any, get_type_hints

from tyro.conf import Positional, arg

SHELLS = ("bash", "zsh", "fish")
FILES = frozenset(
    (
        *("backbones", "checkpoint", "config", "data", "distances", "extractor", "file", "images", "name"),
        *("networks", "out", "recipe", "root", "runs", "target", "targets"),
    )
)
FLAGS = {
    "print-config": "Print the options as TOML and stop",
    "json": "Print results as JSON",
    "quiet": "No progress, no notes",
}


@dataclass
class Completion:
    """Print the completion of commands, options and files for a shell: eval "$(waterbed completion bash)"."""

    shell: Annotated[Positional[str], arg(metavar="SHELL")]
    """bash, zsh or fish."""

    def __call__(self) -> Any:
        from waterbed.errors import UsageError, check_choice

        check_choice("shell", self.shell, SHELLS)
        try:
            import shtab
        except ImportError as error:
            raise UsageError("completion needs the package shtab; pip install 'waterbed[completion]'") from error
        script = shtab.complete(argument_parser(shtab.FILE), self.shell)
        print(script)
        return {"shell": self.shell, "script": script}


def argument_parser(files: dict[str, str]) -> argparse.ArgumentParser:
    """Every command with its options, as argparse has them; commands that cannot be loaded are left out.

    Args:
        files: how an argument that names a file is completed.
    """
    from waterbed.cli.commands import load_command, summaries
    from waterbed.errors import UsageError

    parser = argparse.ArgumentParser("waterbed")
    parser.add_argument("--version", action="store_true", help="Print the version")
    commands = parser.add_subparsers()
    for name, summary in summaries().items():
        try:
            kind = load_command(name)
        except UsageError:
            continue
        _add_options(commands.add_parser(name, help=_plain(summary)), kind, files)
    return parser


def _add_options(parser: argparse.ArgumentParser, kind: type, files: dict[str, str]) -> None:
    """The fields of a command: an option each, or a positional argument."""
    hints, helps = get_type_hints(kind, include_extras=True), dict(_help_lines(kind))
    for f in fields(kind):
        extras = getattr(hints[f.name], "__metadata__", ())
        text = next((e.help for e in extras if getattr(e, "help", None)), None) or helps.get(f.name, "")
        settings: dict[str, Any] = {"help": _plain(text)}
        option = f.name.replace("_", "-")
        if isinstance(f.default, bool):
            parser.add_argument(f"--{option}", action=argparse.BooleanOptionalAction, **settings)
            continue
        if f.metadata.get("choices"):
            settings["choices"] = list(f.metadata["choices"])
        if f.name == "shell":
            settings["choices"] = list(SHELLS)
        if "tuple" in str(hints[f.name]):
            settings["nargs"] = "*"
        action = parser.add_argument(f.name if Positional in extras else f"--{option}", **settings)
        if f.name in FILES:
            action.complete = files
    known = {f.name for f in fields(kind)}
    if getattr(kind, "NAMES_DATA", None) is not None and "data" not in known | {"name"}:
        parser.add_argument("--data", nargs="*", help="The data").complete = files
    parser.add_argument("--config", help="Values for the options, in a TOML file").complete = files
    for option, text in FLAGS.items():
        parser.add_argument(f"--{option}", help=text, action="store_true")


def _help_lines(kind: type) -> Iterator[tuple[str, str]]:
    """The string below each field in the source of a command and its bases."""
    for base in reversed(kind.__mro__):
        try:
            (definition,) = ast.parse(dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError):  # made by make_dataclass, whose fields bring their own
            continue
        body = getattr(definition, "body", [])
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(getattr(below, "value", None), ast.Constant):
                yield ast.unparse(field.target), str(below.value.value)


def _plain(text: str) -> str:
    """The first sentence, which a shell shows beside an option."""
    return " ".join(text.split()).split(". ")[0].replace("%", "%%")
