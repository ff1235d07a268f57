"""The numbers of the paper's Tables 1 to 12 as printed, and where the paper contradicts itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from waterbed.errors import check_choice
from waterbed.files import read_toml

# The fields that a table's rows and its columns go by, as the table is printed.
LAYOUT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "1": (("model",), ("source", "target")),
    "2": (("model",), ("target",)),
    "3": (("mode", "model"), ("network", "target")),
    "4": (("target",), ("metric",)),
    "5": (("target",), ("model",)),
    "6": (("mode", "model"), ("source", "target")),
    "7": (("mode", "model"), ("target",)),
    "8": (("mode",), ("source", "target")),
    "9": (("mode",), ("target",)),
    "10": (("mode",), ("target",)),
    "11": (("mode", "model"), ("network", "target")),
    "12": (("mode",), ("network", "target")),
}
FILTERS = ("metric", "unit", "source", "target", "network", "model", "mode", "eps")


@dataclass(frozen=True)
class Published:
    """One printed number, with every table that prints it.

    Attributes:
        value: as printed; nothing is corrected.
        unit: "%", "points" or "count".
        metric: "top-1", "top-1 difference" (robust less standard), or of Table 4 "classes", "training size" and
            "test size".
        tables: "1" to "12".
        target: what was fine-tuned on, in the names of the catalogue; the data set itself in Table 4.
        source, network: what was trained before.
        model: "robust" or "standard"; None for a difference.
        mode: of fine-tuning: 0, 1, 2, or "linear" in Table 5.
        eps: of the robust network, L2.
        note: what in the paper speaks against the number.
    """

    value: float
    unit: str
    metric: str
    tables: tuple[str, ...]
    target: str
    source: str | None = None
    network: str | None = None
    model: str | None = None
    mode: int | str | None = None
    eps: float | None = None
    note: str = ""

    def place(self, table: str) -> tuple[tuple[int | str, ...], tuple[int | str, ...]]:
        """Row and column of the number in one of its tables, in the printed labels.

        >>> number = printed_numbers("6", source="cifar10", target="svhn", mode=2, model="robust")[0]
        >>> number.value, number.place("6")
        (96.51, ((2, 'Rob'), ('C-10', 'SVHN')))
        """
        check_choice("table", table, self.tables)
        labels = _file()["labels_of_table_4" if table == "4" else "labels"]
        row, column = (tuple(labels.get(getattr(self, f), getattr(self, f)) for f in part) for part in LAYOUT[table])
        return row, column


@dataclass(frozen=True)
class Slip:
    """A place where the paper contradicts itself: what is printed or said there, and what speaks against it."""

    id: str
    where: str
    says: str
    evidence: str


def printed_numbers(table: str | None = None, **filters: Any) -> list[Published]:
    """The printed numbers, of one table or of all, each once.

    Args:
        table: "1" to "12"; None for all.
        filters: values of :data:`FILTERS`.

    Raises:
        UsageError: an unknown table, filter or value.

    >>> [n.value for n in printed_numbers("8", source="cifar100", target="cifar10")]
    [-5.71, -2.12, -0.11]
    >>> printed_numbers("8", source="cifar100", target="cifar10", mode=2)[0].note
    'the printed accuracies give -0.38'
    """
    numbers = _numbers()
    if table is not None:
        check_choice("table", table, LAYOUT)
        numbers = tuple(n for n in numbers if table in n.tables)
    for name, value in filters.items():
        check_choice("the filter", name, FILTERS)
        check_choice(name, value, dict.fromkeys(getattr(n, name) for n in _numbers()))
        numbers = tuple(n for n in numbers if getattr(n, name) == value)
    return list(numbers)


def table_frame(table: str) -> pd.DataFrame:
    """One table in its printed layout; of Table 4 the numbers alone.

    >>> print(table_frame("1"))  # doctest: +NORMALIZE_WHITESPACE
    source  C-10                       C-100
    target C-100 F-MNIST  MNIST   SVHN  C-10 F-MNIST  MNIST   SVHN
    model
    Rob    44.92   76.89  88.11  58.34 74.47   84.85  94.96  70.61
    St     35.76   67.15  64.17  36.60 80.18   76.10  79.46  55.60
    """
    values = {number.place(table): number.value for number in printed_numbers(table)}
    rows, columns = (list(dict.fromkeys(place[axis] for place in values)) for axis in (0, 1))
    cells = [[values[row, column] for column in columns] for row in rows]
    return pd.DataFrame(cells, index=_axis(rows, LAYOUT[table][0]), columns=_axis(columns, LAYOUT[table][1]))


@cache
def slips() -> tuple[Slip, ...]:
    """Where the paper contradicts itself, or a formula is not what it stands for.

    >>> slips()[1].evidence
    '94.82 - 95.20 = -0.38 (Tables 3, 6 and 11); rounding cannot make up 0.27'
    """
    return tuple(Slip(**slip) for slip in _file()["slips"])


def _axis(labels: list[tuple[int | str, ...]], names: tuple[str, ...]) -> pd.Index:
    if len(names) == 1:
        return pd.Index([label for (label,) in labels], name=names[0])
    return pd.MultiIndex.from_tuples(labels, names=names)


@cache
def _file() -> dict[str, Any]:
    return read_toml(resources.files("waterbed_paper").joinpath("published.toml"))


@cache
def _numbers() -> tuple[Published, ...]:
    file = _file()
    numbers = [number for block in file["transfers"] for number in _transfers(block)]
    numbers += [
        Published(value, "count", metric, ("4",), target=name)
        for name, sizes in file["sizes"].items()
        for metric, value in zip(("classes", "training size", "test size"), sizes, strict=True)
    ]
    numbers += [Published(**{**number, "tables": tuple(number["tables"])}) for number in file["numbers"]]
    return tuple(version for number in numbers for version in _versions(number))


def _transfers(block: dict[str, Any]) -> Iterator[Published]:
    """The accuracies of one block, then their differences."""
    what = {"source": block["source"], "network": block["network"]}
    eps = {"robust": block["eps"], "standard": None}
    for mode, tables in enumerate(block["accuracy_tables"]):
        for model in ("robust", "standard"):
            for target, value in zip(block["targets"], block[model][mode], strict=True):
                yield Published(
                    value, "%", "top-1", tuple(tables), target, **what, model=model, mode=mode, eps=eps[model]
                )
    for mode, row in enumerate(block["difference"]):
        accuracies = zip(block["robust"][mode], block["standard"][mode], strict=True)
        for target, value, (robust, standard) in zip(block["targets"], row, accuracies, strict=True):
            right = round(robust - standard, 2)
            yield Published(
                value,
                "points",
                "top-1 difference",
                tuple(block["difference_tables"]),
                target,
                **what,
                mode=mode,
                eps=block["eps"],
                note="" if value == right else f"the printed accuracies give {right:.2f}",
            )


def _versions(number: Published) -> Iterator[Published]:
    """The number, and before it what one of its tables prints in its place."""
    for other in _file()["otherwise"]:
        table = other["table"]
        if table in number.tables and all(
            getattr(number, key) == other[key] for key in ("source", "model", "mode", "target")
        ):
            yield replace(number, value=other["value"], tables=(table,), note=other["note"])
            number = replace(number, tables=tuple(t for t in number.tables if t != table))
    yield number
