"""What is called after each epoch of a training: a user's own callbacks, and measures of the network as it trains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from waterbed.devices import device_of, seeded
from waterbed.errors import UsageTypeError
from waterbed.information.measure import check_measures, measure
from waterbed.models.states import unchanged
from waterbed.training.state import Job


class Callback(Protocol):
    """What ``fit(callbacks=[...])`` calls, in every process, after each epoch and before its state is saved.

    An exception ends the training when that state is saved, and the same call goes on from there.
    """

    def on_epoch_end(self, job: Job) -> None:
        """``job.epoch`` epochs are finished; ``job.history`` has their records, ``job.result`` is the network.

        What is added to ``job.history[-1]`` (numbers or text) is written into metrics.jsonl and goes to the trackers.
        Random numbers drawn here, and a change of train or eval mode, do not reach the training.
        """


def stderr_key(quantity: str) -> str:
    """What the standard error of a quantity is called in the record of an epoch."""
    return f"{quantity}_stderr"


class MeasuresOverTraining:
    """A :class:`Callback` that adds :func:`waterbed.measure` to the records of every ``every``-th epoch.

    A quantity is recorded by its name, with its standard error (where it is finite) as ``name_stderr``.

    Args:
        data: with train and test.
        measures: names of quantities; or each with a dict of arguments of :func:`waterbed.measure`, such as
            ``{"weight_log_variance": {"num_samples": 200, "damping": 1e-6}}``.
        workers: number of processes that load the images.

    Raises:
        UsageError: a name or an argument that is unknown.
    """

    def __init__(
        self,
        data: Any,
        measures: Iterable[str] | Mapping[str, Mapping[str, Any]],
        every: int = 1,
        workers: int = 0,
    ) -> None:
        if isinstance(measures, str) or not isinstance(measures, Iterable):
            raise UsageTypeError(f"measures={measures!r} must be a list or a dict; write measures=[{measures!r}]")
        named = measures if isinstance(measures, Mapping) else {name: {} for name in measures}
        self.measures = {name: check_measures(name, arguments) for name, arguments in named.items()}
        self.data, self.every, self.workers = data, every, workers

    def on_epoch_end(self, job: Job) -> None:
        if job.epoch % self.every:
            return
        for name, arguments in self.measures.items():
            with unchanged(job.result):
                estimate = measure(job.result, self.data, quantities=[name], workers=self.workers, **arguments)[name]
            job.history[-1][name] = float(estimate.value)
            if math.isfinite(estimate.stderr):
                job.history[-1][stderr_key(name)] = float(estimate.stderr)


def check_callbacks(callbacks: Any) -> list[Callback]:
    """The callbacks as a list; raise unless each has ``on_epoch_end``.

    >>> check_callbacks([print])
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageTypeError: callbacks[0]=<built-in function print> lacks on_epoch_end(job); add the method
    """
    if isinstance(callbacks, str) or not isinstance(callbacks, Iterable):
        raise UsageTypeError(f"callbacks={callbacks!r} must be a list; write callbacks=[{callbacks!r}]")
    callbacks = list(callbacks)
    for i, callback in enumerate(callbacks):
        if isinstance(callback, type):
            raise UsageTypeError(f"callbacks[{i}]={callback.__name__} is a class; write {callback.__name__}(...)")
        if not callable(getattr(callback, "on_epoch_end", None)):
            raise UsageTypeError(f"callbacks[{i}]={callback!r} lacks on_epoch_end(job); add the method")
    return callbacks


def call_back(callbacks: Iterable[Callback], job: Job) -> None:
    """Call each after an epoch, with random numbers of its own."""
    for callback in callbacks:
        with seeded(job.config.seed + job.epoch, device_of(job.model)):
            callback.on_epoch_end(job)
