"""Weights in Hugging Face repositories: read from the local cache, downloaded on request, and published."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from waterbed.errors import UsageError

PREFIX = "hf:"
# The names of weights files in repositories that need not be named, the safe format first.
WEIGHTS = ("model.safetensors", "weights.safetensors", "pytorch_model.bin")
# Suffixes of weights files, which names of repositories do not have.
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
OWNER_AND_NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"


@dataclass(frozen=True)
class Address:
    """A repository "owner/name", a branch, tag or commit of it (None for its main branch), and a file (None: none)."""

    repository: str
    revision: str | None
    file: str | None


def is_repository(name: str | Path) -> bool:
    """Whether a name is that of a repository: "owner/name", or anything that starts with "hf:".

    >>> is_repository("timm/resnet18.a1_in1k"), is_repository("runs/weights.safetensors"), is_repository("hf:a/b:c.pt")
    (True, False, True)
    """
    name = str(name)
    return name.startswith(PREFIX) or (re.fullmatch(OWNER_AND_NAME, name) is not None and not name.endswith(SUFFIXES))


def parse_address(name: str) -> Address:
    """The parts of "owner/name", "hf:owner/name", "hf:owner/name:file" or "hf:owner/name@revision:file".

    Raises:
        UsageError: a name of another form.

    >>> parse_address("hf:owner/name@v1:folder/net.ckpt")
    Address(repository='owner/name', revision='v1', file='folder/net.ckpt')
    """
    match = re.fullmatch(rf"({OWNER_AND_NAME})(?:@([^:@]+))?(?::(.+))?", name.removeprefix(PREFIX))
    if match is None:
        raise UsageError(
            f"path_or_name={name!r} is no Hugging Face repository; write it as 'owner/name' or "
            "'hf:owner/name@revision:file'"
        )
    return Address(match[1], match[2], match[3])


def find_weights(name: str, download: bool) -> tuple[Path, dict[str, Any]] | None:
    """A repository's weights on this machine, with our card beside them if it has one, and its config.json.

    Args:
        name: see :func:`parse_address`; without a file, one of ``WEIGHTS``.
        download: fetch what the local cache lacks; False makes no connection.

    Returns:
        None if the local cache has nothing of the repository and ``download`` is False.

    Raises:
        UsageError: huggingface_hub is not installed, the repository cannot be reached or lacks such a file.
    """
    address = parse_address(name)
    for file in WEIGHTS if address.file is None else (address.file,):
        path = _fetch(name, address, file, download)
        if path is not None:
            break
    else:
        files = list_files(name, download)
        if files is None:
            return None
        raise UsageError(_lacking(name, address, files, download))
    if path.suffix == ".safetensors":
        _fetch(name, address, str(Path(file).with_suffix(".json")), download)
    # The file beside standard weights describes them; beside others it may describe something else.
    config = _fetch(name, address, "config.json", download) if file in WEIGHTS else None
    try:
        content = json.loads(config.read_text()) if config is not None else {}
    except (OSError, ValueError) as error:
        raise UsageError(f"config.json of {name!r} is damaged ({type(error).__name__}); fetch it again") from error
    return path, content if isinstance(content, dict) else {}


def list_files(name: str, download: bool) -> list[str] | None:
    """A repository's weights files, or those in the local cache; None if that has nothing of it."""
    address, hub = parse_address(name), _library(name)
    if download:
        try:
            files = hub.HfApi().list_repo_files(address.repository, revision=address.revision)
        except Exception as error:  # of the connection, the server or the name
            raise _unreachable(name, error) from error
    else:
        files = _cached_files(address, hub)
    return None if files is None else sorted(file for file in files if file.endswith(SUFFIXES))


