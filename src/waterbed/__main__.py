"""The entry point: parses the command line, runs the command, reports errors in one line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from waterbed.cli.output import Patient, is_first_process, say
from waterbed.cli.parsing import parse, without_flags
from waterbed.cli.wording import as_typed
from waterbed.errors import DivergenceError, StoppedError, UsageError, UsageTypeError, UsageWarning
from waterbed.files import WRITTEN, to_json
from waterbed.progress import silence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (training diverged), 2 (usage error), 130 (interrupted)
    or 143 (stopped by SIGTERM)."""
    args = list(sys.argv[1:] if argv is None else argv)
    stdout, stderr = Patient(sys.stdout), Patient(sys.stderr)
    with redirect_stdout(stdout), redirect_stderr(stderr):
        code = _run(args)
        stdout.flush()
        stderr.flush()
        if code == 0 and stdout.failure is not None and not isinstance(stdout.failure, BrokenPipeError):
            reason = getattr(stdout.failure, "strerror", None) or stdout.failure
            return _fail(f"standard output cannot be written ({reason}); files that the command writes are whole", 2)
    return code


def _run(args: list[str]) -> int:
    command, before = None, len(WRITTEN)
    args, as_json, quiet = without_flags(args)

    def in_its_words(message: Any) -> str:
        return str(message) if command is None else as_typed(str(message), command)

    try:
        quietly = silence() if quiet else nullcontext()
        with _warnings_as_lines(in_its_words), _printing(is_first_process()), _sigterm_raises(), quietly:
            command = parse(args)
            if command is not None:
                with _printing(not as_json):
                    result = command()
                if as_json:
                    print(to_json(result), end="")
    except (UsageError, UsageTypeError) as error:
        return _fail(in_its_words(error), 2)
    except OSError as error:
        return _fail(f"{error.filename or 'a file'!s}: {error.strerror or error}; check path, permissions, space", 2)
    except DivergenceError as error:
        return _fail(str(error), 1)
    except StoppedError as error:  # of a training; one without a folder is part of what the command keeps itself
        return _fail(str(error) if error.saved else f"asked to stop; {_kept(command, WRITTEN[before:])}", 143)
    except KeyboardInterrupt:
        return _fail(f"interrupted; {_kept(command, WRITTEN[before:])}", 130)
    except Terminated:
        return _fail(f"asked to stop; {_kept(command, WRITTEN[before:])}", 143)
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        first = next(iter(str(error).splitlines()), "no size known")
        return _fail(f"out of memory ({first}); take smaller images, batches or samples", 2)
    return 0


def _is_of_memory(error: Exception) -> bool:
    """Whether an allocation failed: in Python, or in torch, which has an exception of its own for GPUs alone."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text


class Terminated(BaseException):
    """SIGTERM, as schedulers send it, outside a training, which saves its state first."""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM raises :class:`Terminated` in this process; those that it forks end as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _kept(command: Any, written: list[Path]) -> str:
    """What an interrupted command has left, and how to go on."""
    files = list(dict.fromkeys(path for path in written if path.exists()))
    if not files:
        return "nothing had been written; the same command begins again"
    kept = f"{files[-1]} is kept" if len(files) == 1 else f"{len(files)} files are kept, the last {files[-1]}"
    again = "goes on from there" if getattr(command, "goes_on", lambda: False)() else "begins again"
    return f"{kept}; the same command {again}"


@contextmanager
def _warnings_as_lines(in_its_words: Callable[[Any], str]) -> Iterator[None]:
    """A warning of ours is one line, once; those of other packages are shown as ever."""
    lines = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def print_line(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if not issubclass(category, UsageWarning):
                show(message, category, *rest)
            elif str(message) not in lines:
                lines.add(str(message))
                say(f"waterbed: warning: {in_its_words(message)}", sys.stderr)

        warnings.showwarning = print_line
        yield


@contextmanager
def _printing(enabled: bool) -> Iterator[None]:
    """Whether anything is printed: of several processes, which have the same results, the first prints them, and with
    --json only what a command returns is."""
    if enabled:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def _fail(line: str, code: int) -> int:
    say(f"waterbed: error: {' '.join(line.split())}", sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
