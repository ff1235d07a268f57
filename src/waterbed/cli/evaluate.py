"""evaluate: clean and robust accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from waterbed.cli.options import Fetch, Force, Radii, Root, RunData, Runs, Workers
from waterbed.cli.output import print_rows, say, say_written

if TYPE_CHECKING:
    from pathlib import Path

    from waterbed.data.images import ImageData
    from waterbed.training.run_folder import Run


@dataclass
class Evaluate:
    """Clean and robust accuracy of runs, with 95 % Wilson intervals."""

    runs: Runs
    eps: Radii = (0.5,)
    """Radii of the attacks, one or more, such as 0.5 or 8/255."""
    attacks: str = "pgd"
    """pgd (with --steps and --restarts), standard: PGD-20, PGD-100 x5, AutoAttack, a check of gradient masking; or
    package.module:function, your own, which returns an attack for eps=, and for norm=, steps= and restarts= if it takes
    them."""
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
    download: Fetch = False
    workers: Workers = 0
    num_samples: int | None = None
    """Number of test images; all by default."""
    seed: int = 0
    """Seed of the attacks and of the choice of images."""
    out: str | None = None
    """One JSON file for the results of all; other runs in it stay. By default evaluation.json in each run's folder.
    Standard attacks save their progress beside it and continue from there."""
    force: Force = False

    def goes_on(self) -> bool:
        """Whether the command continues where it was stopped."""
        return self.attacks == "standard"

    def __call__(self) -> Any:
        from waterbed import PGD, evaluate
        from waterbed.cli.results import Kept
        from waterbed.cli.runs import open_runs, unique_runs
        from waterbed.errors import check_choice
        from waterbed.evaluation.standard import AUTOATTACK
        from waterbed.own_code import OWN_CODE, call_function, names_own_code
        from waterbed.training.model_card import EVALUATION

        check_choice("autoattack", self.autoattack, AUTOATTACK)
        if not names_own_code(self.attacks):
            check_choice("attacks", self.attacks, ("pgd", "standard", OWN_CODE))
        if self.attacks == "standard":
            return self._standard()
        more = {"norm": self.norm, "steps": self.steps, "restarts": self.restarts}
        if self.attacks == "pgd":
            attacks = [PGD(eps, **more) for eps in self.eps]
        else:
            attacks = [call_function("attacks", self.attacks, {"eps": eps}, more) for eps in self.eps]
        runs, scores = unique_runs(self.runs, self.download), {}
        kept = Kept(EVALUATION, self.out, self.force, runs, self.data)
        for name, run, data in open_runs(runs, self.data, self.root):
            scores[name] = evaluate(
                run.model,
                data.test,
                attacks,
                num_samples=self.num_samples,
                seed=self.seed,
                progress=True,
                workers=self.workers,
            )
            kept.add(name, run, {**scores[name].to_dict(), "settings": self._settings(run, data)})
        columns = ["run", "clean", *(a.name for a in attacks), "clean, mean per class", "images"]
        rows = [[n, s.clean, *s.robust.values(), f"{s.mean_per_class:.2f} %", s.n] for n, s in scores.items()]
        print_rows(columns, rows, "Accuracy on test images, with 95 % intervals")
        say_written(*kept.written)
        return {name: score.to_dict() for name, score in scores.items()}

    def _settings(self, run: Run, data: ImageData, eps: float | None = None) -> dict[str, Any]:
        """What was evaluated how, by which results in a run's folder are told apart."""
        radii = list(self.eps) if eps is None else [eps]
        pgd = {"steps": self.steps, "restarts": self.restarts} if self.attacks != "standard" else {}
        more = {"num_samples": self.num_samples, "seed": self.seed, "epoch": run.record.get("epoch")}
        return {"data": data.name, "attacks": self.attacks, "norm": self.norm, "eps": radii, **pgd, **more}

    def _standard(self) -> Any:
        """The standard attacks on every run at every eps: one row each, and under the table the evidence."""
        from waterbed.cli.results import Kept
        from waterbed.cli.runs import open_runs, unique_runs
        from waterbed.evaluation.standard import RobustnessReport, evaluate_standard
        from waterbed.training.model_card import EVALUATION

        runs = unique_runs(self.runs, self.download)
        kept = Kept(EVALUATION, self.out, self.force, runs, self.data)
        reports: dict[str, list[RobustnessReport]] = {}
        for name, run, data in open_runs(runs, self.data, self.root):
            for eps in dict.fromkeys(self.eps):
                place = self._progress_file(name, run, kept.file(run), eps)
                options = {"num_samples": self.num_samples, "seed": self.seed, "autoattack": self.autoattack}
                options["workers"] = self.workers
                report = evaluate_standard(run.model, data.test, eps, self.norm, out=place, progress=True, **options)
                reports.setdefault(name, []).append(report)
                if self.out is None:
                    kept.add(name, run, {**report.to_dict(), "settings": self._settings(run, data, eps)})
            if self.out is not None:
                kept.add(name, run, [report.to_dict() for report in reports[name]])
        flat = [(name, report) for name, of_run in reports.items() for report in of_run]
        columns = ["run", f"{self.norm} eps", "clean", "PGD-20", "PGD-100 x5", "AutoAttack", "images"]
        rows = [
            [n, f"{r.eps:g}", r.clean, *(r.notes[k] if a is None else a for k, a in r.robust.items()), r.n]
            for n, r in flat
        ]
        print_rows(columns, rows, "Accuracy after each attack (worst case so far), with 95 % intervals")
        for name, report in flat:
            say(f"{name}, eps={report.eps:g}: {report.masking}")
            for attack, note in report.notes.items():
                say(f"  {attack}: {note}")
            for check in report.masking.checks:
                say(f"  {'!' if check.suspicious else '-'} {check.name}? {check.found} (p = {check.p:.2g})")
        say_written(*kept.written)
        return {name: [report.to_dict() for report in of_run] for name, of_run in reports.items()}

    def _progress_file(self, name: str, run: Run, file: Path | None, eps: float) -> Path | None:
        """Where standard attacks save their progress: beside the results, with what tells evaluations apart."""
        if file is None:
            return None
        if self.out is not None:
            return file.with_suffix(f".{name}.{self.norm}-{eps:g}.json")
        images = "all" if self.num_samples is None else self.num_samples
        told = f"{self.norm}-{eps:g}.images-{images}.seed-{self.seed}.epoch-{run.record.get('epoch')}"
        return file.with_suffix(f".{told}.json")
