"""The paper's tables with our results beside the published numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from waterbed.models.checkpoints import read_card
from waterbed.reporting.page import Pair, Section, Table
from waterbed.transfer_learning.finetune import RATES
from waterbed_paper.figures_transfer import of_seeds
from waterbed_paper.found import Evidence, Found, over_seeds
from waterbed_paper.published import LAYOUT, Published, published
from waterbed_paper.scale import SCALES, Scale, Source

NOT_RUN, NOT_PRINTED = "not run", "–"
NETWORKS = {"resnet50": "ResNet-50", "resnet18": "ResNet-18"}
BOTH_SIZES = ("3", "11", "12")
WITH_OTHER_SOURCES = ("1", "5", "6", "8")
CLAIMS_OF = {
    "1": ("far-tasks", "far-tasks-others", "asymmetry", "complex-target"),
    "2": ("far-tasks", "near-tasks"),
    "3": ("larger-network", "larger-network-near"),
    "5": ("table-5",),
    "6": ("batch-norm", "batch-norm-simple"),
    "7": ("batch-norm", "batch-norm-simple"),
    "8": ("fig-14",),
    "9": ("fig-14",),
    "10": ("fig-14",),
    "11": ("larger-network", "larger-network-near"),
    "12": ("larger-network", "larger-network-near"),
}
TITLES = {
    "1": "Table 1: transfer from CIFAR-10 and CIFAR-100, mode 0",
    "2": "Table 2: transfer from ImageNet, mode 0",
    "3": "Table 3: two sizes of network, from CIFAR-100",
    "4": "Table 4: data sets",
    "5": "Table 5: from CIFAR-10 to CINIC-10 without CIFAR, linear layer alone",
    "6": "Table 6: transfer from CIFAR-10 and CIFAR-100, all modes",
    "7": "Table 7: transfer from ImageNet, all modes",
    "8": "Table 8: robust less standard, from CIFAR-10 and CIFAR-100",
    "9": "Table 9: robust less standard, from ImageNet",
    "10": "Table 10: robust less standard, from ImageNet to fine-grained tasks",
    "11": "Table 11: two sizes of network, from CIFAR-100 (the numbers of Table 3)",
    "12": "Table 12: robust less standard, two sizes of network, from CIFAR-100",
}


@dataclass(frozen=True)
class Column:
    """What a column of a table is about: the paper's source and network, ours in their place (or None), the target."""

    data: str
    network: str
    ours: Source | None
    target: str

    def label(self, sized: bool) -> str:
        """Such as "cifar10 to svhn", with the paper's network that ours stands for where the table has two."""
        size = f"for {NETWORKS[self.network]}, " if sized else ""
        return f"{size}{self.data} to {self.target}"


def tables(found: Found) -> list[Section]:
    """Tables 1 to 12, each a section with the command that runs it."""
    return [_sizes(found) if number == "4" else _transfers(found, number) for number in LAYOUT]


def standing_in(scale: Scale, data: str, network: str, sized: bool) -> Source | None:
    """Our source in the place of one of the paper's networks.

    Where a table compares two sizes, the larger and the smaller of our pair; a source without a pair stands for the
    smaller. Elsewhere the same architecture if there is one, else the source with the most seeds.
    """
    sources = [s for s in scale.sources if s.data == data]
    if sized:
        larger = next((s for s in sources if s.larger_than is not None), None)
        if network == "resnet50":
            return larger
        smaller = [s for s in sources if s.larger_than is None]
        return scale.source(larger.larger_than) if larger and larger.larger_than else next(iter(smaller), None)
    ranked = sorted(sources, key=lambda s: (s.model != network, -s.seeds_at(0.0)))
    return next(iter(ranked), None)


def setting(source: Source) -> str:
    """How a source was trained, in one phrase."""
    images = f"{source.train:,} training images" if source.train else "all training images"
    side = f" at {source.size} x {source.size}" if source.size else ""
    network = f"{source.model} of width {source.width}"
    attack = f"PGD-{source.attack_steps} at eps {source.robust:g}"
    name = source.name if source.name == source.data else f"{source.name} (on {source.data})"
    return f"{name}: {network}, {source.epochs} epochs on {images}{side}, robust: {attack}"


