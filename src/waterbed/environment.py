"""The software and hardware behind a result."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """Versions and hardware, as recorded with every result.

    >>> sorted(environment())[:3]
    ['cores', 'device', 'numpy']
    """
    cuda = torch.cuda.is_available()
    return {
        "waterbed": importlib.metadata.version("waterbed"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "numpy": importlib.metadata.version("numpy"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def recorded_threads(file: Path) -> int | None:
    """The number of CPU threads in a file of :func:`environment`; None where there is no such record."""
    try:
        return json.loads(file.read_text())["threads"] if file.is_file() else None
    except (OSError, ValueError, KeyError):
        return None


def _cpu_name() -> str:
    if hasattr(torch.cpu, "get_capabilities"):
        return str(torch.cpu.get_capabilities().get("cpu_name", platform.processor()))
    return platform.processor() or platform.machine()
