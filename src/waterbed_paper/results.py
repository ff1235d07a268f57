"""The results of a reproduction, as evidence, figures and tables ask for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from waterbed_paper.evidence import Evidence, over_images, over_seeds
from waterbed_paper.graph import Graph
from waterbed_paper.plan import node_id
from waterbed_paper.scale import Network, Scale, Source

Value = Callable[[Network], float | None]
Pairs = dict[int, tuple[float, float]]
# How the heads of the modes "linear" and 0 were trained; the order in which they decide claims.
PROTOCOLS = ("tuned", "paper", "rate")
PAPERS_SOURCES = ("cifar10", "cifar100", "imagenet")


class Results:
    """Results of a reproduction by network, measure and target; None where an experiment was not run.

    Args:
        scale: what the reproduction runs.
        graph: its experiments and their results, some of which may be missing.
    """

    def __init__(self, scale: Scale, graph: Graph) -> None:
        self.scale, self.graph = scale, graph

    def of(self, kind: str, network: Network, *rest: str) -> dict[str, Any] | None:
        """One network's result."""
        id = node_id(kind, network, *rest)
        return self.graph.result(id) if id in self.graph.nodes else None

    def reader(self, kind: str, read: Callable[[dict[str, Any]], Any], *rest: str) -> Value:
        """A number of a kind of result, for any network."""

        def value(network: Network) -> float | None:
            result = self.of(kind, network, *rest)
            return None if result is None else read(result)

        return value

    def first_of(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and result, of one kind of experiment, of the standard and the robust network of every source, first
        seed; those that were run."""
        for source in self.scale.sources:
            for eps in (0.0, source.robust):
                network = source.network(eps)
                result = self.of(kind, network)
                if result is not None:
                    yield network.name.rsplit("/", 1)[0], result

    def theory(self, key: str, label: str, beside: bool = False) -> Iterator[Evidence]:
        """One estimate over images of the experiments on theory, as evidence."""
        for name, result in self.first_of("theory"):
            yield over_images(f"{name}: {label}", result[key], beside)

    def measure(self, name: str) -> Value:
        """The value of a measure."""
        return self.reader("measures", lambda r: r[name]["value"])

    def accuracy(self, target: str, mode: str, protocol: str = "rate") -> Value:
        """Test accuracy [%] after fine-tuning by one of PROTOCOLS."""
        return self.fine_tuned(target, mode, protocol, lambda row: row["accuracy"])

    def fine_tuned(self, target: str, mode: str, protocol: str, read: Callable[[dict[str, Any]], Any]) -> Value:
        """Anything of the row of a fine-tuning by one of PROTOCOLS."""
        if protocol == "rate":
            return self.reader("transfer", read, target, f"mode-{mode}")
        return self.reader("protocols", lambda rows: read(rows[protocol]), target, f"mode-{mode}")

    def of_seeds(self, source: Source, kind: str, value: Value) -> list[Any]:
        """The value of every seed of the "standard", or of the "robust" network."""
        eps = 0.0 if kind == "standard" else source.robust
        values = [value(source.network(eps, seed)) for seed in range(source.seeds_at(eps))]
        return [v for v in values if v is not None]

    def pairs(self, source: Source, value: Value, eps: float | None = None) -> Pairs:
        """Seed -> (standard, robust), of the seeds that have both; robust at that eps, else at that of the tables."""
        by_seed = {}
        for seed in range(source.seeds_at(0.0)):
            both = [value(source.network(at, seed)) for at in (0.0, source.robust if eps is None else eps)]
            if all(v is not None for v in both):
                by_seed[seed] = (both[0], both[1])
        return by_seed

    def pairs_with(self, source: Source, value: Value, objective: str) -> list[tuple[Any, Any, Any]]:
        """(standard, robust, trained by that objective at the same eps) of every seed that has all three."""
        three = [
            (standard, robust, value(Network(source.name, objective, source.robust, seed)))
            for seed, (standard, robust) in self.pairs(source, value).items()
        ]
        return [each for each in three if each[2] is not None]

    def difference(self, label: str, source: Source, value: Value, robust_less_standard: bool = True) -> list[Evidence]:
        """Robust less standard, or the other way round, paired by seed; nothing where nothing was run."""
        sign = 1 if robust_less_standard else -1
        values = [sign * (robust - standard) for standard, robust in self.pairs(source, value).values()]
        return [over_seeds(f"{source.name}: {label}", values)] if values else []

    def by_eps(self, source: Source, value: Value, seed: int) -> dict[float, float]:
        """eps -> value of the adversarially trained networks (0: standard) of one seed."""
        values = {}
        for eps in source.eps:
            if seed < source.seeds_at(eps):
                number = value(source.network(eps, seed))
                if number is not None:
                    values[eps] = number
        return values

    def steps(
        self,
        label: str,
        source: Source,
        value: Value,
        sign: float = 1.0,
        among: Callable[[float], bool] = lambda eps: True,
    ) -> list[Evidence]:
        """Value at each eps less that at the one before, paired by seed, for the eps that all seeds with two or more
        share; and for the finer steps that only some seeds have."""
        points = []
        for seed in range(max(source.seeds.values())):
            by_eps = {e: v for e, v in self.by_eps(source, value, seed).items() if among(e)}
            if len(by_eps) > 1:
                points.append(by_eps)
        if not points:
            return []
        shared = sorted(set.intersection(*(set(p) for p in points)))
        finest = sorted(max(points, key=len))
        steps = list(dict.fromkeys([*pairwise(shared), *pairwise(finest)]))
        return [
            over_seeds(
                f"{source.name}: {label}, from eps {a:g} to {b:g}",
                [sign * (p[b] - p[a]) for p in points if a in p and b in p],
            )
            for a, b in steps
        ]

    def sources_on(self, data: str | None) -> list[Source]:
        """The sources trained on that data set; without one, those trained on none of the paper's."""
        return [s for s in self.scale.sources if (s.data == data if data else s.data not in PAPERS_SOURCES)]

    def targets(self, source: Source) -> list[str]:
        """The targets of the source."""
        return [t for t in self.scale.transfers.targets if t != source.data]

    def protocol_label(self, protocol: str) -> str:
        """One of PROTOCOLS in a few words."""
        decay = f"weight decay {self.scale.transfers.training.weight_decay:g}"
        return {"tuned": "tuned", "paper": "the paper's protocol", "rate": decay}[protocol]

    def gaps(
        self, source: Source, target: str, mode: str, eps: float | None = None, protocol: str = "rate"
    ) -> dict[int, float]:
        """Seed -> accuracy [points] of the robust backbone less that of the standard one."""
        pairs = self.pairs(source, self.accuracy(target, mode, protocol), eps)
        return {seed: robust - standard for seed, (standard, robust) in pairs.items()}


def deciding(found: Mapping[str, Sequence[Sequence[float]]]) -> str | None:
    """Which of several ways decides: the first whose parts are all of several seeds, else the first.

    >>> deciding({"tuned": [[1.0]], "paper": [[1.0, 2.0]]}), deciding({"tuned": [[1.0]]}), deciding({})
    ('paper', 'tuned', None)
    """
    return next((way for way, parts in found.items() if min(map(len, parts)) > 1), next(iter(found), None))


def shared_seeds(results: Sequence[Mapping[int, Any]]) -> list[int]:
    """The seeds that all of several results have."""
    return sorted(set.intersection(*(set(r) for r in results))) if results else []


def log_of(value: Value, factor: float = 1.0) -> Value:
    """The logarithm of a value, times a factor."""

    def logarithm(network: Network) -> float | None:
        number = value(network)
        return None if number is None else factor * math.log(number)

    return logarithm
