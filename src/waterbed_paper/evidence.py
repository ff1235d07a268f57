"""The register of evidence: which function measures which claim's quantity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from waterbed_paper.found import Evidence, Found
from waterbed_paper.scale import Network

EVIDENCE: dict[str, Callable[[Found], Iterator[Evidence]]] = {}


def about(*ids: str) -> Callable:
    """Registers a function as the evidence on claims."""

    def register(function: Callable[[Found], Iterator[Evidence]]) -> Callable:
        for id in ids:
            EVIDENCE[id] = function
        return function

    return register


def exactly(label: str, value: float) -> Evidence:
    """A number without chance: an interval of no width."""
    return Evidence(label, value, lambda level: (value, value), 1)


def first_results(found: Found, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and result, of one kind of experiment, of the standard and the robust network of every source, first seed;
    those that were run."""
    for source in found.scale.sources:
        for eps in (0.0, source.robust):
            network = Network(source.name, "adversarial" if eps else "standard", eps, 0)
            result = found.of(kind, network)
            if result is not None:
                yield network.name.rsplit("/", 1)[0], result
