"""The probe study's hypotheses: how much of "robust backbones transfer better" is the probe.

They were written, with statistic, direction and threshold, before the study was run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from waterbed_paper.effects import Effect, difference_at_equal, holm, mean_over_strata
from waterbed_paper.probe_results import (
    LONGER,
    NO_DECAY,
    PAPERS,
    PRINTED,
    STANDARDISED,
    TUNED,
    Probe,
    ProbeResults,
)
from waterbed_paper.scale import Source

FAR = ("mnist", "fashion-mnist")
ALPHA = 0.05


@dataclass(frozen=True)
class Hypothesis:
    """A statement that was made before the runs.

    Attributes:
        id: short name.
        sentence: the statement.
        statistic: what is above ``threshold`` where it is true.
        effect: its value with an error, from the results; None where nothing was run.
        threshold: the mark.
    """

    id: str
    sentence: str
    statistic: str
    effect: Callable[[ProbeResults], Effect | None]
    threshold: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """A hypothesis with its test.

    Attributes:
        effect: None: not run.
        p, adjusted: two-sided, and corrected for the number of hypotheses.
    """

    hypothesis: Hypothesis
    effect: Effect | None
    p: float
    adjusted: float

    @property
    def verdict(self) -> str:
        """By the corrected p and the side of the threshold on which the effect lies."""
        if self.effect is None:
            return "not run"
        if self.adjusted >= ALPHA:
            return "undecided"
        return "holds" if self.effect.value > self.hypothesis.threshold else "does not hold"


def _gap_change(here: Probe, there: Probe, few: bool = False) -> Callable[[ProbeResults], Effect | None]:
    """Gap by one probe less that by another, mean over targets; ``few``: the first on the fewest training images."""

    def effect(r: ProbeResults) -> Effect | None:
        size = min(r.settings.sizes) if few else None

        def change(source: Source, target: str) -> dict[int, float]:
            a, b = r.gaps(source, target, here, size=size), r.gaps(source, target, there)
            return {seed: a[seed] - b[seed] for seed in a.keys() & b.keys()}

        return _mean(r, change)

    return effect


def _mean(
    r: ProbeResults, value: Callable[[Source, str], Mapping[int, float]], targets: tuple[str, ...] | None = None
) -> Effect | None:
    """The mean over targets, then over seeds, then over sources."""
    strata = {}
    for source in r.sources:
        among = [t for t in r.targets(source) if targets is None or t in targets]
        strata[source.name] = r.over_targets(source, lambda t, source=source: dict(value(source, t)), among)
    return mean_over_strata(strata)


def _gap(probe: Probe, targets: tuple[str, ...] | None = None) -> Callable[[ProbeResults], Effect | None]:
    return lambda r: _mean(r, lambda source, target: r.gaps(source, target, probe), targets)


def _same_sign(r: ProbeResults) -> Effect | None:
    def agrees(source: Source, target: str) -> dict[int, float]:
        a, b = r.gaps(source, target, PAPERS), r.gaps(source, target, TUNED)
        return {seed: float((a[seed] > 0) == (b[seed] > 0)) for seed in a.keys() & b.keys()}

    return _mean(r, agrees)


def _swing(r: ProbeResults) -> Effect | None:
    def more(source: Source, target: str) -> dict[int, float]:
        papers, tuned = (r.pairs(source, target, probe) for probe in (PAPERS, TUNED))
        return {
            seed: abs(tuned[seed][0] - papers[seed][0]) - abs(papers[seed][1] - papers[seed][0])
            for seed in papers.keys() & tuned.keys()
        }

    return _mean(r, more)


def matched_points(r: ProbeResults, source: Source, probe: Probe) -> Iterator[tuple[float, float, float]]:
    """eps, accuracy on the source's own test images and mean accuracy on its targets, of every network that has all."""
    clean = r.results.reader("accuracy", lambda result: result["clean"])
    for network in source.networks():
        if network.objective in ("standard", "adversarial") and network.eps in r.settings.eps:
            values = [r.accuracy(network, target, probe) for target in r.targets(source)]
            own = clean(network)
            if own is not None and values and all(v is not None for v in values):
                yield network.eps, own, sum(values) / len(values)


def matched(r: ProbeResults, source: Source, probe: Probe = TUNED) -> Effect | None:
    """Robust less standard [points] at equal accuracy on the source, of a source with three eps above 0 or more."""
    points = [*matched_points(r, source, probe)]
    if len({eps for eps, *_ in points if eps > 0}) < 3:
        return None
    eps, own, mean = zip(*points, strict=True)
    return difference_at_equal(own, [e > 0 for e in eps], mean)


