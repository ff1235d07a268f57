"""report: one page about runs."""

from __future__ import annotations

from dataclasses import dataclass

from waterbed.cli.options import Force, Runs
from waterbed.cli.output import say


@dataclass
class Report:
    """Write one HTML page about runs."""

    runs: Runs
    out: str = "report.html"
    """The page, an .html file."""
    force: Force = False

    def __call__(self) -> None:
        from waterbed import report

        say(f"{report(self.runs, self.out, self.force)} written")
