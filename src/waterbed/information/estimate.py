"""Estimate: a number that knows its standard error, unit, sample size and method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.stats import norm
from scipy.stats import t as student
from torch import Tensor

from waterbed.errors import UsageError, check_choice

POPULATION, SAMPLE_SIZE = "population", "sample size"
GROUPS = 50  # of the jackknife of what is costly to compute without each example


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
        target: what the interval over examples is for. "population": the value over all the inputs there are, which
            does not depend on n. "sample size": the mean of the value over samples of n examples, which moves with n;
            compare only at the same n.

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
    target: str = POPULATION

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        size = f"n = {self.n}" if self.target == POPULATION else f"at n = {self.n}"
        return f"{self.short()} {self.unit} ({size}, {self.method})"

    def short(self) -> str:
        """Value and errors alone, for tables.

        >>> Estimate(2.0, 0.1, "nats", n=100, method="exact").short()
        '2 ± 0.1'
        """
        probes = f" ± {self.probe_stderr:.2g} (probes)" if self.probe_stderr else ""
        return f"{self.value:.4g} ± {self.stderr:.2g}{probes}"

    def interval(self, level: float = 0.95, over: str = "both") -> tuple[float, float]:
        """Confidence interval from the error over "examples" (Student's t), "probes" (normal) or "both".

        The per-example values are skewed, so that at few examples fewer intervals hold the value than ``level`` says:
        benchmarks/coverage.py counts them for each measure.

        >>> low, high = Estimate(0.0, 1.0, "nats", n=51, method="exact").interval()
        >>> round(high, 2)
        2.01
        """
        check_choice("over", over, ("both", "examples", "probes"))
        if not 0 < level < 1:
            raise UsageError(f"level={level!r} must lie between 0 and 1; pass for example 0.95")
        upper = 0.5 + level / 2
        over_examples = float(student.ppf(upper, self.n - 1) if self.n > 1 else norm.ppf(upper)) * self.stderr
        halves = {"examples": over_examples, "probes": float(norm.ppf(upper)) * self.probe_stderr}
        half = math.hypot(*halves.values()) if over == "both" else halves[over]
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


def pseudo_values(value: Tensor | float, left_out: Tensor) -> Tensor:
    """Jackknife: n value - (n - 1) left_out, for the values (n,) without each of the n examples.

    Their mean is the value with its bias of order 1 / n taken out, and their standard error that of either (Efron and
    Stein, 1981). One example has nothing to compare with: nan.

    >>> import torch
    >>> x = torch.tensor([1.0, 2.0, 6.0])
    >>> pseudo_values(x.var(correction=0), torch.stack([x[[1, 2]], x[[0, 2]], x[[0, 1]]]).var(1, correction=0)).mean()
    tensor(7.)
    >>> x.var()
    tensor(7.)
    """
    n = len(left_out)
    return n * value - (n - 1) * left_out if n > 1 else torch.full_like(left_out, math.nan)


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


def group_jackknife(statistic: Callable[..., Tensor], *samples: Tensor, groups: int = GROUPS) -> tuple[Tensor, Tensor]:
    """The statistic (q,) of all rows of the samples, and its standard errors (q,): from the values without each of
    ``groups`` groups (every ``groups``-th example), or without each example where there are fewer.

    Efron and Stein (1981) with groups for examples; nan for one example.

    >>> import torch
    >>> value, error = group_jackknife(lambda x: x.mean(0), torch.tensor([[1.0], [3.0]]))
    >>> value, error
    (tensor([2.]), tensor([1.]))
    """
    n = len(samples[0])
    value = statistic(*samples)
    if n == 1:
        return value, torch.full_like(value, math.nan)
    groups = min(groups, n)
    group = torch.arange(n, device=samples[0].device) % groups
    return value, jackknife_error(torch.stack([statistic(*(s[group != g] for s in samples)) for g in range(groups)]))


def jackknife_error(left_out: Tensor) -> Tensor:
    """Standard error (...) from the values (g, ...) without each of g groups."""
    groups = len(left_out)
    return (left_out - left_out.mean(0)).square().sum(0).mul((groups - 1) / groups).sqrt()
