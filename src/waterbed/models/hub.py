"""Weights from a Hugging Face repository: from the local cache, or downloaded on request."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from waterbed.errors import UsageError

# The names of weights files in repositories, the safe format first.
WEIGHTS = ("model.safetensors", "weights.safetensors", "pytorch_model.bin")
# Suffixes of files, which names of repositories do not have.
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def is_repository(name: str | Path) -> bool:
    """Whether a name has the form of a repository, "owner/name".

    >>> is_repository("timm/resnet18.a1_in1k"), is_repository("runs/weights.safetensors")
    (True, False)
    """
    name = str(name)
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None and not name.endswith(SUFFIXES)


def find_weights(repository: str, download: bool) -> tuple[Path, dict[str, Any]] | None:
    """A repository's weights on this machine, with our card beside them if it has one, and its config.json.

    Args:
        download: fetch what the local cache lacks; False makes no connection.

    Returns:
        None if the local cache has nothing and ``download`` is False.

    Raises:
        UsageError: huggingface_hub is not installed, the repository cannot be reached or has no weights.
    """
    for name in WEIGHTS:
        path = _fetch(repository, name, download)
        if path is not None:
            break
    else:
        if not download:
            return None
        raise UsageError(f"path_or_name={repository!r} has none of {', '.join(WEIGHTS)}; name another repository")
    if path.suffix == ".safetensors":
        _fetch(repository, Path(name).with_suffix(".json").name, download)
    config = _fetch(repository, "config.json", download)
    try:
        content = json.loads(config.read_text()) if config is not None else {}
    except (OSError, ValueError) as error:
        raise UsageError(
            f"config.json of {repository!r} is damaged ({type(error).__name__}); fetch it again"
        ) from error
    return path, content if isinstance(content, dict) else {}


def _fetch(repository: str, name: str, download: bool) -> Path | None:
    """One file's path in the local cache; None if the repository (or, without ``download``, the cache) lacks it."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise UsageError(f"path_or_name={repository!r} needs huggingface_hub; pip install huggingface_hub") from error
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, local_files_only=not download))
    except EntryNotFoundError as error:
        # If the hub cannot be reached, this error means that the cache has no copy either.
        if download and isinstance(error, LocalEntryNotFoundError):
            raise _unreachable(repository, error) from error
        return None
    except (OSError, ValueError) as error:
        raise _unreachable(repository, error) from error


def _unreachable(repository: str, error: Exception) -> UsageError:
    reason = str(error).strip().split("\n")[0][:200]
    return UsageError(
        f"path_or_name={repository!r} cannot be fetched from Hugging Face ({type(error).__name__}: {reason}); "
        "check the name and the connection"
    )
