"""Stops a program before any of the calls through which files change, as SIGKILL would."""

import os
import stat


class Killed(BaseException):
    """Nothing of ours runs after it."""


class CrashPoints:
    """Counts the calls through which files change. The one at number ``at`` and all after it do nothing but raise, and
    what was being written is left torn."""

    def __init__(self, monkeypatch, at=None):
        self.at, self.count = at, 0
        for name in ("fsync", "replace", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name, call):
        def counted(*args, **options):
            self.count += 1
            if self.at is not None and self.count > self.at:
                state = os.fstat(args[0]) if name == "fsync" and self.count == self.at + 1 else None
                if state is not None and stat.S_ISREG(state.st_mode):  # not of a folder
                    os.ftruncate(args[0], state.st_size // 2)
                raise Killed
            return call(*args, **options)

        return counted


def stopped_everywhere(monkeypatch, work, before=lambda number: None):
    """Run ``work(0)`` whole; then, for each point, ``work(number)`` from 1 on, stopped there and run again. Yields the
    numbers. ``before(number)`` is called first, where nothing stops."""
    with monkeypatch.context() as patch:
        points = CrashPoints(patch)
        work(0)
    assert points.count > 2
    for at in range(points.count):
        before(at + 1)
        with monkeypatch.context() as patch:
            CrashPoints(patch, at)
            try:
                work(at + 1)
            except Killed:
                pass
            else:
                raise AssertionError(f"not stopped at {at}")
        work(at + 1)
        yield at + 1
