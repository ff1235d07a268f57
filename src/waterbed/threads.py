"""How many CPU threads a computation takes on a machine that other processes use as well.

Threads meet at a barrier after every operation. Where another process holds one of their cores, all wait there,
spinning, until the scheduler lets the last one run, and two threads on two cores become slower than one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from waterbed.errors import UsageError

STAT = Path("/proc/stat")
# Columns of a line "cpu0 user nice system idle iowait irq softirq steal ..." of proc(5).
IDLE = (3, 4)
COUNTED = 8  # the rest, guests, is part of user and nice


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """At most so many threads for each operation of torch inside the block.

    >>> with limited(1):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    if threads == before:  # setting it all the same would fix what MKL may otherwise choose
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_threads(threads: int) -> None:
    """Raise :class:`UsageError` if torch has fewer (``OMP_NUM_THREADS``, else the cores); 0 is always right."""
    most = torch.get_num_threads()
    if threads > most:
        raise UsageError(
            f"threads={threads} is more than the {most} that torch may use; raise OMP_NUM_THREADS, or pass fewer"
        )


def threads_beside(free: float, most: int) -> int:
    """The number of threads where other processes leave ``free`` cores: a core that is busy half of the time is none.

    >>> [threads_beside(free, most=2) for free in (2.0, 1.6, 1.5, 1.0, 0.0)]
    [2, 2, 1, 1, 1]
    """
    return max(1, min(most, math.ceil(free - 0.5)))


def free_cores(seconds: float = 0.1) -> float:
    """How many of this process's cores others leave free, measured for so many seconds; all of them where the system
    does not tell."""
    cores = _own_cores()
    if not STAT.is_file():
        return float(len(cores))
    before, used = _times(cores), time.process_time()
    time.sleep(seconds)
    after, used = _times(cores), time.process_time() - used
    busy, total = ((b - a) for a, b in zip(before, after, strict=True))
    if total <= 0:
        return float(len(cores))
    others = len(cores) * busy / total - used / seconds
    return min(float(len(cores)), len(cores) - others)


def _own_cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _times(cores: set[int]) -> tuple[int, int]:
    """Busy and total time of the cores so far, in ticks."""
    busy = total = 0
    for line in STAT.read_text().splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(value) for value in values[:COUNTED]]
            total += sum(ticks)
            busy += sum(ticks) - sum(ticks[i] for i in IDLE)
    return busy, total
