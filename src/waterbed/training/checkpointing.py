"""When a training saves its state: after epochs, now and then within long ones, and when asked to stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import TracebackType

import torch
from torch import Tensor, nn

from waterbed.distributed import Engine
from waterbed.errors import DivergenceError, StoppedError
from waterbed.training.run_folder import RunFolder
from waterbed.training.state import Job


class Keeper:
    """Saves a :class:`Job` into its run folder (None keeps nothing); only the main process writes.

    Inside the context SIGTERM, as schedulers send it, does not kill: after the batch the state is saved and
    :class:`StoppedError` raised.
    """

    def __init__(self, folder: RunFolder | None, engine: Engine, minutes: float) -> None:
        self.folder = folder if engine.is_main else None
        self.engine, self.minutes = engine, minutes
        self._saved = time.monotonic()
        self._asked = False

    def __enter__(self) -> Keeper:
        self._main_thread = threading.current_thread() is threading.main_thread()
        if self._main_thread:  # no other may set handlers
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._main_thread:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def check(self, job: Job, loss: Tensor, epoch: int) -> None:
        """Raise :class:`DivergenceError` if the loss is not finite; the weights that gave it go into diverged.pt."""
        try:
            check_finite(loss, epoch, job.meter.batches)
        except DivergenceError:
            if self.folder is not None:
                self.folder.save_state(job.snapshot(), "diverged.pt")
            raise

    def after_batch(self, job: Job) -> None:
        """Save if it is time to, or stop if asked to; processes stop together."""
        stop = self._asked
        if self.engine.processes > 1:
            stop = bool(self.engine.sum(torch.tensor(float(stop))) > 0)
        if stop or time.monotonic() - self._saved > 60 * self.minutes:
            self._save(job)
        if stop:
            kept = "its state is saved and the same call goes on from there" if self.folder else "nothing was saved"
            raise StoppedError(f"asked to stop in epoch {job.epoch + 1} after batch {job.meter.batches}; {kept}")

    def after_epoch(self, job: Job, weights: nn.Module | None) -> None:
        """Save metrics, state, and the weights if they are the ones to keep."""
        if self.folder is not None:
            self.folder.save(job.snapshot(), job.history, weights)
        self._saved = time.monotonic()

    def _save(self, job: Job) -> None:
        if self.folder is not None:
            self.folder.save_state(job.snapshot())
        self._saved = time.monotonic()


def check_finite(loss: Tensor, epoch: int, batches: int) -> None:
    """Raise :class:`DivergenceError` unless the loss is finite."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise DivergenceError(
            f"the loss is {value} in epoch {epoch + 1}, batch {batches + 1}; pass a lower lr (what was saved before is "
            "kept)"
        )
