"""The register of what the reproduction judges and prints: every topic's claims, figures and tables, listed one by one.

A new topic is a file in :mod:`waterbed_paper.topics` and a line in each list that it has something for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from waterbed.errors import UsageError, check_choice
from waterbed_paper.claims import Claim
from waterbed_paper.figures import PaperFigure
from waterbed_paper.tables import PaperTable
from waterbed_paper.topics import (
    accuracy,
    data_sets,
    fine_tuning,
    fine_tuning_curves,
    information,
    inversion,
    inversion_by_eps,
    inversion_convergence,
    perturbations,
    representation,
    robustness,
    shift,
    transfer,
    transfer_distance,
    transfer_sizes,
    weights,
)

Part = TypeVar("Part", PaperFigure, PaperTable)


def register_claims(groups: Mapping[str, Iterable[Claim]]) -> dict[str, Claim]:
    """All claims by id, in the order of the groups.

    Raises:
        UsageError: an id that is there twice, or a claim without evidence.
    """
    claims: dict[str, Claim] = {}
    for claim in (claim for group in groups.values() for claim in group):
        if claim.id in claims:
            raise UsageError(f"claim id={claim.id!r} is there twice; give each claim an id of its own")
        if not callable(claim.evidence):
            raise UsageError(
                f"claim id={claim.id!r} has no evidence ({claim.evidence!r}); give it a function of results"
            )
        claims[claim.id] = claim
    return claims


def register_parts(
    kind: str, parts: Iterable[Part], name: Callable[[Part], str], order: Sequence[str], claims: Mapping[str, Claim]
) -> tuple[Part, ...]:
    """All figures, or all tables, in the order of the page.

    Raises:
        UsageError: one that speaks to an unknown claim, a name that is there twice, and one that the order has not or
            has alone.
    """
    by_name: dict[str, Part] = {}
    for part in parts:
        for id in part.claims:
            check_choice(f"{kind} {name(part)!r}: the claim", id, claims)
        if name(part) in by_name:
            raise UsageError(f"{kind}={name(part)!r} is there twice; give each {kind} a name of its own")
        by_name[name(part)] = part
    for unmatched in sorted(by_name.keys() ^ set(order)):
        where = "is not in the order" if unmatched in by_name else "is in the order alone"
        raise UsageError(f"{kind}={unmatched!r} {where}; list it in both places")
    return tuple(by_name[one] for one in order)


# The groups of the page, in the order of the paper.
GROUPS = {
    "Information about the input": (*perturbations.CLAIMS, *information.CLAIMS),
    "Information in the weights": (*weights.CLAIMS, *accuracy.CLAIMS),
    "Inversion": (*inversion.CLAIMS, *inversion_convergence.CLAIMS, *inversion_by_eps.CLAIMS),
    "Representations and transfer": (
        *representation.CLAIMS,
        *transfer.CLAIMS,
        *transfer_distance.CLAIMS,
        *transfer_sizes.CLAIMS,
    ),
    "Fine-tuning more than the head": (*fine_tuning.CLAIMS, *fine_tuning_curves.CLAIMS),
    "Robustness of what is built on a robust backbone": robustness.CLAIMS,
    "Shifts of the distribution": shift.CLAIMS,
}
CLAIMS = register_claims(GROUPS)

FIGURES = register_parts(
    "figure",
    (
        *perturbations.FIGURES,
        *information.FIGURES,
        *weights.FIGURES,
        *accuracy.FIGURES,
        *inversion.FIGURES,
        *inversion_convergence.FIGURES,
        *inversion_by_eps.FIGURES,
        *representation.FIGURES,
        *transfer.FIGURES,
        *transfer_distance.FIGURES,
        *fine_tuning.FIGURES,
        *fine_tuning_curves.FIGURES,
        *shift.FIGURES,
    ),
    name=lambda figure: figure.name,
    order=(
        *("fig-1", "fig-1-elsewhere", "fig-2", "fig-3", "fig-4", "fig-5", "fig-6", "fig-7", "fig-8", "fig-9"),
        *("fig-10", "fig-11", "fig-12", "fig-14", "transfer-by-eps", "other-distances", "other-curves"),
        *("prop-3.2", "eq-8", "gaussian-noise", "accuracy", "trades", "shift"),
    ),
    claims=CLAIMS,
)

TABLES = register_parts(
    "table",
    (*transfer.TABLES, *transfer_sizes.TABLES, *data_sets.TABLES, *fine_tuning.TABLES),
    name=lambda table: table.number,
    order=[str(number) for number in range(1, 13)],
    claims=CLAIMS,
)
