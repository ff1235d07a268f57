"""Estimate: a number that knows its standard error, unit, sample size and method."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import norm
from torch import Tensor

from waterbed.errors import UsageError, check_choice


@dataclass(frozen=True)
class Estimate:
    """A measured scalar. ``float(e)`` is ``e.value``.

    Attributes:
        value: the estimate.
        stderr: standard error over the examples; nan with one example or where the examples cannot be told apart, 0 if
            the value does not depend on a sample.
        unit: such as "nats".
        n: examples behind it; 0 for an operator that does not tell them apart.
        method: how it was computed, in words.
        seed: of the random part, None if there is none.
        probe_stderr: standard error over random probes, separate from that over examples; 0 if exact.

    >>> e = Estimate(2.0, 0.1, "nats", n=100, method="exact")
    >>> print(e)
    2 ± 0.1 nats (n = 100, exact)
    >>> float(e)
    2.0
    """

    value: float
    stderr: float
    unit: str
    n: int
    method: str
    seed: int | None = None
    probe_stderr: float = 0.0

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.short()} {self.unit} (n = {self.n}, {self.method})"

    def short(self) -> str:
        """Value and errors alone, for tables.

        >>> Estimate(2.0, 0.1, "nats", n=100, method="exact").short()
        '2 ± 0.1'
        """
        probes = f" ± {self.probe_stderr:.2g} (probes)" if self.probe_stderr else ""
        return f"{self.value:.4g} ± {self.stderr:.2g}{probes}"

    def interval(self, level: float = 0.95, over: str = "both") -> tuple[float, float]:
        """Normal confidence interval from the error over "examples", "probes" or "both".

        >>> low, high = Estimate(0.0, 1.0, "nats", n=50, method="exact").interval()
        >>> round(high, 2)
        1.96
        """
        check_choice("over", over, ("both", "examples", "probes"))
        if not 0 < level < 1:
            raise UsageError(f"level={level!r} must lie between 0 and 1; pass for example 0.95")
        errors = {"examples": self.stderr, "probes": self.probe_stderr}
        error = math.hypot(*errors.values()) if over == "both" else errors[over]
        half = float(norm.ppf(0.5 + level / 2)) * error
        return self.value - half, self.value + half

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def mean_estimate(samples: Tensor, unit: str, method: str, seed: int | None = None) -> Estimate:
    """Mean of one value for each example, with its standard error.

    >>> import torch
    >>> mean_estimate(torch.tensor([1.0, 3.0]), "nats", "exact").stderr
    1.0
    """
    samples = samples.detach().double().cpu()
    n = len(samples)
    stderr = float(samples.std()) / math.sqrt(n) if n > 1 else math.nan
    return Estimate(float(samples.mean()), stderr, unit, n, method, seed)


def probe_estimate(samples: Tensor, unit: str, method: str, seed: int) -> Estimate:
    """Mean over examples and probes of samples (N, P), P >= 2, with the two sources of error separated.

    The variance of the examples' means contains that of the probes, which is subtracted (not below 0).

    >>> import torch
    >>> e = probe_estimate(torch.tensor([[1.0, 1.0], [3.0, 3.0]]), "nats", "two probes", 0)
    >>> e.value, e.stderr, e.probe_stderr
    (2.0, 1.0, 0.0)
    """
    samples = samples.detach().double().cpu()
    n, probes = samples.shape
    within = float(samples.var(1).mean()) / probes
    between = float(samples.mean(1).var()) if n > 1 else math.nan
    stderr = math.sqrt(max(0.0, between - within) / n) if n > 1 else math.nan
    return Estimate(float(samples.mean()), stderr, unit, n, method, seed, math.sqrt(within / n))