def fine_tuning(scale: Scale, modes: list[str]) -> str:
    """How the heads were trained, in one sentence."""
    t = scale.transfers
    images = f"at most {t.train:,} training images of the target" if t.train else "all training images of the target"
    epochs = ", ".join(
        f"{t.epochs[m]} epochs {'for the linear layer' if m == 'linear' else f'in mode {m}'}"
        for m in modes
        if m in t.epochs
    )
    if not epochs:
        return f"Fine-tuning: {images}; these modes are not part of this scale."
    searched = all(len(t.lr.get(m, RATES)) > 1 for m in modes if m in t.epochs)
    rate = "the largest learning rate chosen on held-out images for each backbone and target" if searched else ""
    return f"Fine-tuning: {images}; {epochs}; schedule {t.schedule}" + f", {rate}" * bool(rate) + "."


def _transfers(found: Found, table: str) -> Section:
    numbers = published(table)
    difference = numbers[0].metric == "top-1 difference"
    columns, sized = _columns(found, table, numbers), table in BOTH_SIZES
    kinds = [None] if difference else ["robust", "standard"]
    modes = list(dict.fromkeys(str(n.mode) for n in numbers))
    ours = [found.scale.source(name) for name in dict.fromkeys(c.ours.name for c in columns if c.ours is not None)]
    caption = " ".join(
        (
            f"{'Robust less standard [points]' if difference else 'Test accuracy [%]'}; in each cell the published "
            "number, then ours: mean ± half of the 95 % t interval over seeds.",
            f"The paper: {_theirs(numbers)}.",
            f"Ours: {'; '.join(map(setting, ours))}." if ours else "Ours: this scale has no such source.",
            fine_tuning(found.scale, modes) if ours else "",
        )
    ).strip()
    parts = []
    for among in [modes] if difference else [[mode] for mode in modes]:  # more than three columns are too wide
        sorts = [(mode, kind) for mode in among for kind in kinds]
        rows = [[c.label(sized), *(_cell(found, numbers, c, mode, kind) for mode, kind in sorts)] for c in columns]
        said = f"The same in mode {among[0]}." if parts else caption
        parts.append(Table(said, ["source to target", *(_sort(mode, kind) for mode, kind in sorts)], rows))
    notes: dict[str, list[str]] = {}
    for n in numbers:
        if n.note:
            notes.setdefault(n.note, []).append(f"{n.source} to {n.target}, {_sort(str(n.mode), n.model)}")
    said = " ".join(f"{'; '.join(places)}: {note}." for note, places in notes.items())
    return Section(
        TITLES[table],
        [f"On the published numbers: {said}"] if notes else [],
        parts,
        id=f"table-{table}",
        command=rerun(found, [f"transfer/{s.name}/" for s in ours]) if ours else "",
    )


def rerun(found: Found, only: list[str] | tuple[str, ...]) -> str:
    """The command that runs experiments of these beginnings."""
    name = found.scale.name if found.scale.name in SCALES else f"{found.scale.name}.toml"
    place = found.graph.place
    root = " --root DATA" if place.root is not None else ""
    networks = " --networks NETWORKS" if place.networks is not None else ""
    return f"waterbed paper --scale {name}{root}{networks} --out DIR --only {' '.join(only)}"


def _columns(found: Found, table: str, numbers: list[Published]) -> list[Column]:
    """Those of the paper, then targets and sources of ours that it has not."""
    scale, sized = found.scale, table in BOTH_SIZES
    printed = list(dict.fromkeys((n.source, n.network, n.target) for n in numbers))
    columns = [Column(s, n, standing_in(scale, s, n, sized), t) for s, n, t in printed]
    more = []
    for data, network in dict.fromkeys((s, n) for s, n, _ in printed):
        ours = standing_in(scale, data, network, sized)
        known = {n.target for n in published(source=data)}
        # Table 10 is the fine-grained part of Table 7; what else there is stands in Table 9.
        if ours is not None and table != "10":
            known = known if table != "5" else {"cinic-imagenet"}
            more += [Column(data, network, ours, t) for t in found.targets(ours) if t not in known]
    if table in WITH_OTHER_SOURCES:
        known = {n.source for n in published()}
        more += [Column(s.name, "", s, t) for s in scale.sources if s.data not in known for t in found.targets(s)]
    return columns + more


def _sort(mode: str, kind: str | None) -> str:
    name = "linear layer" if mode == "linear" else f"mode {mode}"
    return f"{name}, {kind}" if kind else name


def _about(number: Published, column: Column) -> bool:
    return (number.source, number.network, number.target) == (column.data, column.network, column.target)


