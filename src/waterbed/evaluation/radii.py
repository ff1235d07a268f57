"""Accuracies by attack and radius: what the names of attacks say, for tables and pictures in order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

CLEAN = "clean"
Accuracy = TypeVar("Accuracy")


def attack_order(name: str) -> tuple[str, float]:
    """Kind and radius of an attack by its name; "" of "clean", and the whole name of what names no radius.

    >>> attack_order("pgd-20 l2 eps=0.5"), attack_order("clean")
    (('pgd-20 l2', 0.5), ('', 0.0))
    """
    if name == CLEAN:
        return "", 0.0
    match = re.fullmatch(r"(.*) eps=([^ ]+)", name)
    return (match[1], float(match[2])) if match else (name, 0.0)


def by_radius(accuracies: Mapping[str, Accuracy]) -> dict[str, dict[float, Accuracy]]:
    """Kind of attack -> radius -> accuracy, that of "clean" at 0; only kinds with two radii or more.

    >>> by_radius({"clean": 90, "pgd l2 eps=0.5": 40, "pgd l2 eps=0.25": 60, "other eps=1": 3})
    {'pgd l2': {0.0: 90, 0.25: 60, 0.5: 40}}
    """
    kinds: dict[str, dict[float, Accuracy]] = {}
    for name, accuracy in sorted(accuracies.items(), key=lambda item: attack_order(item[0])):
        kind, radius = attack_order(name)
        if kind and radius > 0:
            clean = {0.0: accuracies[CLEAN]} if CLEAN in accuracies else {}
            kinds.setdefault(kind, clean)[radius] = accuracy
    return {kind: points for kind, points in kinds.items() if sum(radius > 0 for radius in points) > 1}
