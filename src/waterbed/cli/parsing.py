"""From the words of a command line to a command with its options."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from waterbed.cli.commands import load_command, shadowed, summaries
from waterbed.cli.options import as_shown, from_config
from waterbed.cli.output import note
from waterbed.errors import UsageError

ABOUT = (
    "Train robust representations, measure the information they keep, invert them, find where they transfer. "
    "Every command also takes --config FILE.toml (values for its options; the command line wins), --print-config "
    "(prints them as TOML and stops), --json (prints results as JSON), --quiet (no progress, no notes), and --data for "
    "the data it is about."
)


def parse(args: list[str]) -> Any:
    """The command with its options; None if there is nothing left to run (--help, --version, --print-config)."""
    if args == ["--version"]:
        from waterbed import __version__

        return print(f"waterbed {__version__}")
    if not args or args[0] in ("-h", "--help"):
        return _print_overview()
    kind = load_command(args[0])
    _print_notes(shadowed(args[0]))
    rest, config, print_config = _own_options(_with_data(kind, args[1:]))
    default = from_config(kind, config) if config else None
    command = parse_options(kind, rest, f"waterbed {args[0]}", default)
    if print_config:
        import tomli_w

        values = asdict(command) | getattr(command, "in_force", dict)()
        return print(tomli_w.dumps({k: v for k, v in values.items() if v is not None}), end="")
    return command


def without_flags(args: list[str]) -> tuple[list[str], bool, bool]:
    """Take --json and --quiet out of the arguments: what every command has.

    >>> without_flags(["measure", "--json", "run"])
    (['measure', 'run'], True, False)
    """
    return [word for word in args if word not in ("--json", "--quiet")], "--json" in args, "--quiet" in args


def _with_data(kind: type, args: list[str]) -> list[str]:
    """Arguments in which --data stands for the option that names the data of a command, if that is another."""
    option = getattr(kind, "NAMES_DATA", None)
    if option is None:
        return args
    words = [part for word in args for part in (word.split("=", 1) if word.startswith("--data=") else [word])]
    if "--data" not in words:
        return args
    at = words.index("--data")
    if option:
        return [*words[:at], option, *words[at + 1 :]]
    end = next((i for i in range(at + 1, len(words)) if words[i].startswith("--")), len(words))
    # A positional argument comes first, before an option that takes several words could take it.
    return [*words[at + 1 : end], *words[:at], *words[end:]]


def parse_options(kind: type, args: list[str], prog: str, default: Any = None) -> Any:
    """An instance of the dataclass from command-line words; ``default`` gives values for what they leave out.

    Raises:
        UsageError: tyro refuses the words; its message, which it prints in a box, as one line.
    """
    import tyro

    if "-h" in args or "--help" in args:
        shown = as_shown(kind)
        given = tyro.MISSING_NONPROP if default is None else shown(**vars(default))
        return tyro.cli(shown, prog=prog, args=args, default=given)
    default = tyro.MISSING_NONPROP if default is None else default
    box, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "2000"  # nothing is wrapped: one line of the box is one of the message
    try:
        with redirect_stderr(box):
            return tyro.cli(kind, prog=prog, args=args, default=default)
    except SystemExit as stop:
        raise UsageError(f"{_message(box.getvalue())}{_meant(kind, args)}; see {prog} --help") from stop
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _meant(kind: type, args: list[str]) -> str:
    """The option nearest to the first one that the command does not have."""
    options = [f"--{field.name.replace('_', '-')}" for field in fields(kind)]
    for word in (word.partition("=")[0].replace("_", "-") for word in args if word.startswith("--")):
        if word not in options and word.replace("--no-", "--", 1) not in options:
            near = get_close_matches(word, options, 1)
            return f" (did you mean {near[0]}?)" if near else ""
    return ""


def _message(box: str) -> str:
    """What stands in a box between its title and its first rule, below which are hints."""
    lines: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip("│╭╮╰╯─ ")
        if text.strip("-"):
            lines.append(text)
        elif lines:
            break
    return " ".join(lines)


def _own_options(args: list[str]) -> tuple[list[str], Path | None, bool]:
    """Take --config FILE and --print-config out of the arguments."""
    rest, config, print_config = [], None, False
    remaining = iter(args)
    for word in remaining:
        if word == "--print-config":
            print_config = True
        elif word == "--config" or word.startswith("--config="):
            value = word.partition("=")[2] or next(remaining, None)
            if not value:
                raise UsageError("--config needs a file; write --config FILE.toml")
            config = Path(value)
        else:
            rest.append(word)
    return rest, config, print_config


def _print_overview() -> None:
    """Usage, and every command with one line."""
    from rich.console import Console
    from rich.table import Table

    lines = summaries()
    table = Table.grid(padding=(0, 2), pad_edge=True)
    for name, line in lines.items():
        table.add_row(name, line)
    console = Console(highlight=False, markup=False)
    console.print("usage: waterbed COMMAND [OPTIONS]\n       waterbed [COMMAND] --help\n       waterbed --version\n")
    console.print(f"{ABOUT}\n\ncommands:")
    console.print(table)
    _print_notes([line for name in lines for line in shadowed(name)])


def _print_notes(notes: list[str]) -> None:
    for line in notes:
        note(line)
