"""The command that reproduces the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from waterbed.cli.options import Force
from waterbed.cli.output import print_rows


@dataclass
class Paper:
    """Reproduce the paper's tables and figures at a scale, judge its claims, and write one page about it."""

    scale: str = "demo"
    """demo (minutes, embedded data), cpu (hours), gpu, full (ImageNet, too), or a TOML file like theirs."""
    out: str = "paper"
    """Folder for index.html, figures, and the result of every experiment; a stopped reproduction goes on there. What a
    file data.txt in it says of the data is printed on the page."""
    root: str | None = None
    """Where data sets lie: folders by their names, or named sets."""
    networks: str | None = None
    """Where trained networks are kept, and taken from if they fit; OUT/networks by default."""
    only: tuple[str, ...] = ()
    """Beginnings of experiments' ids, such as transfer/cifar10; with what they need."""
    processes: int = 1
    """Experiments at a time."""
    launcher: str = "here"
    """here, or slurm, local, debug: every experiment a job of submitit."""
    dry_run: bool = False
    """List the experiments, what they would take, and which are done; run nothing."""
    force: Force = False

    def goes_on(self) -> bool:
        """Whether the command continues where it was stopped."""
        return not self.dry_run

    def __call__(self) -> Any:
        from waterbed_paper.reproduction import check_all_ran, open_graph, reproduce
        from waterbed_paper.verdicts import count_phrase

        if self.dry_run:
            _, graph = open_graph(self.scale, self.out, self.root, self.networks)
            ids = graph.select(self.only)
            missing = {id for id in ids if graph.result(id) is None}
            rows = [[id, "to run" if id in missing else "done", _time(graph.nodes[id].seconds)] for id in ids]
            print_rows(["experiment", "state", "estimate"], rows, f"Scale {self.scale} in {self.out}")
            left = _time(sum(graph.nodes[id].seconds for id in missing))
            print(f"{len(missing)} of {len(ids)} experiments to run, about {left} by the estimates of the scale")
            return {"done": [id for id in ids if id not in missing], "to_run": sorted(missing)}
        done = reproduce(
            self.scale, self.out, self.root, self.networks, self.only, self.processes, self.launcher, force=self.force
        )
        rows = [[j.claim.id, j.claim.where, j.verdict] for j in done.judged]
        print_rows(["claim", "where", "verdict"], rows, f"Claims of the paper at scale {self.scale}")
        print(", ".join(count_phrase(n, verdict) for verdict, n in done.counts.items()))
        others = f"{done.missing} of {done.total} are missing" if done.missing else "the others were there"
        print(f"{done.page} written; {done.ran} experiment{'s' * (done.ran != 1)} run, {others}")
        check_all_ran(done)
        claims = [dict(zip(("claim", "where", "verdict"), row, strict=True)) for row in rows]
        return {"page": str(done.page), "ran": done.ran, "missing": done.missing, "claims": claims}


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
