"""The entry point: parses the command line, runs a command, turns a wrong use into one line and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from waterbed.cli.parsing import parse
from waterbed.errors import DivergenceError, StoppedError, UsageError, UsageTypeError


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
        return _complain("interrupted; the same command with the same --out continues from what was saved", 130)
    return 0


def _complain(line: str, code: int) -> int:
    print(f"waterbed: error: {' '.join(line.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
