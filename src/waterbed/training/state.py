"""What changes during a training: optimiser, history, the weights to keep, and their snapshot."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from waterbed.errors import UsageError
from waterbed.models.classifier import weight_norm
from waterbed.training.config import TrainConfig
from waterbed.training.objective import Objective
from waterbed.training.optimizers import make_optimizer


class Job:
    """What changes during a training, and its snapshot after an epoch."""

    def __init__(
        self,
        model: nn.Module,
        trained: Iterable[nn.Module] | None,
        config: TrainConfig,
        steps: int,
        objective: Objective | None = None,
    ) -> None:
        self.model, self.config, self.best = model, config, -math.inf
        self.objective = objective
        self.trained = [model] if trained is None else list(trained)
        # Running statistics are averaged as well: those of the last weights are not those of averaged weights.
        self.averaged = (
            AveragedModel(model, multi_avg_fn=moving_average(config.ema), use_buffers=True) if config.ema else None
        )
        self.parameters = [p for module in self.trained for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise UsageError("model has no parameter that requires a gradient; call model.requires_grad_(True)")
        self.optimizer = make_optimizer(self.parameters, config)
        self.batches = steps
        total = math.ceil(steps / config.accumulate) * config.epochs
        self.scheduler = LambdaLR(self.optimizer, lambda t: config.rate(t / total))
        self.history: list[dict[str, Any]] = []
        self.best_weights: dict[str, Tensor] | None = None
        self.meter = Meter()
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.started = time.monotonic()

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def result(self) -> nn.Module:
        """The network to watch and to keep: with averaged weights if there are any."""
        return self.model if self.averaged is None else self.averaged.module

    def bytes(self) -> tuple[int, int]:
        """How many a snapshot has at least, of an optimiser with one moment, and the weights to keep."""
        network = sum(tensor.nbytes for tensor in self.model.state_dict().values())
        copies = 1 + (self.averaged is not None) + (self.config.validation > 0)
        return copies * network + sum(p.nbytes for p in self.parameters), network

    def train_mode(self) -> None:
        """Train mode for what is trained, eval mode for the rest."""
        self.model.eval()
        for module in self.trained:
            module.train()

    def step(self, backward: Callable[[Tensor], None], loss: Tensor, logits: Tensor, y: Tensor) -> None:
        """One step of the optimiser, of the schedule and of the averages; nothing here waits for the device.

        With ``accumulate`` the last batch of each such group makes it, and the last group of an epoch may be smaller.
        """
        done, together = self.meter.batches, self.config.accumulate
        first = done - done % together
        size = min(together, self.batches - first) if done < self.batches else together
        self.meter.add(loss, logits, y)
        if done == first:
            self.optimizer.zero_grad()
        backward(loss if size == 1 else loss / size)
        if done + 1 < first + size:
            return
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.scheduler.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def end_epoch(self, record: dict[str, Any]) -> bool:
        """Add the epoch's record; true if its weights are the ones to keep."""
        seconds, self.started = time.monotonic() - self.started, time.monotonic()
        norm = weight_norm(self.result)
        more = {"weight_norm": norm, "lr": self.rate, "seconds": seconds}
        self.history.append({"epoch": self.epoch + 1, **record, **more})
        self.meter = Meter()
        if self.config.validation == 0:
            return True
        score = record.get("validation_robust", record["validation_clean"])
        if score <= self.best:
            return False
        self.best = score
        self.best_weights = {name: t.detach().clone() for name, t in self.result.state_dict().items()}
        return True

    def finish(self) -> None:
        """Put the weights to keep into the model, and leave it in eval mode."""
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)
        elif self.averaged is not None:
            self.model.load_state_dict(self.result.state_dict())
        self.model.eval()

    def kept(self) -> tuple[dict[str, Tensor] | None, int]:
        """The weights to keep so far and their epoch; None where only those within a later epoch are at hand."""
        if self.best_weights is not None:
            scores = [r.get("validation_robust", r.get("validation_clean")) for r in self.history]
            return self.best_weights, scores.index(self.best) + 1
        return (None if self.meter.batches else self.result.state_dict()), self.epoch

    def snapshot(self) -> dict[str, Any]:
        """All that a later start needs to go on as if nothing had happened, after an epoch or a batch."""
        return {
            "meter": self.meter.state(),
            "rate": self.rate,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "best_weights": self.best_weights,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "gradients": self._accumulated(),
            "history": self.history,
            "objective": self.objective.state() if hasattr(self.objective, "state") else None,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }

    def _accumulated(self) -> list[Tensor | None] | None:
        """The gradients of a group of batches that is not complete."""
        return [p.grad for p in self.parameters] if self.meter.batches % self.config.accumulate else None

    def restore(self, state: dict[str, Any]) -> None:
        """Undo of :meth:`snapshot`."""
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"out= holds a run of another network ({reason}); choose another out=") from error
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.best_weights, self.best, self.history = state["best_weights"], state["best"], state["history"]
        self.meter, self.rate = Meter(**state["meter"]), state["rate"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        for parameter, gradient in zip(self.parameters, state.get("gradients") or (), strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter)
        if hasattr(self.objective, "restore"):
            self.objective.restore(state["objective"], self.parameters[0].device)
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda_rng"])


def moving_average(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor | int], None]:
    """How an AveragedModel takes in a step: tensors of one type, their new values, and the steps t taken in before.

    The decay rises as (1 + t) / (10 + t), so that a short training is not dominated by its first weights.
    """

    def update(averaged: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        if averaged[0].is_floating_point() or averaged[0].is_complex():
            t = int(steps)
            get_ema_multi_avg_fn(min(decay, (1 + t) / (10 + t)))(averaged, current, steps)
            return
        for mean, value in zip(averaged, current, strict=True):  # a rounded mean of equal indices may be another index
            mean.copy_(value)

    return update


class Meter:
    """Mean loss and accuracy over the batches of an epoch so far, and the first batch whose loss was not finite.

    The sums stay on the device: reading one waits for every step before it, so they are read now and then.
    """

    def __init__(self, loss: float = 0.0, correct: int = 0, seen: int = 0, batches: int = 0) -> None:
        self.seen, self.batches = seen, batches
        self._sums = torch.tensor([loss, correct], dtype=torch.float64)
        self._read: tuple[float, float] | None = None  # mean loss and accuracy when the sums were last read
        self._bad: Tensor | None = None

    def add(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        """Count a batch: its mean loss, logits (N, K) and labels (N,), or (N, K), whose largest then counts."""
        y = y if y.ndim == 1 else y.argmax(1)
        self.seen += len(y)
        self.batches += 1
        loss = loss.detach().double()
        self._sums = self._sums.to(loss.device, non_blocking=True)
        self._sums += torch.stack([loss * len(y), (logits.argmax(1) == y).sum().double()])
        if self._bad is None:
            self._bad = torch.full((), math.inf, dtype=torch.float64, device=loss.device)
        self._bad = torch.where(torch.isfinite(loss), self._bad, self._bad.clamp_max(self.batches))

    def read(self) -> int | None:
        """Fetch the sums, for ``str()``; the number of the first batch whose loss was not finite, from 1, or None."""
        loss, correct = self._sums.tolist()
        if self.seen:
            self._read = loss / self.seen, 100 * correct / self.seen
        first = math.inf if self._bad is None else float(self._bad)
        return None if math.isinf(first) else int(first)

    def state(self) -> dict[str, Any]:
        """What the constructor takes."""
        loss, correct = self._sums.tolist()
        return {"loss": loss, "correct": int(correct), "seen": self.seen, "batches": self.batches}

    def record(self, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, float]:
        """Means, over all processes if ``total`` adds up their sums."""
        sums = total(torch.cat([self._sums.cpu(), torch.tensor([self.seen], dtype=torch.float64)]))
        loss, correct, seen = sums.tolist()
        return {"loss": loss / seen, "train_accuracy": 100 * correct / seen}

    def __str__(self) -> str:
        return "" if self._read is None else "loss {:.3f}, accuracy {:.1f} %".format(*self._read)
