"""Transfer from two sizes of network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from waterbed_paper.claims import OVER_SEEDS, Claim
from waterbed_paper.evidence import Evidence, over_seeds
from waterbed_paper.results import Results, shared_seeds
from waterbed_paper.tables import TransferTable


def _sizes(results: Results, sign: int) -> Iterator[Evidence]:
    """Gap of the larger network less that of the smaller, where both have that sign; every target and mode."""
    for large in results.scale.sources:
        if large.larger_than is None:
            continue
        small = results.scale.source(large.larger_than)
        for mode in results.scale.transfers.modes:
            for target in results.targets(large):
                gaps = [results.gaps(source, target, mode) for source in (large, small)]
                seeds = shared_seeds(gaps)
                if seeds and all(sign * float(np.mean([*g.values()])) > 0 for g in gaps):
                    label = f"{large.name} and {small.name} to {target}, mode {mode}"
                    yield over_seeds(label, [gaps[0][seed] - gaps[1][seed] for seed in seeds])


CLAIMS = (
    Claim(
        id="larger-network",
        where="Tables 3, 11 and 12; Sec. 5",
        sentence="Where the robust backbone is better, a larger network has a larger gap.",
        quantity="gap [points, robust less standard] of the larger network, less that of the smaller, on targets "
        "where the gap of both is positive",
        test="For every target and mode by itself. " + OVER_SEEDS,
        evidence=partial(_sizes, sign=1),
    ),
    Claim(
        id="larger-network-near",
        where="Tables 3, 11 and 12; Sec. 5",
        sentence="Where the standard backbone is better, a larger network has a smaller gap.",
        quantity="gap [points, standard less robust] of the smaller network, less that of the larger, on targets "
        "where the gap of both is positive",
        test="For every target and mode by itself. " + OVER_SEEDS,
        evidence=partial(_sizes, sign=-1),
    ),
)

TABLES = (
    TransferTable(
        "3", "Table 3: two sizes of network, from CIFAR-100", ("larger-network", "larger-network-near"), both_sizes=True
    ),
    TransferTable(
        "11",
        "Table 11: two sizes of network, from CIFAR-100 (the numbers of Table 3)",
        ("larger-network", "larger-network-near"),
        both_sizes=True,
    ),
    TransferTable(
        "12",
        "Table 12: robust less standard, two sizes of network, from CIFAR-100",
        ("larger-network", "larger-network-near"),
        both_sizes=True,
    ),
)
