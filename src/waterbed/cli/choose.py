"""choose: which backbone for one's data."""

from __future__ import annotations

from dataclasses import dataclass

from waterbed.cli.options import Root, Words
from waterbed.cli.output import check_writable, print_rows, write_text


@dataclass
class Choose:
    """Rank backbones for your data by a probe on their features; says how sure the ranking is, and why."""

    target: str
    """Data set or folder with train/<class>/* and test/<class>/*; only its training images are used."""
    backbones: Words
    """Run folders or network files, such as a standard and a robust one."""
    num_samples: int = 2000
    """Number of training images."""
    root: Root = None
    seed: int = 0
    """Seed of the choice of images and of the probe."""
    out: str | None = None
    """A CSV file with one row per backbone."""

    def __call__(self) -> None:
        from waterbed import choose
        from waterbed.cli.runs import unique_runs

        check_writable(self.out)
        models = {name: run.model for name, run in unique_runs(self.backbones).items()}
        choice = choose(models, self.target, self.num_samples, seed=self.seed, root=self.root, progress=True)
        rows = [
            [
                c.name,
                c.probe,
                f"{c.behind[0]:.1f} [{c.behind[1]:.1f}, {c.behind[2]:.1f}]",
                f"{100 * c.best:.0f} %",
                f"{c.logme:.3f}",
                f"{c.h_score:.3f}",
                f"{c.leep:.3f}",
            ]
            for c in choice.candidates
        ]
        columns = ["backbone", "probe, held-out images", "points behind", "best", "LogME", "H-score", "LEEP"]
        print_rows(columns, rows, f"Backbones for {choice.target}, on {choice.num_samples} images; higher is better")
        print(choice.reason)
        write_text(self.out, choice.to_frame().to_csv(index=False))
