"""When a training saves its state: after epochs, now and then within long ones, and when asked to stop."""

from __future__ import annotations

import signal
import threading
import time
from types import TracebackType
from typing import Any

import torch
from torch import nn

from waterbed.distributed import Engine
from waterbed.errors import DivergenceError, StoppedError
from waterbed.training.run_folder import RunFolder
from waterbed.training.state import Job
from waterbed.training.state_files import check_states_fit

# Reading the losses waits for a GPU, so not every batch does; on the CPU there is nothing to wait for.
BATCHES_BETWEEN_READS = {"cpu": 1}
BATCHES_BETWEEN_READS_ELSEWHERE = 50


class Checkpointing:
    """Saves a :class:`Job` into its run folder (None keeps nothing); only the main process writes.

    Inside the context SIGTERM, as schedulers send it, does not kill: after the batch the state is saved and
    :class:`StoppedError` raised.
    """

    def __init__(self, folder: RunFolder | None, engine: Engine, minutes: float) -> None:
        self.folder = folder if engine.is_main else None
        self.engine, self.minutes = engine, minutes
        self._between_reads = BATCHES_BETWEEN_READS.get(engine.device.type, BATCHES_BETWEEN_READS_ELSEWHERE)
        self._saved = time.monotonic()
        self._asked = False

    def __enter__(self) -> Checkpointing:
        self._main_thread = threading.current_thread() is threading.main_thread()
        if self._main_thread:  # no other may set handlers
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._main_thread:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def check_finite(self, job: Job) -> None:
        """Raise :class:`DivergenceError` in every process if a loss was not finite in one; nothing good is overwritten,
        and the present state goes into diverged.pt."""
        first = job.meter.read()
        anywhere = first is not None
        if self.engine.processes > 1:
            anywhere = bool(self.engine.sum(torch.tensor(float(anywhere))) > 0)
        if anywhere:
            if self.folder is not None:
                self.folder.save_state(job.snapshot(), "diverged.pt")
            raise diverged(job.epoch, first or job.meter.batches)

    def after_batch(self, job: Job) -> None:
        """Now and then (:data:`BATCHES_BETWEEN_READS`) look at the losses, save if it is time to, stop if asked to.

        Several processes do all of it together: a loss that is not finite in one has reached the weights of all.
        """
        look = job.meter.batches % self._between_reads == 0
        alone = self.engine.processes == 1
        if not (look or alone):
            return
        stop = self._asked
        if not alone:
            stop = bool(self.engine.sum(torch.tensor(float(stop))) > 0)
        due = stop or time.monotonic() - self._saved > 60 * self.minutes
        if look or due:
            self.check_finite(job)
        if due:
            self._save(job)
        if stop:
            saved = "its state is saved and the same call goes on from there" if self.folder else "nothing was saved"
            message = f"asked to stop in epoch {job.epoch + 1} after batch {job.meter.batches}; {saved}"
            raise StoppedError(message, self.folder is not None)

    def after_epoch(self, job: Job, weights: nn.Module | None) -> None:
        """Save metrics, state, and the weights if they are the ones to keep."""
        if self.folder is not None:
            self.folder.save(job.snapshot(), job.history, weights)
        self._saved = time.monotonic()

    def check_room(self, job: Job) -> None:
        """Raise before the first step where the disk has no room for what will be saved."""
        if self.folder is not None:
            check_states_fit(self.folder.path, *job.bytes())

    def restore(self, job: Job, saved: dict[str, Any]) -> None:
        """Go on from a saved state; files of the last epoch that were not written, or were lost since, are written."""
        job.restore(saved)
        if self.folder is not None and job.history:
            self.folder.complete(job.history, job.result, *job.kept())

    def _save(self, job: Job) -> None:
        if self.folder is not None:
            self.folder.save_state(job.snapshot())
        self._saved = time.monotonic()


def diverged(epoch: int, batch: int) -> DivergenceError:
    """The error of a loss that is not finite after ``epoch`` finished epochs, in a batch counted from 1."""
    return DivergenceError(
        f"the loss is not finite in epoch {epoch + 1}, batch {batch}; pass a lower lr (what was saved before is kept)"
    )
