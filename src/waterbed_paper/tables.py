"""A table of the page: the paper's numbers on transfer with ours beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from waterbed.evaluation.accuracy import Accuracy
from waterbed.reporting.page import Pair, Section, Table
from waterbed.transfer_learning.table import half_over_images
from waterbed_paper.evidence import Evidence, over_seeds
from waterbed_paper.phrases import NOT_PRINTED, NOT_RUN, rerun_command, training_phrase
from waterbed_paper.published import Published, printed_numbers
from waterbed_paper.results import Results
from waterbed_paper.scale import RATES, Scale, Source

KINDS = ("standard", "robust")
PROTOCOLS = {
    "tuned": "tuned on held-out images",
    "paper": "the paper's own protocol",
    "rate": "learning rate chosen, the rest as this scale has it",
}
NETWORKS = {"resnet50": "ResNet-50", "resnet18": "ResNet-18"}


class PaperTable(Protocol):
    """One of the paper's tables on the page.

    Attributes:
        number: the paper's.
        title: of its section.
        claims: that it speaks to.
    """

    number: str
    title: str
    claims: tuple[str, ...]

    def section(self, results: Results) -> Section:
        """The table with our results beside the printed numbers."""


@dataclass(frozen=True)
class TransferTable:
    """A table of accuracies after fine-tuning, or of their differences.

    Attributes:
        number, title, claims: as of :class:`PaperTable`.
        both_sizes: it compares two sizes of network.
        other_sources: sources of ours that the paper has not stand in it, too.
        other_targets: which targets of ours stand in it beside its own: "unpublished", those that no table of the paper
            has from the same source; "all", those that this table has not; "none".
    """

    number: str
    title: str
    claims: tuple[str, ...]
    both_sizes: bool = False
    other_sources: bool = False
    other_targets: str = "unpublished"

    def section(self, results: Results) -> Section:
        """The table, one part per mode where it prints accuracies, with the command that runs our numbers."""
        numbers = printed_numbers(self.number)
        difference = numbers[0].metric == "top-1 difference"
        columns = self._columns(results, numbers)
        kinds = [None] if difference else ["robust", "standard"]
        modes = list(dict.fromkeys(str(n.mode) for n in numbers))
        names = dict.fromkeys(c.ours.name for c in columns if c.ours is not None)
        ours = [results.scale.source(name) for name in names]
        caption = " ".join(
            (
                f"{'Robust less standard [points]' if difference else 'Test accuracy [%]'}; in each cell the published "
                "number, then ours: mean ± half of the 95 % t interval over seeds, and",
                "half of the 95 % normal interval over test images, as if the two had seen different ones."
                if difference
                else "the 95 % Wilson interval of that mean over the test images, which all seeds share.",
                f"The paper: {_paper_phrase(numbers)}.",
                f"Ours: {'; '.join(map(training_phrase, ours))}." if ours else "Ours: this scale has no such source.",
            )
        )
        parts = []
        for among, protocol in _parts(results.scale, modes, difference):
            sorts = [(mode, kind) for mode in among for kind in kinds]
            rows = [
                [c.label(self.both_sizes), *(_cell(results, numbers, c, mode, kind, protocol) for mode, kind in sorts)]
                for c in columns
            ]
            heads = ["source to target", *(_sort(mode, kind) for mode, kind in sorts)]
            how = protocol_phrase(results.scale, among, protocol) if ours else ""
            summary = f"{', '.join(_sort(mode, None) for mode in among)}: {PROTOCOLS[protocol]}"
            summary = summary[0].upper() + summary[1:]
            parts.append(Table(f"{'The same.' if parts else caption} {how}".strip(), heads, rows, summary=summary))
        notes: dict[str, list[str]] = {}
        for n in numbers:
            if n.note:
                notes.setdefault(n.note, []).append(f"{n.source} to {n.target}, {_sort(str(n.mode), n.model)}")
        text = " ".join(f"{'; '.join(places)}: {note}." for note, places in notes.items())
        return Section(
            self.title,
            [f"On the published numbers: {text}"] if notes else [],
            parts,
            id=f"table-{self.number}",
            command=rerun_command(results, [f"{kind}/{s.name}/" for kind in self._run_by(results.scale) for s in ours])
            if ours
            else "",
        )

    @staticmethod
    def _run_by(scale: Scale) -> tuple[str, ...]:
        """The kinds of experiments behind it."""
        return ("transfer", "protocols") if scale.transfers.both_protocols else ("transfer",)

    def _columns(self, results: Results, numbers: list[Published]) -> list[Column]:
        """Those of the paper, then targets and sources of ours that it has not."""
        scale = results.scale
        printed = list(dict.fromkeys((n.source, n.network, n.target) for n in numbers))
        columns = [Column(s, n, standing_in(scale, s, n, self.both_sizes), t) for s, n, t in printed]
        more = []
        for data, network in dict.fromkeys((s, n) for s, n, _ in printed):
            ours = standing_in(scale, data, network, self.both_sizes)
            if ours is not None and self.other_targets != "none":
                known = {n.target for n in (numbers if self.other_targets == "all" else printed_numbers(source=data))}
                more += [Column(data, network, ours, t) for t in results.targets(ours) if t not in known]
        if self.other_sources:
            known = {n.source for n in printed_numbers()}
            others = [s for s in scale.sources if s.data not in known]
            more += [Column(s.name, "", s, t) for s in others for t in results.targets(s)]
        return columns + more


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

    def holds(self, number: Published) -> bool:
        """Whether a printed number is of this column."""
        return (number.source, number.network, number.target) == (self.data, self.network, self.target)


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


def _parts(scale: Scale, modes: list[str], difference: bool) -> list[tuple[list[str], str]]:
    """Modes and protocol of each part: one mode where it prints accuracies, as more than three columns are too wide."""
    both = scale.transfers.both_protocols
    groups = [modes] if difference else [[mode] for mode in modes]
    parts = []
    for among in groups:
        compared = [mode for mode in among if mode in both]
        parts += [(compared, protocol) for protocol in ("tuned", "paper") if compared]
        parts.append((among, "rate"))
    return parts


def protocol_phrase(scale: Scale, modes: list[str], protocol: str) -> str:
    """How the heads were trained by a protocol, in one sentence."""
    images = f"at most {scale.transfers.train:,} images" if scale.transfers.train else "all images"
    if protocol == "tuned":
        return (
            f"Tuned on held-out images for each backbone and target ({images}): logistic regression on standardised "
            "features for the linear layer, else learning rate and weight decay together."
        )
    if protocol == "paper":
        return f"By the paper's own protocol (appendix C: 120 epochs, rate 1e-2, weight decay 5e-4; {images})."
    return fine_tuning_phrase(scale, modes)


def fine_tuning_phrase(scale: Scale, modes: list[str]) -> str:
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
    decay = f"weight decay {t.training.weight_decay:g}"
    return f"Fine-tuning: {images}; {epochs}; schedule {t.training.schedule}, {decay}" + f", {rate}" * bool(rate) + "."


def _sort(mode: str, kind: str | None) -> str:
    name = "linear layer" if mode == "linear" else f"mode {mode}"
    return f"{name}, {kind}" if kind else name


def _cell(
    results: Results, numbers: list[Published], column: Column, mode: str, kind: str | None, protocol: str
) -> Pair:
    printed = [n for n in numbers if column.holds(n) and str(n.mode) == mode and n.model == kind]
    return Pair(f"{printed[0].value:.2f}" if printed else NOT_PRINTED, _ours(results, column, mode, kind, protocol))


def _ours(results: Results, column: Column, mode: str, kind: str | None, protocol: str) -> str:
    if column.ours is None:
        return NOT_RUN

    def value(row: dict[str, Any]) -> tuple[float, int]:
        return row["accuracy"], row["n"]

    rows = {
        k: results.of_seeds(column.ours, k, results.fine_tuned(column.target, mode, protocol, value)) for k in KINDS
    }
    if kind is None:
        gaps = [*results.gaps(column.ours, column.target, mode, protocol=protocol).values()]
        if not gaps:
            return NOT_RUN
        return f"{with_interval(over_seeds('', gaps))}; images ± {half_over_images(*rows.values()):.1f}"
    if not rows[kind]:
        return NOT_RUN
    accuracies, (n, *_) = zip(*rows[kind], strict=True)
    images = Accuracy(round(sum(accuracies) / len(accuracies) * n / 100), n)
    return f"{with_interval(over_seeds('', [*accuracies]))}; [{images.low:.1f}, {images.high:.1f}] of {n:,}"


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


def _paper_phrase(numbers: list[Published]) -> str:
    """The paper's networks in one phrase."""
    networks = ", ".join(dict.fromkeys(NETWORKS[n.network] for n in numbers if n.network))
    eps = ", ".join(f"{e:g}" for e in dict.fromkeys(n.eps for n in numbers if n.eps))
    epochs = "300" if numbers[0].source == "imagenet" else "120"
    return f"{networks}, robust at eps {eps}, fine-tuned for {epochs} epochs (app. C); no intervals are printed"
