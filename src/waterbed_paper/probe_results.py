"""The results of the probe study, as its hypotheses, figures and tables ask for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from waterbed_paper.results import Results
from waterbed_paper.scale import PAPERS_PROBE, Network, Source

Record = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """One way to probe: which of an experiment's records is its accuracy.

    Attributes:
        label: for the page.
        takes: a record -> whether it is a candidate; of several, the one with the highest accuracy on held-out images
            is taken, and of equals the first.
    """

    label: str
    takes: Callable[[Record], bool]

    def read(self, result: dict[str, Any], size: int) -> Record | None:
        """The record of this probe on that many training images."""
        candidates = [r for r in result["probes"] if r["size"] == size and self.takes(r)]
        return max(candidates, key=lambda r: r["held"]) if candidates else None


def sgd(label: str, length: float | None, weight_decay: float) -> Probe:
    """SGD on the features as they are, at a length (None: at the paper's rate as printed, the lowest there is)."""

    def takes(r: Record) -> bool:
        right = r["lr"] == PAPERS_PROBE.lr if length is None else r["length"] == length
        return r["weight_decay"] == weight_decay and right

    return Probe(label, lambda r: r["solver"] == "sgd" and not r["standardised"] and takes(r))


PAPERS = sgd("the paper's", 1.0, PAPERS_PROBE.weight_decay)
PRINTED = sgd("as printed, on fewer images", None, PAPERS_PROBE.weight_decay)
LONGER = sgd("four times as long", 4.0, PAPERS_PROBE.weight_decay)
NO_DECAY = sgd("the paper's, weight decay 0", 1.0, 0.0)
STANDARDISED = Probe(
    "the paper's, standardised features", lambda r: r["solver"] == "sgd" and r["standardised"] and r["lr"] == 0.01
)
TUNED = Probe("tuned", lambda r: r["solver"] == "logistic")


class ProbeResults:
    """Accuracies [%] and gaps [points] of the probe study.

    Args:
        results: of the reproduction.
    """

    def __init__(self, results: Results) -> None:
        self.results, self.settings = results, results.scale.probes
        self.sources: list[Source] = [results.scale.source(name) for name in self.settings.sources]

    @property
    def most(self) -> int:
        """The largest number of training images."""
        return max(self.settings.sizes)

    def targets(self, source: Source, further: bool = False) -> list[str]:
        """The targets of a source, of the study alone or also the further ones; none of the source's own images."""
        more = self.settings.further if further else {}
        return [t for t in (*self.settings.targets, *more) if source.data not in (t, more.get(t))]

    def record(self, network: Network, target: str, probe: Probe, size: int | None = None) -> Record | None:
        """The record behind an accuracy, with the setting that was taken."""
        result = self.results.of("probe", network, target)
        return None if result is None else probe.read(result, size or self.most)

    def accuracy(self, network: Network, target: str, probe: Probe, size: int | None = None) -> float | None:
        """Test accuracy [%] of a probe of one network; None where it was not run."""
        record = self.record(network, target, probe, size)
        return None if record is None else record["test"]

    def tested(self, network: Network, target: str) -> int | None:
        """How many test images there are."""
        result = self.results.of("probe", network, target)
        return None if result is None else result["test"]

    def pairs(
        self, source: Source, target: str, probe: Probe, eps: float | None = None, size: int | None = None
    ) -> dict[int, tuple[float, float]]:
        """Seed -> accuracies of the standard and the robust backbone, at the eps of the tables by default."""
        return self.results.pairs(source, lambda network: self.accuracy(network, target, probe, size), eps)

    def gaps(
        self, source: Source, target: str, probe: Probe, eps: float | None = None, size: int | None = None
    ) -> dict[int, float]:
        """Seed -> accuracy [points] of the robust backbone less that of the standard one."""
        return {
            seed: robust - standard for seed, (standard, robust) in self.pairs(source, target, probe, eps, size).items()
        }

    def over_targets(
        self, source: Source, value: Callable[[str], dict[int, float]], targets: list[str] | None = None
    ) -> list[float]:
        """The mean over targets for each seed, of the targets that every seed with any result has.

        Args:
            value: target -> seed -> value.
            targets: those of the source by default.
        """
        by_target = {t: value(t) for t in (self.targets(source) if targets is None else targets)}
        seeds = sorted({seed for values in by_target.values() for seed in values})
        shared = [values for values in by_target.values() if values and set(values) == set(seeds)]
        return [sum(values[seed] for values in shared) / len(shared) for seed in seeds] if shared else []
