"""Experiment trackers behind one small interface; metrics.jsonl is always written, these are beside it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from waterbed.errors import UsageError, check_choice


class Tracker(Protocol):
    """Anything that takes an epoch's record."""

    def log(self, record: Mapping[str, Any], step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Scalars into the run folder, for ``tensorboard --logdir``."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.writer = _module("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(path / "tensorboard"))

    def log(self, record: Mapping[str, Any], step: int) -> None:
        for name, value in record.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WandB:
    """A run of Weights & Biases, named after the run folder; a resumed training goes on in it."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        wandb = _module("wandb", "wandb")
        self.run = wandb.init(project="waterbed", name=path.name, dir=str(path), config=dict(config), resume="allow")

    def log(self, record: Mapping[str, Any], step: int) -> None:
        self.run.log(dict(record), step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run of MLflow's current experiment, named after the run folder."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.mlflow = _module("mlflow", "mlflow")
        self.mlflow.start_run(run_name=path.name)
        self.mlflow.log_params({name: value for name, value in config.items() if not isinstance(value, dict | list)})

    def log(self, record: Mapping[str, Any], step: int) -> None:
        self.mlflow.log_metrics({name: float(value) for name, value in record.items()}, step=step)

    def close(self) -> None:
        self.mlflow.end_run()


TRACKERS = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


@contextmanager
def tracking(
    trackers: Sequence[str | Tracker], path: Path | None, config: Mapping[str, Any], is_main: bool
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Gives a function that hands a record to every tracker; they are closed at the end, also after an exception."""
    if isinstance(trackers, str):
        raise UsageError(f"trackers={trackers!r} must be a list; write trackers=[{trackers!r}]")
    with ExitStack() as stack:
        opened: list[Tracker] = []
        for tracker in trackers if is_main else ():
            if isinstance(tracker, str):
                check_choice("trackers", tracker, TRACKERS)
                if path is None:
                    raise UsageError(f"trackers={tracker!r} needs a run folder; pass out=")
                tracker = TRACKERS[tracker](path, config)
            stack.callback(tracker.close)
            opened.append(tracker)

        def track(record: Mapping[str, Any]) -> None:
            for tracker in opened:
                tracker.log(record, record["epoch"])

        yield track


def _module(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"trackers={extra!r} is not installed; pip install 'waterbed[{extra}]'") from error
