"""choose: which backbone for one's data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from waterbed.cli.options import Fetch, Force, Root, Words, Workers
from waterbed.cli.output import is_first_process, print_rows, say, say_written, write_text
from waterbed.text import csv_text


@dataclass
class Choose:
    """Rank backbones for your data by scores of their features; says how sure the ranking is, and why."""

    NAMES_DATA: ClassVar[str] = "--target"

    target: str
    """Data set or folder with train/<class>/* and test/<class>/*; only its training images are used."""
    backbones: Words
    """Run folders or network files, such as a standard and a robust one."""
    num_samples: int = 2000
    """Number of training images."""
    root: Root = None
    download: Fetch = False
    workers: Workers = 0
    seed: int = 0
    """Seed of the choice of images and of their splits."""
    out: str | None = None
    """A CSV file with one row per backbone; beside it a PNG file of the same name shows every score's interval."""
    force: Force = False

    def __call__(self) -> Any:
        from waterbed import choose
        from waterbed.cli.results import Kept
        from waterbed.cli.runs import unique_runs
        from waterbed.files import check_output, starts_with
        from waterbed.plots import is_our_png, save_figure
        from waterbed.reporting.results import CHOICES
        from waterbed.transfer_learning.choice import SCORES

        picture = None
        if self.out is not None:
            picture = check_output(self.out, starts_with(b"backbone,leader_better,"), self.force).with_suffix(".png")
            check_output(picture, is_our_png, self.force)
        runs = unique_runs(self.backbones, self.download)
        kept = Kept(CHOICES, None, self.force, runs, None)
        models = {name: run.model for name, run in runs.items()}
        more = {"root": self.root, "workers": self.workers, "progress": True}
        choice = choose(models, self.target, self.num_samples, seed=self.seed, **more)
        frame = choice.to_frame()
        write_text(self.out, csv_text(frame))
        summary = {"num_samples": choice.num_samples, "reason": choice.reason, "rows": frame.to_dict("records")}
        for name, run in runs.items():
            kept.add(name, run, {choice.target: summary})
        if picture is not None and is_first_process():
            save_figure(choice.plot(), picture)
        rows = [
            [
                c.name,
                *(c.scores[score].text(digits) for score, (_, digits) in SCORES.items()),
                c.chance if c.name != choice.best else "",
            ]
            for c in choice.candidates
        ]
        columns = ["backbone", *(label for label, _ in SCORES.values()), f"{choice.best} better"]
        print_rows(columns, rows, f"Backbones for {choice.target}, on {choice.num_samples} images; higher is better")
        say(choice.reason)
        say_written(self.out, picture)
        return {"target": choice.target, "best": choice.best, "verdict": choice.verdict, **summary}
