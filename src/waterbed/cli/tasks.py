"""Commands that take networks to other tasks: transfer."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from waterbed.cli.output import Words


@dataclass
class Transfer:
    """Fine-tune runs on other tasks and compare their accuracy there."""

    runs: Positional[Words]
    """Run folders."""
    targets: tuple[str, ...] = ("digits",)
    """Data sets or folders."""
    mode: str = "0"
    """linear (the head), 0 (head and last batch norm), 1 (head and all batch norms), 2 (everything)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One fine-tuning each."""
    epochs: int = 20
    batch_size: int = 128
    lr: float = 1.0
    """Largest learning rate."""
    weight_decay: float = 5e-4
    root: str | None = None
    """Where named data sets lie."""
    out: str | None = None
    """A CSV file with one row a fine-tuning."""

    def __call__(self) -> None:
        from waterbed import transfer
        from waterbed.cli.common import check_writable, transfer_mode, unique_runs, write_text

        check_writable(self.out)
        table = transfer(
            {name: run.model for name, run in unique_runs(self.runs)},
            self.targets,
            transfer_mode(self.mode),
            self.seeds,
            self.root,
            progress=True,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            weight_decay=self.weight_decay,
        )
        print(table)
        write_text(self.out, table.to_frame().to_csv(index=False))
