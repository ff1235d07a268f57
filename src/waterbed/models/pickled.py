"""PyTorch's pickled files: read without running code, or, where the user trusts them, by unpickling.

Without trust torch's own restricted reader makes what is restored: tensors and plain containers. It looks names up in a
list instead of importing them, and calls, creates and changes nothing that is not on the list. To that list
:class:`_Inert` is added under every other name in the file, so that the settings or schedules that training scripts
leave beside the weights do not keep these from being read.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import shlex
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import torch
from torch.serialization import safe_globals

from waterbed.errors import UsageError

# Classes and functions that torch restores of plain weights.
OF_WEIGHTS = re.compile(
    r"torch\.(\w*Storage|Size|device|Tensor|bool|[a-z]+\d+\w*|storage\.\w+|nn\.parameter\.Parameter"
    r"|_utils\._rebuild_\w+|_tensor\._rebuild_from_type_v2|serialization\._get_layout)"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(set|bytearray|complex)"
)


def unpickle(path: Path, trust: bool = False, wanted: Callable[[Any], Any] = lambda content: True) -> Any:
    """The content of a file that ``torch.save`` wrote, on the CPU.

    Args:
        path: a .pt, .pth or .bin file, of the zip format or the older one.
        trust: restore whatever the file holds, which can run its code; classes that are not installed become empty
            stand-ins. Otherwise only tensors and plain containers are read, and a stand-in is in every other place.
        wanted: false of a content in which what is looked for is missing.

    Raises:
        UsageError: no such file, a damaged one, or one that is not trusted and cannot be read without more than
            tensors, or lacks what is wanted for that reason.
    """
    _check_kind(path)
    names = global_names(path)
    dilled = any(name.startswith("dill.") for name in names)
    settings = {"weights_only": False, "pickle_module": _lenient(path, dilled)} if trust else {"weights_only": True}
    try:
        with warnings.catch_warnings(), safe_globals([(_Inert, ""), *((INERT, name) for name in names)]):
            warnings.simplefilter("ignore")  # on how torch reads old or sparse tensors
            content = torch.load(path, map_location="cpu", **settings)
    except Exception as error:  # a torn or foreign file can fail in any way
        if not trust and names and "Unsupported operand" in str(error):
            raise _refusal(path, "was saved with a pickle protocol above 2, which") from error
        culprit = None if trust else _culprit(error, names)
        if culprit is None:
            raise UsageError(
                f"the file {str(path)!r} cannot be read ({_first_line(error)}); copy or download it again"
            ) from error
        raise _refusal(path, _more(culprit, dilled)) from error
    others = [] if trust else _beside_weights(names)
    if others and not wanted(content):
        raise _refusal(path, _more(others[0], dilled))
    return content


def left_out(path: Path) -> list[str]:
    """The classes and functions in a pickled file that are not restored without trust.

    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "net.pt"
    >>> torch.save({"weight": torch.ones(2), "folder": pathlib.PurePosixPath("a")}, file)
    >>> left_out(file), unpickle(file)["weight"]
    (['pathlib.PurePosixPath'], tensor([1., 1.]))
    """
    return _beside_weights(global_names(path))


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
                strings: list[Any] = []  # what is on the stack where a name is taken from it, at the end
                memo: list[Any] = []
                for opcode, argument, _ in pickletools.genops(stream):
                    if opcode.name == "GLOBAL":
                        names.append(_today(*argument.split(" ", 1)))
                    elif opcode.name == "STACK_GLOBAL":
                        names.append(".".join(map(str, strings[-2:])))
                    elif opcode.name == "MEMOIZE":
                        memo.append(strings[-1] if strings else None)
                    elif opcode.name in ("BINGET", "LONG_BINGET"):
                        strings.append(memo[argument] if argument < len(memo) else None)
                    elif opcode.name != "PROTO":
                        strings.append(argument)
    except Exception:  # the file is damaged in some way: torch.load then says how
        pass
    return list(dict.fromkeys(names))


def _today(module: str, name: str) -> str:
    """The name in Python 3 of what Python 2, as files have it, calls ``module.name``."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _beside_weights(names: list[str]) -> list[str]:
    return [name for name in names if not OF_WEIGHTS.fullmatch(name)]


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
    if not isinstance(error, pickle.UnpicklingError | AttributeError | TypeError):  # the latter of stand-ins
        return None
    named = re.search(r"GLOBAL (\S+)", str(error))
    return named[1] if named else next(iter(_beside_weights(names)), None)


def _more(culprit: str, dilled: bool) -> str:
    return f"holds more than weights: {culprit!r}{' (saved with dill)' * dilled}"


def _refusal(path: Path, what: str) -> UsageError:
    return UsageError(
        f"the file {str(path)!r} {what} is restored only by unpickling, which can run code of the file; if you trust "
        "its origin, "
        f"`waterbed convert {shlex.quote(str(path))} --out NAME.safetensors --trust` unpickles it once and saves "
        "the weights safely"
    )


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


class _Inert:
    """Stands for every class and function that is not restored, and for what they return: called, created or given a
    state, it is the same object and does nothing.

    It has no attributes that could be set, and torch's reader lets nothing else be done to it.
    """

    __slots__ = ()

    def __new__(cls, *args: Any) -> _Inert:
        return INERT

    def __call__(self, *args: Any) -> _Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        pass


INERT = object.__new__(_Inert)


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
