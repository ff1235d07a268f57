"""Files: written whole or not at all, JSON that says null, folders made before the work, one digest."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from waterbed.errors import UsageError


def to_json(content: Any) -> str:
    """JSON with null for what is not finite, which JSON cannot say."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(v) for v in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(clean(content), indent=2, allow_nan=False) + "\n"


def make_folder(path: str | Path, argument: str = "out") -> Path:
    """Make a folder to write into; :class:`UsageError` if that is not possible."""
    path = Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{argument}={str(path)!r} cannot be made ({error.strerror}); choose another") from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"{argument}={str(path)!r} is not writable; choose another folder or change its rights")
    return path


def write_atomic(path: str | Path, content: bytes) -> None:
    """Write a whole file or leave the one that was there: a full disk loses nothing."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary.is_file():
            temporary.unlink()
        raise UsageError(f"cannot write {str(path)!r} ({error.strerror}); make room or choose another out=") from error