def _matched(r: ProbeResults) -> Effect | None:
    return next(filter(None, (matched(r, source) for source in r.sources)), None)


def _beyond_the_tables(r: ProbeResults) -> Effect | None:
    """Accuracy at the eps of the tables less that at the largest, of sources that have a larger one."""
    strata = {}
    for source in r.sources:
        largest = max(e for e in source.eps if e in r.settings.eps)
        if largest > source.robust:

            def fall(target: str, source: Source = source, largest: float = largest) -> dict[int, float]:
                a, b = (r.gaps(source, target, TUNED, eps) for eps in (source.robust, largest))
                return {seed: a[seed] - b[seed] for seed in a.keys() & b.keys()}

            strata[source.name] = r.over_targets(source, fall)
    return mean_over_strata(strata)


HYPOTHESES = (
    Hypothesis(
        "probe",
        "The paper's probe favours the robust backbone: its gap is larger than a tuned probe's.",
        "gap by the paper's probe less gap by the tuned one [points], mean over targets",
        _gap_change(PAPERS, TUNED),
    ),
    Hypothesis(
        "far",
        "On the paper's far tasks (MNIST, Fashion-MNIST) the robust backbone stays ahead under a tuned probe.",
        "gap by the tuned probe [points], mean over MNIST and Fashion-MNIST",
        _gap(TUNED, FAR),
    ),
    Hypothesis(
        "generic",
        "Over all targets the robust backbone is the better feature extractor under a tuned probe.",
        "gap by the tuned probe [points], mean over targets",
        _gap(TUNED),
    ),
    Hypothesis(
        "generic-papers",
        "Over all targets the robust backbone is the better feature extractor under the paper's probe.",
        "gap by the paper's probe [points], mean over targets",
        _gap(PAPERS),
    ),
    Hypothesis(
        "same-sign",
        "Which backbone wins on a target does not depend on the probe.",
        "share of targets on which the paper's and the tuned probe's gap have the same sign, above 0.8",
        _same_sign,
        threshold=0.8,
    ),
    Hypothesis(
        "swing",
        "The probe moves the standard backbone's accuracy by more than the backbones differ.",
        "|tuned less the paper's accuracy| of the standard backbone, less |gap by the paper's probe| [points], mean "
        "over targets",
        _swing,
    ),
    Hypothesis(
        "weight-decay",
        "The gap falls when weight decay goes to 0.",
        "gap by the paper's probe less that at weight decay 0 [points], mean over targets",
        _gap_change(PAPERS, NO_DECAY),
    ),
    Hypothesis(
        "length",
        "The gap falls when the probe is trained longer: learning rate times steps.",
        "gap by the protocol as printed on these few images, less that four times as long as the paper's [points], "
        "mean over targets",
        _gap_change(PRINTED, LONGER),
    ),
    Hypothesis(
        "standardise",
        "The gap falls when features are standardised.",
        "gap by the paper's probe less that on standardised features (rate 0.01) [points], mean over targets",
        _gap_change(PAPERS, STANDARDISED),
    ),
    Hypothesis(
        "few-images",
        "The fewer training images the target has, the larger the gap.",
        "gap by the tuned probe on the fewest images less that on the most [points], mean over targets",
        _gap_change(TUNED, TUNED, few=True),
    ),
    Hypothesis(
        "matched",
        "At equal accuracy on the source, robust backbones transfer better.",
        "coefficient of being robust in a regression of the tuned probe's accuracy, mean over targets, on the clean "
        "accuracy on the source [points], CIFAR-10 networks of every eps",
        _matched,
    ),
    Hypothesis(
        "more-eps",
        "Above the eps of the tables more robustness transfers worse.",
        "accuracy by the tuned probe at eps 1 less that at eps 2 [points], mean over targets, from CIFAR-10",
        _beyond_the_tables,
    ),
)


def judge_hypotheses(results: ProbeResults) -> list[Outcome]:
    """Every hypothesis with its two-sided t test, corrected for the number that was written down (Holm)."""
    effects = [h.effect(results) for h in HYPOTHESES]
    p = [1.0 if e is None else e.p(h.threshold) for h, e in zip(HYPOTHESES, effects, strict=True)]
    return [Outcome(*row) for row in zip(HYPOTHESES, effects, p, holm(p), strict=True)]
