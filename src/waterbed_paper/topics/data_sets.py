"""The data sets of the paper, and what the reproduction uses of them."""

from __future__ import annotations

from dataclasses import dataclass

from waterbed.models.checkpoints import read_card
from waterbed.reporting.page import Section, Table
from waterbed_paper.phrases import NOT_PRINTED
from waterbed_paper.published import printed_numbers
from waterbed_paper.results import Results
from waterbed_paper.scale import Source


@dataclass(frozen=True)
class DataSetTable:
    """Numbers of classes and images, as a :class:`waterbed_paper.tables.PaperTable`."""

    number: str
    title: str
    claims: tuple[str, ...] = ()

    def section(self, results: Results) -> Section:
        """The printed numbers, with what of each set was used."""
        scale = results.scale
        numbers = printed_numbers(self.number)
        names = list(dict.fromkeys(n.target for n in numbers))
        used = {s.data: s for s in reversed(scale.sources)}
        ours = [n for n in (*used, *scale.transfers.targets) if n not in names]
        rows = []
        for name in (*names, *dict.fromkeys(ours)):
            printed = {n.metric: f"{n.value:,.0f}" for n in numbers if n.target == name}
            rows.append([name, *(printed.get(m, NOT_PRINTED) for m in ("classes", "training size", "test size"))])
            rows[-1] += [_as_source(results, used.get(name)), _as_target(results, name)]
        caption = (
            "Numbers of classes and images as published, and what this scale uses of each set, as a source and as a "
            "target."
        )
        columns = ["data set", "classes", "training images", "test images", "ours, as a source", "ours, as a target"]
        text = (
            "The paper lists no other set; Table 5's CINIC-10 is not in its list. Where our numbers of images are not "
            "the published ones, the folders that were used are not the official sets; equal numbers do not say that "
            "they are. What this scale runs has more on the data, if its owner wrote it down."
        )
        return Section(self.title, [text], [Table(caption, columns, rows, wrap=True)], id=f"table-{self.number}")


def _as_source(results: Results, source: Source | None) -> str:
    """The numbers of images that its first trained network records, if it is there; else those the scale asks for."""
    if source is None:
        return "not used"
    result = results.of("network", next(source.networks()))
    file = None if result is None else results.graph.place.network(result["file"])
    if file is not None and file.is_file():
        data = read_card(file.with_suffix(".json"))["config"]["data"]
        return f"{data['train']:,} training images, {data['test']:,} test images"
    train = f"{source.train:,} training images" if source.train else "all training images"
    test = f"{source.test:,} test images" if source.test else "all test images"
    return f"{train}, {test}" + ("; not run" if result is None else "")


def _as_target(results: Results, name: str) -> str:
    if name not in results.scale.transfers.targets:
        return "not used"
    limit = results.scale.transfers.train
    tested = next(
        (
            result["n"]
            for id in results.graph.nodes
            if id.startswith("transfer/") and id.split("/")[-2] == name
            if (result := results.graph.result(id)) is not None
        ),
        None,
    )
    train = f"at most {limit:,} training images" if limit else "all training images"
    return f"{train}, " + (f"{tested:,} test images" if tested is not None else "not run")


TABLES = (DataSetTable("4", "Table 4: data sets"),)
