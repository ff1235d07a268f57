"""Learning rate and weight decay of a fine-tuning, chosen together on held-out images by successive halving."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from waterbed.errors import DivergenceError, UsageError, check_number
from waterbed.training.config import TrainConfig
from waterbed.training.run_folder import Run, RunFolder

Values = float | Sequence[float] | None
Pair = tuple[float, float]
Accuracies = Callable[[Sequence[Pair], int], Sequence[float]]

KEPT = 4  # one in so many goes on to trainings as many times as long
FEW = 8  # fewer candidates are all trained in full
MOST_WIDENINGS = 3
DIVERGED = -1.0


@dataclass(frozen=True)
class Grid:
    """Learning rates and weight decays, in increasing order; every pair of them is a candidate.

    >>> len(Grid((0.1, 1.0), (0.0, 1e-4)).pairs())
    4
    """

    rates: tuple[float, ...]
    decays: tuple[float, ...]

    def pairs(self) -> list[Pair]:
        """All pairs (rate, decay)."""
        return [(rate, decay) for rate in self.rates for decay in self.decays]

    def edge(self, pair: Pair) -> str:
        """At which ends of the grid a pair lies, in words; "" inside. No weight decay is no end: there is no less.

        >>> grid = Grid((0.1, 0.3, 1.0), (0.0, 1e-4))
        >>> grid.edge((1.0, 1e-4)), grid.edge((0.3, 0.0))
        ('largest lr 1, largest weight_decay 0.0001', '')
        """
        parts = []
        for name, value, values in zip(("lr", "weight_decay"), pair, (self.rates, self.decays), strict=True):
            if len(values) > 1 and value == values[-1]:
                parts.append(f"largest {name} {value:g}")
            elif len(values) > 1 and value == values[0] > 0:
                parts.append(f"smallest {name} {value:g}")
        return ", ".join(parts)

    def beyond(self, pair: Pair) -> Grid:
        """The grid, one step wider at each end where ``pair`` lies.

        >>> Grid((0.1, 1.0), (0.0, 1e-4, 1e-3)).beyond((1.0, 1e-3))
        Grid(rates=(0.1, 1.0, 10.0), decays=(0.0, 0.0001, 0.001, 0.01))
        """
        return Grid(*(_wider(values, value) for values, value in zip((self.rates, self.decays), pair, strict=True)))


def _wider(values: tuple[float, ...], value: float) -> tuple[float, ...]:
    """Values with one more, at the same ratio, at the end where ``value`` is."""
    if len(values) > 1 and value == values[-1]:
        return (*values, _rounded(value * value / values[-2] if values[-2] else 10 * value))
    if len(values) > 1 and value == values[0] > 0:
        return (_rounded(value * value / values[1]), *values)
    return values


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


# The defaults, by optimiser: of trainings on a cache, and of those that run the whole network at every step.
GRIDS = {
    "sgd": Grid((0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), (0.0, 5e-6, 5e-5, 5e-4)),
    "adamw": Grid((1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (0.0, 1e-3, 1e-2, 1e-1)),
}
WHOLE_NETWORK_GRIDS = {
    "sgd": Grid((0.01, 0.03, 0.1, 0.3, 1.0), (0.0, 5e-4)),
    "adamw": Grid((1e-4, 3e-4, 1e-3, 3e-3), (0.0, 1e-2)),
}


@dataclass(frozen=True)
class Chosen:
    """The outcome of a search.

    Attributes:
        lr, weight_decay: the best pair.
        edge: at which end of the widest grid it lies, in words: beyond it a better one may lie. "" for none.
    """

    lr: float
    weight_decay: float
    edge: str = ""


@dataclass(frozen=True)
class Search:
    """Successive halving: all pairs are trained briefly, the best quarter four times as long, and so on; fewer than
    eight are all trained in full.

    Attributes:
        grid: the candidates.
        epochs: of the longest trainings, which decide.
        widen: whether the grid is widened, up to three times, by one pair beyond each end where the best pair lies.
    """

    grid: Grid
    epochs: int
    widen: bool = False

    @classmethod
    def of(
        cls, default: Grid | None, config: TrainConfig, epochs: int, lr: Values = None, weight_decay: Values = None
    ) -> Search:
        """The search that the arguments of :func:`waterbed.finetune` ask for.

        Args:
            default: what None stands for: both are then chosen, while a rate that is given leaves the decay of the
                config. None if nothing is chosen unless several values are given.
            config: the recipe, whose rate and decay are taken where there is no default.
            lr, weight_decay: one value, several, or None.

        >>> search = Search.of(GRIDS["sgd"], TrainConfig(), 20, lr=(0.1, 1.0))
        >>> search.grid, search.widen
        (Grid(rates=(0.1, 1.0), decays=(0.0005,)), False)
        """
        rates = (config.learning_rate,) if default is None else default.rates
        decays = (config.weight_decay,) if default is None or lr is not None else default.decays
        if lr is not None:
            rates = check_values("lr", lr, above=0)
        if weight_decay is not None:
            decays = check_values("weight_decay", weight_decay, at_least=0)
        own = lr is not None or (weight_decay is not None and len(decays) > 1)
        return cls(Grid(rates, decays), epochs, widen=default is not None and not own)

    @property
    def compares(self) -> bool:
        """Whether there is more than one candidate."""
        return len(self.grid.pairs()) > 1

    @property
    def only(self) -> Chosen:
        """The candidate where there is one alone."""
        return Chosen(*self.grid.pairs()[0])

    def record(self) -> dict[str, Any]:
        """What the run's config records: a run of the same search need not search again."""
        return {"rates": list(self.grid.rates), "weight_decays": list(self.grid.decays), "epochs": self.epochs}

    def recorded(self, out: str | Path | None) -> Chosen | None:
        """What a run in the folder ``out`` chose by the same search, if there is one."""
        if out is None or not RunFolder(out).is_run():
            return None
        config = RunFolder(out).config()
        past = config.get("finetune", {})
        if past.get("search") != self.record():
            return None
        return Chosen(config["lr"], config["weight_decay"], past.get("edge", ""))

    def budgets(self) -> list[int]:
        """Epochs of each round; rounds of equal length are one.

        >>> Search(GRIDS["sgd"], epochs=20).budgets()
        [1, 5, 20]
        """
        candidates = len(self.grid.pairs())
        rounds = 1 if candidates < FEW else min(3, math.ceil(math.log(candidates, KEPT)))
        return sorted({max(1, round(self.epochs / KEPT**i)) for i in range(rounds)})

    def best(self, accuracies: Accuracies) -> Chosen:
        """The pair with the highest accuracy in the last round; of equals the smallest rate, then the smallest decay.

        Args:
            accuracies: trains each pair for so many epochs and returns its accuracy on held-out images;
                :data:`DIVERGED` for one whose loss was not finite.

        >>> def accuracies(pairs, epochs):
        ...     return [90 - abs(rate - 0.3) - 100 * decay for rate, decay in pairs]
        >>> Search(GRIDS["sgd"], epochs=20).best(accuracies)
        Chosen(lr=0.3, weight_decay=0.0, edge='')
        """
        pairs, scores = self.grid.pairs(), {}
        for epochs in self.budgets():
            pairs = _ranked(scores)[: math.ceil(len(scores) / KEPT)] or pairs
            scores = dict(zip(pairs, accuracies(pairs, epochs), strict=True))
        grid = self.grid
        for _ in range(MOST_WIDENINGS if self.widen else 0):
            best = _ranked(scores)[0]
            if not grid.edge(best):
                break
            wider = grid.beyond(best)
            steps = Grid(_around(wider.rates, best[0]), (best[1],)), Grid((best[0],), _around(wider.decays, best[1]))
            fresh = [pair for step in steps for pair in step.pairs() if pair not in grid.pairs()]
            scores |= dict(zip(fresh, accuracies(fresh, self.epochs), strict=True))
            grid = wider
        best = _ranked(scores)[0]
        return Chosen(*best, grid.edge(best))


