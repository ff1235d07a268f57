"""report: one page about runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from waterbed.cli.options import Force, Runs
from waterbed.cli.output import say_written


@dataclass
class Report:
    """Write one HTML page with everything that is known of runs, side by side."""

    runs: Runs
    out: str = "report.html"
    """The page, an .html file."""
    force: Force = False

    def __call__(self) -> Any:
        from waterbed import report

        written = report(self.runs, self.out, self.force)
        say_written(written)
        return {"out": str(written)}
