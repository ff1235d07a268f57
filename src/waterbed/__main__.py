"""The entry point: parses the command line, runs a command, turns a wrong use into one line and exit code 2."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Union

from waterbed.cli.options import from_config
from waterbed.errors import DivergenceError, StoppedError, UsageError, UsageTypeError, check_choice

ABOUT = (
    "Train robust representations, measure the information they keep, invert them, find where they transfer. "
    "Every command also takes --config FILE.toml (values for its options; the command line wins) and --print-config "
    "(shows them as TOML and stops)."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (training diverged), 2 (wrong use), 130 (interrupted)
    or 143 (stopped by SIGTERM)."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        command = parse(args)
        if command is not None:
            command()
    except (UsageError, UsageTypeError) as error:
        return _complain(str(error), 2)
    except BrokenPipeError:  # the reader of our output has left, as in "| head"
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except OSError as error:
        return _complain(f"{error.filename or 'a file'!s}: {error.strerror or error}; check path, rights and space", 2)
    except DivergenceError as error:
        return _complain(str(error), 1)
    except StoppedError as error:
        return _complain(str(error), 143)
    except KeyboardInterrupt:
        return _complain("interrupted; what was saved is kept, and the same command with the same --out goes on", 130)
    return 0


def _complain(line: str, code: int) -> int:
    print(f"waterbed: error: {' '.join(line.split())}", file=sys.stderr)
    return code


def parse(args: list[str]) -> Any:
    """The command with its options; None if there is nothing left to run (--version, --print-config)."""
    import tyro

    from waterbed.cli import commands

    if args == ["--version"]:
        from waterbed import __version__

        return print(f"waterbed {__version__}")
    if not args or args[0] in ("-h", "--help"):
        commands = Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in commands().items())]  # noqa: UP007
        return tyro.cli(commands, prog="waterbed", args=["--help"], description=ABOUT)
    check_choice("command", args[0], commands())
    kind = commands()[args[0]]
    rest, config, print_config = _own_options(args[1:])
    default = from_config(kind, config) if config else None
    command = _tyro(kind, rest, f"waterbed {args[0]}", default)
    if print_config:
        import tomli_w

        return print(tomli_w.dumps({k: v for k, v in asdict(command).items() if v is not None}), end="")
    return command


def _tyro(kind: type, args: list[str], prog: str, default: Any) -> Any:
    """tyro's parser, its boxed message made one line."""
    import tyro

    if "-h" in args or "--help" in args:
        return tyro.cli(kind, prog=prog, args=args, default=default or tyro.MISSING_NONPROP)
    boxed, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "2000"  # nothing is wrapped, so the box has one line a sentence
    try:
        with redirect_stderr(boxed):
            return tyro.cli(kind, prog=prog, args=args, default=default or tyro.MISSING_NONPROP)
    except SystemExit as stop:
        said = _first_part(boxed.getvalue())
        raise UsageError(f"{said}; see {prog} --help") from stop
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _first_part(boxed: str) -> str:
    """What stands in a box up to its first rule, as one line; the title and the hints are left out."""
    content: list[str] = []
    for line in boxed.splitlines()[1:]:
        text = line.strip("│╭╮╰╯─ ")
        if text.strip("-"):
            content.append(text)
        elif content:
            break
    return " ".join(content)


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


if __name__ == "__main__":
    sys.exit(main())
