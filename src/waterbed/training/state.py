"""What changes during a training: settings, optimiser, history, the weights to keep, and their snapshot."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from waterbed.data.augment import AUGMENTATIONS
from waterbed.errors import UsageError, check_choice, check_count, check_number
from waterbed.models.classifier import weight_norm

SCHEDULES = ("one-cycle", "cosine", "step", "constant")


@dataclass(frozen=True)
class Settings:
    """The checked numbers of one training."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    augment: str
    validation: float
    watch: int
    seed: int
    milestones: tuple[int, ...] = ()
    nesterov: bool = True
    ema: float = 0.0

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size, at_least=2)
        check_number("lr", self.lr, above=0)
        check_number("momentum", self.momentum, at_least=0)
        check_number("weight_decay", self.weight_decay, at_least=0)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("augment", self.augment, AUGMENTATIONS)
        check_number("validation", self.validation, at_least=0)
        check_number("ema", self.ema, at_least=0)
        check_count("watch", self.watch, at_least=0)
        check_count("seed", self.seed, at_least=0)
        if self.milestones and self.schedule != "step":
            raise UsageError(f"milestones={self.milestones!r} belong to schedule='step', not {self.schedule!r}")
        for epoch in self.milestones:
            check_count("milestones", epoch)
        for name, value in (("momentum", self.momentum), ("validation", self.validation), ("ema", self.ema)):
            if value >= 1:
                raise UsageError(f"{name}={value!r} must be below 1; pass such a value")

    def rate(self, done: float) -> float:
        """Factor on ``lr`` after a fraction ``done`` of all steps."""
        if self.schedule == "one-cycle":
            return 0.04 + 0.96 * done / 0.3 if done < 0.3 else 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7))
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "step":
            drops = self.milestones or (self.epochs / 3, 2 * self.epochs / 3)
            return 0.1 ** sum(done * self.epochs >= epoch - 1e-6 for epoch in drops)
        return 1.0


class Job:
    """What changes during a training, and its snapshot after an epoch."""

    def __init__(
        self,
        model: nn.Module,
        trained: Iterable[nn.Module] | None,
        settings: Settings,
        steps: int,
        best: float,
    ) -> None:
        self.model, self.settings, self.best = model, settings, best
        self.trained = [model] if trained is None else list(trained)
        # Running statistics are averaged as well: those of the last weights are not those of averaged weights.
        self.averaged = (
            AveragedModel(model, multi_avg_fn=moving_average(settings.ema), use_buffers=True) if settings.ema else None
        )
        parameters = [p for module in self.trained for p in module.parameters() if p.requires_grad]
        if not parameters:
            raise UsageError("model has no parameter that requires a gradient; call model.requires_grad_(True)")
        self.optimizer = torch.optim.SGD(
            parameters,
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov and settings.momentum > 0,
        )
        total = steps * settings.epochs
        self.scheduler = LambdaLR(self.optimizer, lambda t: settings.rate(t / total))
        self.history: list[dict[str, Any]] = []
        self.best_weights: dict[str, Tensor] | None = None
        self.meter = Meter()
        self.rate = settings.lr
        self.started = time.monotonic()

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def kept(self) -> nn.Module:
        """The network to watch and to keep: with averaged weights if there are any."""
        return self.model if self.averaged is None else self.averaged.module

    def train_mode(self) -> None:
        """Train mode for what is trained, eval mode for the rest."""
        self.model.eval()
        for module in self.trained:
            module.train()

    def step(self, backward: Callable[[Tensor], None], loss: Tensor) -> None:
        """One step of the optimiser, of the schedule and of the averages."""
        self.optimizer.zero_grad()
        backward(loss)
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.scheduler.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def end_epoch(self, record: dict[str, Any]) -> bool:
        """Add the epoch's record; true if its weights are the ones to keep."""
        seconds, self.started = time.monotonic() - self.started, time.monotonic()
        norm = weight_norm(self.kept)
        more = {"weight_norm": norm, "lr": self.rate, "seconds": seconds}
        self.history.append({"epoch": self.epoch + 1, **record, **more})
        self.meter = Meter()
        if self.settings.validation == 0:
            return True
        score = record.get("validation_robust", record["validation_clean"])
        if score <= self.best:
            return False
        self.best = score
        self.best_weights = {name: t.detach().clone() for name, t in self.kept.state_dict().items()}
        return True

    def finish(self) -> None:
        """The kept weights into the model, which is left in eval mode."""
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)
        elif self.averaged is not None:
            self.model.load_state_dict(self.kept.state_dict())
        self.model.eval()

    def snapshot(self) -> dict[str, Any]:
        """All that a later start needs to go on as if nothing had happened, after an epoch or a batch."""
        return {
            "meter": asdict(self.meter),
            "rate": self.rate,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "best_weights": self.best_weights,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": self.history,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }

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


@dataclass
class Meter:
    """Mean loss and accuracy over the batches of an epoch so far."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    batches: int = 0

    def add(self, loss: Tensor, logits: Tensor, y: Tensor) -> None:
        self.loss += float(loss.detach()) * len(y)
        self.correct += int((logits.argmax(1) == y).sum())
        self.seen += len(y)
        self.batches += 1

    def record(self, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, float]:
        """Means, over all processes if ``total`` adds up their sums."""
        sums = total(torch.tensor([self.loss, self.correct, self.seen], dtype=torch.float64))
        loss, correct, seen = sums.tolist()
        return {"loss": loss / seen, "train_accuracy": 100 * correct / seen}

    def __str__(self) -> str:
        return f"loss {self.loss / self.seen:.3f}, accuracy {100 * self.correct / self.seen:.1f} %"
