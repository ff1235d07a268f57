"""Transfer from two sizes of network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from waterbed_paper.claims import Claim
from waterbed_paper.evidence import Evidence, unpaired
from waterbed_paper.results import PROTOCOLS, Results, deciding
from waterbed_paper.tables import TransferTable
from waterbed_paper.topics.transfer import FAR


def _sizes(results: Results, targets: tuple[str, ...]) -> Iterator[Evidence]:
    """Gap of the larger network less that of the smaller, which have nothing in common, on these targets in each mode.

    Which targets count was settled by the paper's tables, not by what comes out here. The first of PROTOCOLS decides.
    """
    for large in results.scale.sources:
        if large.larger_than is None:
            continue
        small = results.scale.source(large.larger_than)
        for mode in results.scale.transfers.modes:
            for target in (t for t in results.targets(large) if t in targets):
                ways = {}
                for protocol in PROTOCOLS:
                    gaps = [[*results.gaps(s, target, mode, protocol=protocol).values()] for s in (large, small)]
                    if all(gaps):
                        ways[protocol] = gaps
                for protocol, gaps in ways.items():
                    name = f"{large.name} and {small.name} to {target}, mode {mode}"
                    label = f"{name}, {results.protocol_label(protocol)}"
                    yield unpaired(label, *gaps, beside=protocol != deciding(ways))


UNPAIRED = (
    "For every target and mode by itself; targets by the paper's tables, whatever the sign here. 95 % t interval over "
    "seeds, not paired (Welch), as networks of two sizes share nothing: above 0 supports, below 0 contradicts."
)
CLAIMS = (
    Claim(
        id="larger-network",
        where="Tables 3, 11 and 12; Sec. 5",
        sentence="Where the robust backbone is better, a larger network has a larger gap.",
        quantity="gap [points, robust less standard] of the larger network, less that of the smaller, from CIFAR-100 "
        "to Fashion-MNIST, MNIST and SVHN, where it is positive in the paper",
        test=UNPAIRED,
        evidence=partial(_sizes, targets=FAR),
    ),
    Claim(
        id="larger-network-near",
        where="Tables 3, 11 and 12; Sec. 5",
        sentence="Where the standard backbone is better, a larger network has a smaller gap.",
        quantity="gap [points, standard less robust] of the smaller network, less that of the larger, from CIFAR-100 "
        "to CIFAR-10, where it is positive in the paper",
        test=UNPAIRED,
        evidence=partial(_sizes, targets=("cifar10",)),
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
