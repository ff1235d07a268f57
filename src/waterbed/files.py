"""Files: atomic writes, locks, JSON with null for NaN, TOML, output folders, and the one digest."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
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
    path = Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{argument}={str(path)!r} cannot be created ({error.strerror}); choose another") from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"{argument}={str(path)!r} is not writable; choose another folder or change its permissions")
    return path


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
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"cannot write {str(path)!r} ({error.strerror}); make room or choose another out=") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remainders(folder: Path) -> list[Path]:
    """What killed processes left in a folder: the temporary files of :func:`write_atomic`, and locks."""
    return [f for f in folder.iterdir() if f.is_file() and re.fullmatch(r"\..+\.\d+\.tmp|\.lock", f.name)]


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock file ``path``, which the system releases when its process ends, however it ends.

    Raises:
        UsageError: with ``wait`` False, if another process holds it; or the lock cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout as error:
        folder = str(path.parent)
        raise UsageError(f"out={folder!r} is being written by another process; wait, or choose another") from error
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r} ({error.strerror}); choose another out=") from error
    try:
        yield
    finally:
        lock.release()
