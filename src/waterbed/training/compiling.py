"""torch.compile of a training: the network that trains, and the copy that is attacked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from waterbed.errors import UsageError

COMPILERS = ("g++", "clang++", "cl")


def check_compiles(objective: Any) -> None:
    """Raise :class:`UsageError` for an objective that takes the network apart, or without a compiler.

    An objective says so with ``compiles = False``.
    """
    if not getattr(objective, "compiles", True):
        raise UsageError(
            f"compile=True cannot be honoured with objective={objective.config()['name']!r}, which runs the network in "
            "parts; leave it out"
        )
    if not has_compiler():
        raise UsageError(
            f"compile=True needs a C++ compiler, and there is none of {', '.join(COMPILERS)}; install one, name it in "
            "the variable CXX, or leave compile out"
        )


def has_compiler() -> bool:
    """Whether torch.compile will find the C++ compiler that it needs on a CPU, and for launchers on a GPU."""
    return any(shutil.which(name) for name in (*os.environ.get("CXX", "").split()[:1], *COMPILERS))


def compiled(current: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """The same function, of a network that it returns at every call with other weights, compiled once."""
    network = current()
    fast = torch.compile(network)

    def refreshed() -> nn.Module:
        if current() is not network:
            raise RuntimeError("compiled() needs a function that always returns the same network")
        return fast

    return refreshed