def _cached_files(address: Address, hub: ModuleType) -> list[str] | None:
    """The files of a repository in the local cache; None if it has nothing of that revision."""
    try:
        cached = hub.scan_cache_dir(hub.constants.HF_HUB_CACHE).repos
    except hub.errors.CacheNotFound:
        return None
    wanted = address.revision or "main"
    for repository in cached:
        for revision in repository.revisions:
            if repository.repo_id == address.repository and wanted in {revision.commit_hash, *revision.refs}:
                return [str(file.file_path.relative_to(revision.snapshot_path)) for file in revision.files]
    return None


def publish(
    repository: str, files: Mapping[str, bytes | Path], message: str, private: bool | None, token: str | None
) -> str:
    """Create the repository where there is none, and put ``files`` (by their names in it) there in one commit.

    Returns:
        The address of its page.

    Raises:
        UsageError: another form of name, huggingface_hub missing, no permission, no connection.
    """
    hub = check_repository(repository)
    api = hub.HfApi(token=token)
    try:
        page = api.create_repo(repository, private=private, exist_ok=True)
        added = [hub.CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(repository, added, commit_message=message)
    except Exception as error:  # of the connection, the server or the permissions
        raise UsageError(
            f"repo_id={repository!r} cannot be written ({_reason(error, token or hub.get_token())}); check the "
            "name, the connection and the token (`hf auth login`, or HF_TOKEN)"
        ) from error
    return str(page)


def check_repository(repository: str) -> ModuleType:
    """Raise unless this is the name of a repository, and huggingface_hub, which is returned, is installed."""
    if re.fullmatch(OWNER_AND_NAME, str(repository)) is None:
        raise UsageError(f"repo_id={repository!r} is no name of a repository; write it as 'owner/name'")
    return _library(repository, "repo_id")


def _fetch(name: str, address: Address, file: str, download: bool) -> Path | None:
    """One file's path in the local cache; None if the repository (or, without ``download``, the cache) lacks it."""
    hub = _library(name)
    if not download:  # hf_hub_download(local_files_only=True) makes a connection: it looks up who calls
        path = hub.try_to_load_from_cache(address.repository, file, revision=address.revision)
        return Path(path) if isinstance(path, str) else None
    try:
        path = hub.hf_hub_download(address.repository, file, revision=address.revision)
    except hub.errors.LocalEntryNotFoundError as error:  # the hub cannot be reached, and the cache has no copy
        raise _unreachable(name, error) from error
    except hub.errors.EntryNotFoundError:
        return None
    except Exception as error:  # of the connection, the server or the name
        raise _unreachable(name, error) from error
    return Path(path)


def _library(name: str, argument: str = "path_or_name") -> ModuleType:
    """huggingface_hub."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise UsageError(f"{argument}={name!r} needs huggingface_hub; pip install huggingface_hub") from error
    return huggingface_hub


def _lacking(name: str, address: Address, files: list[str], download: bool) -> str:
    """What a repository, or the cache's part of it, has instead of the weights asked for."""
    wanted = f"no file {address.file!r}" if address.file else f"none of {', '.join(WEIGHTS)}"
    if not download:
        listed = f", but {', '.join(files)}" if files else ""
        return f"path_or_name={name!r} has {wanted} in the local cache{listed}; pass download=True"
    if not files:
        return f"path_or_name={name!r} has {wanted}, and no other weights; name another repository"
    revision = f"@{address.revision}" if address.revision else ""
    example = f"{PREFIX}{address.repository}{revision}:{files[0]}"
    return f"path_or_name={name!r} has {wanted}, but {', '.join(files)}; name one, such as {example!r}"


def _unreachable(name: str, error: Exception) -> UsageError:
    import huggingface_hub

    return UsageError(
        f"path_or_name={name!r} cannot be fetched from Hugging Face ({_reason(error, huggingface_hub.get_token())}); "
        "check the name, the connection and, for a private repository, the token, or name a file on this machine"
    )


def _reason(error: Exception, token: str | None) -> str:
    """An error's type and first line, without the token; those of its cause, where it is none of the server's."""
    if error.__cause__ is not None and not hasattr(error, "response"):
        error = error.__cause__
    reason = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0][:300]
    return reason.replace(token, "***") if token else reason
