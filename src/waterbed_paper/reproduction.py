"""Every table and figure of the paper at a scale, beside the published ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waterbed.errors import UsageError, check_count
from waterbed.files import check_output, starts_with
from waterbed.reporting.page import PAGE_MARK
from waterbed_paper.graph import Graph, Place
from waterbed_paper.page import write_paper_page
from waterbed_paper.page_probe import write_probe_page
from waterbed_paper.plan import plan_nodes
from waterbed_paper.results import Results
from waterbed_paper.scale import Scale, read_scale
from waterbed_paper.verdicts import Judged, judge_claims


@dataclass(frozen=True)
class Reproduction:
    """The outcome of a reproduction.

    Attributes:
        judged: every claim with its evidence and verdict.
        failures: id -> message of the experiments that failed.
        ran: how many experiments were run now.
        missing: how many of the scale's experiments still have no result.
        total: how many experiments the scale has.
        page: the path of index.html.
    """

    judged: list[Judged]
    failures: dict[str, str]
    ran: int
    missing: int
    total: int
    page: Path

    @property
    def counts(self) -> Counter[str]:
        """How many claims have each verdict."""
        return Counter(j.verdict for j in self.judged)


def open_graph(
    scale: str | Path, out: str | Path, root: str | None = None, networks: str | Path | None = None
) -> tuple[Scale, Graph]:
    """The scale, and the graph of its experiments with the results in ``out``.

    >>> scale, graph = open_graph("demo", "nowhere")
    >>> graph.missing()[0]
    'example-3.3'
    """
    read = read_scale(scale)
    if Path(out).expanduser().is_file():
        raise UsageError(f"out={str(out)!r} is a file; name a folder")
    place = Place(Path(out).expanduser(), root, None if networks is None else Path(networks).expanduser())
    return read, Graph(plan_nodes(read), place)


def reproduce(
    scale: str | Path = "demo",
    out: str | Path = "paper",
    root: str | None = None,
    networks: str | Path | None = None,
    only: Sequence[str] = (),
    processes: int = 1,
    launcher: str = "here",
    progress: bool = True,
    force: bool = False,
) -> Reproduction:
    """Run what is missing of a scale's experiments and write the page ``out``/index.html, and that of the probe study.

    Every experiment's result is a file ``out``/nodes/ID.json with the hash of its config and of its code's version: a
    stopped reproduction goes on, a changed option runs again only what depends on it.

    Args:
        scale: "demo", "cpu", "gpu", "full" or a TOML file like theirs.
        root: where data sets lie, as folders or named sets.
        networks: where trained networks are kept, and taken from if they were trained with the same settings;
            ``out``/networks by default.
        only: beginnings of ids of experiments, such as "transfer/cifar10"; with what they need.
        processes: experiments at a time.
        launcher: "here", or "slurm", "local" and "debug" to make every experiment a job of submitit.
        force: replace an index.html that is not ours.

    Raises:
        UsageError: an unknown scale or experiment, a folder of results that is damaged.
    """
    check_count("processes", processes)
    read, graph = open_graph(scale, out, root, networks)
    if not (graph.place.out / "nodes").is_dir():  # no reproduction yet, so index.html may be anybody's
        check_output(graph.place.out / "index.html", starts_with(PAGE_MARK), force)
    before = len(graph.missing())
    failures = graph.run(only, processes, launcher, progress)
    results = Results(read, graph)
    judged = judge_claims(results)
    page = write_paper_page(results, judged, graph.place.out)
    write_probe_page(results, graph.place.out)
    missing = len(graph.missing())
    return Reproduction(judged, failures, before - missing, missing, len(graph.nodes), page)


def check_all_ran(reproduction: Reproduction) -> None:
    """Raise if experiments failed, naming them."""
    if reproduction.failures:
        lines = [f"{id}: {message}" for id, message in reproduction.failures.items()]
        raise UsageError(
            f"{len(lines)} experiment{'s' * (len(lines) > 1)} failed; the page has the others:\n" + "\n".join(lines)
        )