def _cell(found: Found, numbers: list[Published], column: Column, mode: str, kind: str | None) -> Pair:
    printed = [n for n in numbers if _about(n, column) and str(n.mode) == mode and n.model == kind]
    return Pair(f"{printed[0].value:.2f}" if printed else NOT_PRINTED, _ours(found, column, mode, kind))


def _ours(found: Found, column: Column, mode: str, kind: str | None) -> str:
    if column.ours is None:
        return NOT_RUN
    if kind is None:
        values = [*found.gaps(column.ours, column.target, mode).values()]
    else:
        values = of_seeds(column.ours, kind, found.accuracy(column.target, mode))
    return with_interval(over_seeds("", values)) if values else NOT_RUN


def with_interval(e: Evidence) -> str:
    """Mean and half of the interval; the value of one seed, or of several that are equal.

    >>> with_interval(over_seeds("", [1.0, 2.0, 3.0])), with_interval(over_seeds("", [1.0]))
    ('2.00 ± 2.48', '1.00 (one seed)')
    >>> with_interval(over_seeds("", [1.0, 1.0]))
    '1.00 (2 equal seeds)'
    """
    if math.isnan(e.high):
        return f"{e.value:.2f} ({'one seed' if e.n == 1 else f'{e.n} equal seeds'})"
    return f"{e.value:.2f} ± {e.high - e.value:.2f}"


def _theirs(numbers: list[Published]) -> str:
    """The paper's networks in one phrase."""
    networks = ", ".join(dict.fromkeys(NETWORKS[n.network] for n in numbers if n.network))
    eps = ", ".join(f"{e:g}" for e in dict.fromkeys(n.eps for n in numbers if n.eps))
    epochs = "300" if numbers[0].source == "imagenet" else "120"
    return f"{networks}, robust at eps {eps}, fine-tuned for {epochs} epochs (app. C); no intervals are printed"


def _sizes(found: Found) -> Section:
    """Table 4, with what of each set was used."""
    scale = found.scale
    names = list(dict.fromkeys(n.target for n in published("4")))
    used = {s.data: s for s in reversed(scale.sources)}
    ours = [n for n in (*used, *scale.transfers.targets) if n not in names]
    rows = []
    for name in (*names, *dict.fromkeys(ours)):
        printed = {n.metric: f"{n.value:,.0f}" for n in published("4") if n.target == name}
        rows.append([name, *(printed.get(m, NOT_PRINTED) for m in ("classes", "training size", "test size"))])
        rows[-1] += [_as_source(found, used.get(name)), _as_target(found, name)]
    caption = (
        "Numbers of classes and images as published, and what this scale uses of each set, as a source and as a target."
    )
    columns = ["data set", "classes", "training images", "test images", "ours, as a source", "ours, as a target"]
    text = (
        "The paper lists no other set; Table 5's CINIC-10 is not in its list. Where our numbers of images are not the "
        "published ones, the folders that were used are not the official sets; equal numbers do not say that they are. "
        "What this scale runs has more on the data, if its owner wrote it down."
    )
    return Section(TITLES["4"], [text], [Table(caption, columns, rows, wrap=True)], id="table-4")


def _as_source(found: Found, source: Source | None) -> str:
    """The numbers of images that its first trained network records, if it is there; else those the scale asks for."""
    if source is None:
        return "not used"
    result = found.of("network", next(source.networks()))
    file = None if result is None else found.graph.place.network(result["file"])
    if file is not None and file.is_file():
        data = read_card(file.with_suffix(".json"))["config"]["data"]
        return f"{data['train']:,} training images, {data['test']:,} test images"
    train = f"{source.train:,} training images" if source.train else "all training images"
    test = f"{source.test:,} test images" if source.test else "all test images"
    return f"{train}, {test}" + ("; not run" if result is None else "")


def _as_target(found: Found, name: str) -> str:
    if name not in found.scale.transfers.targets:
        return "not used"
    limit = found.scale.transfers.train
    tested = next(
        (
            result["n"]
            for id in found.graph.nodes
            if id.startswith("transfer/") and id.split("/")[-2] == name
            if (result := found.graph.result(id)) is not None
        ),
        None,
    )
    train = f"at most {limit:,} training images" if limit else "all training images"
    return f"{train}, " + (f"{tested:,} test images" if tested is not None else "not run")
