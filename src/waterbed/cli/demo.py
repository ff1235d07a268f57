"""demo: everything on embedded data, in minutes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from waterbed.cli.options import Force
from waterbed.cli.output import print_table, say


@dataclass
class Demo:
    """Train a standard and a robust network on embedded data, measure, invert and transfer both, in a few minutes."""

    out: str = "waterbed-demo"
    """Folder for report.html, results.json and the two runs."""
    quick: bool = False
    """The same in seconds on little data, to check that everything runs."""
    force: Force = False

    def goes_on(self) -> bool:
        """Whether the command continues where it was stopped."""
        return True

    def __call__(self) -> Any:
        from waterbed.reporting.demo import QUICK, Config, demo, summary_table

        results = demo(self.out, QUICK if self.quick else Config(), force=self.force)
        print_table(summary_table(results))
        say(f"{self.out}/report.html and {self.out}/results.json written in {results['seconds']:.0f} s")
        return results
