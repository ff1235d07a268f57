"""report: one page about runs."""

from __future__ import annotations

from dataclasses import dataclass

from waterbed.cli.options import Force, Runs


@dataclass
class Report:
    """Write one HTML page about runs."""

    runs: Runs
    out: str = "report.html"
    """The page, an .html file."""
    force: Force = False

    def __call__(self) -> None:
        from waterbed import report

        print(f"{report(self.runs, self.out, self.force)} written")
