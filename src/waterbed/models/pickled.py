"""PyTorch's pickled files: read without running code, or, where the user trusts them, by unpickling."""

from __future__ import annotations

import pickle
import pickletools
import re
import shlex
import warnings
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import torch

from waterbed.errors import UsageError

# Modules whose classes and functions plain weights need.
HARMLESS = ("torch", "collections", "builtins", "__builtin__", "_codecs")


def unpickle(path: Path, trust: bool = False) -> Any:
    """The content of a file that ``torch.save`` wrote, on the CPU.

    Args:
        path: a .pt, .pth or .bin file, of the zip format or the older one.
        trust: restore whatever the file holds, which can run its code; classes that are not installed become empty
            stand-ins. Otherwise only tensors and plain containers are read.

    Raises:
        UsageError: no such file, a damaged one, or one that holds more than weights and is not trusted.
    """
    _check_kind(path)
    names = global_names(path)
    dilled = any(name.startswith("dill.") for name in names)
    settings = {"weights_only": False, "pickle_module": _lenient(path, dilled)} if trust else {"weights_only": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how torch reads old or sparse tensors
            return torch.load(path, map_location="cpu", **settings)
    except Exception as error:  # a torn or foreign file can fail in any way
        culprit = None if trust else _culprit(error, names)
        if culprit is None:
            raise UsageError(
                f"the file {str(path)!r} cannot be read ({_first_line(error)}); copy or download it again"
            ) from error
        saved_with = " (saved with dill)" if dilled else ""
        raise UsageError(
            f"the file {str(path)!r} holds more than weights: {culprit!r}{saved_with} is restored only by unpickling, "
            "which can run code of the file; if you trust its origin, "
            f"`waterbed convert {shlex.quote(str(path))} --out NAME.safetensors --trust` unpickles it once and saves "
            "the weights safely"
        ) from error


def global_names(path: Path) -> list[str]:
    """Classes and functions that a pickled file names, read from its opcodes without executing them.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "net.pt"
    >>> torch.save({"p": pathlib.PurePosixPath("a")}, file)
    >>> global_names(file)
    ['pathlib.PurePosixPath']
    """
    names: list[str] = []
    try:
        with open(path, "rb") as file:
            for stream in _pickles(file):
                strings: list[str] = []
                for opcode, argument, _ in pickletools.genops(stream):
                    if opcode.name == "GLOBAL":
                        names.append(argument.replace(" ", "."))
                    elif opcode.name == "STACK_GLOBAL":
                        names.append(".".join(strings[-2:]))
                    elif isinstance(argument, str):
                        strings.append(argument)
    except Exception:  # the file is damaged in some way: torch.load then says how
        pass
    return list(dict.fromkeys(names))


def _pickles(file: BinaryIO) -> Iterator[BinaryIO]:
    """The pickles in a checkpoint, one after the other."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield from (BytesIO(archive.read(n)) for n in archive.namelist() if n.endswith("data.pkl"))
    else:
        # The older format: magic number, version and system, then the content; raw storages follow.
        file.seek(0)
        yield from [file] * 4


def _check_kind(path: Path) -> None:
    """Raise unless the first bytes are those of a checkpoint."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
        inside = []
        if start == b"PK":
            with zipfile.ZipFile(path) as archive:
                inside = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"the file {str(path)!r} cannot be read ({_first_line(error)}); copy or download it again"
        ) from error
    wanted = "name a PyTorch checkpoint (.pt, .pth) or a .safetensors"
    if not start:
        raise UsageError(f"the file {str(path)!r} is empty; {wanted}")
    if start == b"PK" and any(name.endswith("/constants.pkl") for name in inside):
        raise UsageError(f"the file {str(path)!r} is a TorchScript archive; save the state_dict() of its network")
    if start == b"PK" and not any(name.endswith("data.pkl") for name in inside):
        raise UsageError(f"the file {str(path)!r} is a zip archive without a checkpoint in it; {wanted}")
    if start != b"PK" and start[:1] != b"\x80":
        raise UsageError(f"the file {str(path)!r} is no checkpoint (it starts with {start!r}); {wanted}")


def _culprit(error: Exception, names: list[str]) -> str | None:
    """The name that torch refused to restore; None if the file is damaged instead."""
    if not isinstance(error, pickle.UnpicklingError):
        return None
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return named[1]
    return next((name for name in names if name.split(".")[0] not in HARMLESS), None)


def _first_line(error: Exception) -> str:
    reason = str(error).strip().split("\n")[0][:200]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _lenient(path: Path, dilled: bool) -> ModuleType:
    """pickle, or dill where the file needs it, in a form that continues where a class is missing."""
    base: ModuleType = pickle
    if dilled:
        try:
            import dill
        except ImportError as error:
            raise UsageError(f"the file {str(path)!r} was saved with dill; pip install dill, then try again") from error
        base = dill

    class Unpickler(base.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError):
                return type(name, (_StandIn,), {"__module__": module})

    def load(file: Any, **settings: Any) -> Any:
        return Unpickler(file, **settings).load()

    lenient = ModuleType(f"lenient_{base.__name__}")
    lenient.Unpickler, lenient.load = Unpickler, load
    return lenient


class _StandIn:
    """Replaces a class or function whose module is not installed: takes any arguments and does nothing."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass
