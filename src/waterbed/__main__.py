"""The entry point: parses the command line, runs the command, reports errors in one line."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from waterbed.cli.output import is_first_process
from waterbed.cli.parsing import parse
from waterbed.errors import DivergenceError, StoppedError, UsageError, UsageTypeError, UsageWarning


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (training diverged), 2 (usage error), 130 (interrupted)
    or 143 (stopped by SIGTERM)."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        with _warnings_as_lines(), _printing():
            command = parse(args)
            if command is not None:
                command()
    except (UsageError, UsageTypeError) as error:
        return _fail(str(error), 2)
    except BrokenPipeError:  # whoever reads our output has closed it, as in "| head"
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'a file'!s}: {error.strerror or error}; check path, permissions, space", 2)
    except DivergenceError as error:
        return _fail(str(error), 1)
    except StoppedError as error:
        return _fail(str(error), 143)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command with the same --out continues from what was saved", 130)
    return 0


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """A warning of ours is one line, once; those of other packages are shown as ever."""
    lines = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def print_line(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if not issubclass(category, UsageWarning):
                show(message, category, *rest)
            elif str(message) not in lines:
                lines.add(str(message))
                print(f"waterbed: warning: {message}", file=sys.stderr)

        warnings.showwarning = print_line
        yield


@contextmanager
def _printing() -> Iterator[None]:
    """Of several processes, which have the same results, the first prints them."""
    if is_first_process():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def _fail(line: str, code: int) -> int:
    print(f"waterbed: error: {' '.join(line.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
