"""Files: atomic writes, locks, JSON with null for NaN, TOML, output folders, and the one digest."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from waterbed.errors import UsageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


def to_json(content: Any) -> str:
    """JSON, with null for NaN and infinity, which JSON lacks.

    >>> print(to_json({"loss": float("nan")}), end="")
    {
      "loss": null
    }
    """

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(clean(content), indent=2, allow_nan=False) + "\n"


def read_toml(path: Path | Traversable) -> dict[str, Any]:
    """The content of a TOML file, which may be one that comes with a package.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not TOML; callers say what the file is for.
    """
    with path.open("rb") as file:
        return tomllib.load(file)


def digest(parts: Iterable[bytes | str]) -> str:
    """SHA-256 of the parts one after the other, in hexadecimal. Recorded in files, so its values must not change.

    >>> digest(["a", b"bc"])[:16]
    'ba7816bf8f01cfea'
    """
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() if isinstance(part, str) else part)
    return total.hexdigest()


def make_folder(path: str | Path, argument: str = "out") -> Path:
    """Create a folder to write to, with its parents.

    Args:
        path: may start with ``~``.
        argument: its name in messages.

    Raises:
        UsageError: the folder cannot be created or is not writable.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_folder(Path(folder) / "runs" / "first").is_dir()
    True
    """
    path = expanded(path, argument)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{argument}={str(path)!r} cannot be created ({error.strerror}); choose another") from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"{argument}={str(path)!r} is not writable; choose another folder or change its permissions")
    return path


def expanded(path: str | Path, argument: str = "out") -> Path:
    """The path with ``~`` resolved; :class:`UsageError` where it cannot name a file: empty, a NUL, an unknown user."""
    text = str(path)
    if not text.strip() or "\0" in text:
        raise UsageError(f"{argument}={text!r} is no path; name a file or folder")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{argument}={text!r} names an unknown user; name another path") from error


def check_output(
    path: str | Path, is_ours: Callable[[bytes], bool], force: bool = False, argument: str = "out"
) -> Path:
    """The path of a file that will be written, checked before the work; its folder is made.

    Args:
        is_ours: whether a file's content was written by the same function, so that it may be replaced.
        force: replace whatever file there is.

    Raises:
        UsageError: no path, a folder, a device, no permission, or a file of the user's own.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "thesis.html").write_text("<h1>Thesis</h1>")
    ...     check_output(f"{folder}/thesis.html", starts_with(b"our mark"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: out='.../thesis.html' exists and was not written by this command; ...
    """
    path = expanded(path, argument)
    named = f"{argument}={str(path)!r}"
    try:
        if path.name in ("", "..") or path.is_dir():
            raise UsageError(f"{named} is a folder; name a file in it")
        make_folder(path.parent, argument)
        there = path.exists()
    except OSError as error:
        raise UsageError(f"{named} cannot be written ({error.strerror}); choose another") from error
    if there and not path.is_file():
        raise UsageError(f"{named} is no regular file; choose another")
    if there and not os.access(path, os.W_OK | os.R_OK):
        raise UsageError(f"{named} is not writable; choose another or change its permissions")
    if there and not force and path.stat().st_size and not is_ours(path.read_bytes()):
        raise UsageError(
            f"{named} exists and was not written by this command; choose another, or replace it with force=True "
            "(--force)"
        )
    return path


def starts_with(mark: bytes) -> Callable[[bytes], bool]:
    """Whether a file has this mark in its first 1000 bytes."""
    return lambda content: mark in content[:1000]


def is_json_of(*keys: str, **values: Any) -> Callable[[bytes], bool]:
    """Whether a file holds a JSON object with these keys, and with these values."""

    def check(content: bytes) -> bool:
        try:
            found = json.loads(content)
        except ValueError:
            return False
        return isinstance(found, dict) and set(keys) <= set(found) and values.items() <= found.items()

    return check


WRITTEN: list[Path] = []  # by this process, for what is said when it is stopped


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a file completely or not at all: where that fails, as on a full disk, an earlier file is left intact.

    Raises:
        UsageError: the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomic(Path(folder) / "a.txt", b"content")
    ...     (Path(folder) / "a.txt").read_bytes()
    b'content'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace_file(temporary, path)
        WRITTEN.append(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"cannot write {str(path)!r} ({error.strerror}); make room or choose another out=") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_file(file: Path, target: Path) -> None:
    """Rename over what is there, so that it holds after a power failure, too."""
    os.replace(file, target)
    if hasattr(os, "O_DIRECTORY"):  # elsewhere folders cannot be opened
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that do not know it
                raise
        finally:
            os.close(folder)


def check_room(folder: Path, size: int, argument: str = "out") -> None:
    """Raise :class:`UsageError` if fewer bytes than ``size`` are free where a folder is, or will be.

    >>> check_room(Path("runs/robust"), 2**70)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: out='runs/robust' needs about 1.18e+12 GB, and ... GB are free; ...
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        needed, left = (f"{number / 1e9:,.3g} GB" for number in (size, free))
        raise UsageError(
            f"{argument}={str(folder)!r} needs about {needed}, and {left} are free; make room or choose another"
        )


def remainders(folder: Path) -> list[Path]:
    """What killed processes left in a folder: the temporary files of :func:`write_atomic`, and locks."""
    return [f for f in folder.iterdir() if f.is_file() and re.fullmatch(r"\..+\.\d+\.tmp|\.lock", f.name)]


@contextmanager
def locked(path: Path, wait: bool = True, guarded: Path | None = None) -> Iterator[None]:
    """Hold the lock file ``path``, which the system releases when its process ends, however it ends.

    Args:
        wait: until another process releases it.
        guarded: what it is the lock of, for the message; its folder by default.

    Raises:
        UsageError: with ``wait`` False, if another process holds it; or the lock cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout as error:
        raise UsageError(
            f"out={str(guarded or path.parent)!r} is being written by another process; wait, or choose another"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r} ({error.strerror}); choose another out=") from error
    try:
        yield
    finally:
        lock.release()
