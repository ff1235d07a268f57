"""The learning rate of a fine-tuning, chosen on held-out training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from waterbed.errors import DivergenceError
from waterbed.training.config import TrainConfig
from waterbed.training.run_folder import RunFolder

RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
RATES_BY_OPTIMIZER = {"sgd": RATES, "adamw": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)}


@dataclass(frozen=True)
class RateSearch:
    """A comparison of learning rates by trainings of ``epochs`` epochs each."""

    rates: Sequence[float]
    epochs: int

    def record(self) -> dict[str, Any]:
        """What the run's config records: a run of the same search need not search again."""
        return {"rates": list(self.rates), "epochs": self.epochs}

    def recorded(self, out: str | Path | None) -> float | None:
        """The rate that a run in the folder ``out`` chose by the same search, if there is one."""
        if out is None or not RunFolder(out).is_run():
            return None
        config = RunFolder(out).config()
        return config["lr"] if config.get("finetune", {}).get("search") == self.record() else None

    def best(self, config: TrainConfig, accuracy: Callable[[TrainConfig], float]) -> float:
        """The rate with the highest accuracy, and of equals the smallest; one that diverges is worse than any other.

        Args:
            config: the recipe, of which the rate and the epochs are replaced; nothing is watched.
            accuracy: trains with a config and returns the accuracy on held-out images.

        >>> search = RateSearch((0.1, 0.3, 1.0), epochs=1)
        >>> search.best(TrainConfig(), lambda config: {0.1: 50.0, 0.3: 60.0, 1.0: 60.0}[config.lr])
        0.3
        """

        def score(rate: float) -> float:
            try:
                return accuracy(replace(config, lr=rate, epochs=self.epochs, watch=0))
            except DivergenceError:
                return -1.0

        scores = {rate: score(rate) for rate in self.rates}
        return max(scores, key=lambda rate: (scores[rate], -rate))