class Trainable(Protocol):
    """What :func:`one_by_one` trains: a network, cached in part or not."""

    def fit(self, config: TrainConfig, *, indices: Tensor) -> Run:
        """Train on these training images."""

    def accuracy(self, model: nn.Module, indices: Tensor) -> float:
        """Percent of these training images that a trained model gets right."""


def one_by_one(
    network: Trainable, pairs: Sequence[Pair], config: TrainConfig, train: Tensor, held: Tensor
) -> list[float]:
    """Percent of the training images ``held`` that each training on the images ``train`` alone gets right."""

    def accuracy(rate: float, decay: float) -> float:
        try:
            run = network.fit(replace(config, lr=rate, weight_decay=decay, watch=0), indices=train)
        except DivergenceError:
            return DIVERGED
        return network.accuracy(run.model, held)

    return [accuracy(*pair) for pair in pairs]


def _ranked(scores: dict[Pair, float]) -> list[Pair]:
    return sorted(scores, key=lambda pair: (-scores[pair], pair))


def _around(values: tuple[float, ...], value: float) -> tuple[float, ...]:
    """A value with its neighbours."""
    i = values.index(value)
    return values[max(0, i - 1) : i + 2]


def check_values(name: str, values: float | Sequence[float], **valid: float) -> tuple[float, ...]:
    """One value or several as a tuple in increasing order.

    Args:
        valid: ``above=`` or ``at_least=``.

    >>> check_values("lr", 0.1, above=0), check_values("lr", [1.0, 0.1], above=0)
    ((0.1,), (0.1, 1.0))
    """
    several = (values,) if isinstance(values, int | float) else tuple(values)
    if not several:
        raise UsageError(f"{name} is empty; pass one value or more")
    for value in several:
        check_number(name, value, **valid)
    return tuple(sorted(set(several)))
