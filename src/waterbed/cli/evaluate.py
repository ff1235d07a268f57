"""evaluate: clean and robust accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from waterbed.cli.options import Radii, Root, RunData, Runs, Workers
from waterbed.cli.output import check_writable, print_rows, write_json


@dataclass
class Evaluate:
    """Clean and robust accuracy of runs, with 95 % Wilson intervals."""

    runs: Runs
    eps: Radii = (0.5,)
    """Radii of the attacks, one or more, such as 0.5 or 8/255."""
    attacks: str = "pgd"
    """pgd (with --steps and --restarts), or standard: PGD-20, PGD-100 x5, AutoAttack, a check of gradient masking."""
    norm: str = "l2"
    """l1 (pgd alone), l2 or linf."""
    steps: int = 20
    """Steps of each pgd attack."""
    restarts: int = 1
    """Random restarts of each pgd attack."""
    autoattack: str = "auto"
    """With --attacks standard: auto (if it is installed), always or never."""
    data: RunData = None
    root: Root = None
    workers: Workers = 0
    num_samples: int | None = None
    """Number of test images; all by default."""
    seed: int = 0
    """Seed of the attacks and of the choice of images."""
    out: str | None = None
    """A JSON file for the results; standard attacks save their progress beside it and continue from there."""

    def __call__(self) -> None:
        from waterbed import PGD, evaluate
        from waterbed.cli.runs import open_runs
        from waterbed.errors import check_choice

        check_choice("attacks", self.attacks, ("pgd", "standard"))
        if self.attacks == "standard":
            return self._standard()
        attacks = [PGD(eps, self.norm, self.steps, restarts=self.restarts) for eps in self.eps]
        check_writable(self.out)
        scores = {}
        for name, run, data in open_runs(self.runs, self.data, self.root):
            scores[name] = evaluate(
                run.model,
                data.test,
                attacks,
                num_samples=self.num_samples,
                seed=self.seed,
                progress=True,
                workers=self.workers,
            )
        columns = ["run", "clean", *(a.name for a in attacks), "clean, mean per class", "images"]
        rows = [[n, s.clean, *s.robust.values(), f"{s.mean_per_class:.2f} %", s.n] for n, s in scores.items()]
        print_rows(columns, rows, "Accuracy on test images, with 95 % intervals")
        write_json(self.out, {name: score.to_dict() for name, score in scores.items()})
        return None

    def _standard(self) -> None:
        """The standard attacks on every run at every eps: one row each, and under the table the evidence."""
        from pathlib import Path

        from waterbed.cli.runs import open_runs
        from waterbed.evaluation.standard import RobustnessReport, evaluate_standard

        check_writable(self.out)
        reports: dict[str, list[RobustnessReport]] = {}
        for name, run, data in open_runs(self.runs, self.data, self.root):
            for eps in dict.fromkeys(self.eps):
                place = None if self.out is None else Path(self.out).with_suffix(f".{name}.{self.norm}-{eps:g}.json")
                options = {"num_samples": self.num_samples, "seed": self.seed, "autoattack": self.autoattack}
                options["workers"] = self.workers
                report = evaluate_standard(run.model, data.test, eps, self.norm, out=place, progress=True, **options)
                reports.setdefault(name, []).append(report)
        flat = [(name, report) for name, of_run in reports.items() for report in of_run]
        columns = ["run", f"{self.norm} eps", "clean", "PGD-20", "PGD-100 x5", "AutoAttack", "images"]
        rows = [
            [n, f"{r.eps:g}", r.clean, *(r.notes[k] if a is None else a for k, a in r.robust.items()), r.n]
            for n, r in flat
        ]
        print_rows(columns, rows, "Accuracy after each attack (worst case so far), with 95 % intervals")
        for name, report in flat:
            print(f"{name}, eps={report.eps:g}: {report.masking}")
            for attack, note in report.notes.items():
                print(f"  {attack}: {note}")
            for check in report.masking.checks:
                print(f"  {'!' if check.suspicious else '-'} {check.name}? {check.found} (p = {check.p:.2g})")
        write_json(self.out, {name: [report.to_dict() for report in of_run] for name, of_run in reports.items()})
