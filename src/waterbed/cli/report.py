"""report: one page about runs."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from waterbed.cli.options import Words


@dataclass
class Report:
    """One HTML page about runs."""

    runs: Positional[Words]
    """Run folders or files of networks."""
    out: str = "report.html"
    """The page."""

    def __call__(self) -> None:
        from waterbed import report

        print(f"{report(self.runs, self.out)} written")
