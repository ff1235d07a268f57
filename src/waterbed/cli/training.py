"""Commands that make networks: demo, data, train, sweep, evaluate."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from waterbed.cli.output import Words, print_rows, print_table


@dataclass
class Demo:
    """Train a standard and a robust network on embedded data, measure, invert and transfer both; a few minutes."""

    out: str = "waterbed-demo"
    """Folder for report.html, results.json and the two runs."""
    quick: bool = False
    """The same in seconds, on little data: a check that everything runs."""

    def __call__(self) -> None:
        from waterbed.reporting.demo import QUICK, Config, demo, summary_table

        results = demo(self.out, QUICK if self.quick else Config())
        print_table(summary_table(results))
        print(f"{self.out}/report.html and {self.out}/results.json written in {results['seconds']:.0f} s")


@dataclass
class Data:
    """List the data sets known by name and whether they are there, or describe one (a name or a folder)."""

    name: Positional[str] = "list"
    """"list", a name of the list, or a folder with train/<class>/* and test/<class>/*."""
    root: str | None = None
    """Where named data sets lie (default: $WATERBED_DATA, else ~/.cache/waterbed/data)."""
    download: bool = False
    """Fetch a named data set that is missing."""
    size: int | None = None
    """Side of the square images."""
    channels: int | None = None
    """1 (grey) or 3 (RGB)."""

    def __call__(self) -> None:
        from waterbed.data.catalog import CATALOG
        from waterbed.data.load import load_dataset

        if self.name == "list":
            return self._list()
        data = load_dataset(self.name, self.root, self.download, self.size, self.channels)
        columns = ["name", "classes", "train", "test", "shape", "metric"]
        shape = " x ".join(map(str, data.shape))
        row = [data.name, data.num_classes, len(data.train), len(data.test), shape, data.metric]
        print_rows(columns, [row], f"{data.name}: {', '.join(data.classes)}")
        if self.name in CATALOG:
            source = CATALOG[self.name]
            print(f"{source.description}; split: {source.split}; licence: {source.licence}")
        return None

    def _list(self) -> None:
        """The catalogue, with what of it lies below the root; below the table, where, or how to get the rest."""
        import textwrap

        from waterbed.data.catalog import CATALOG
        from waterbed.data.named import data_root, locate
        from waterbed.errors import UsageError

        root = data_root(self.root)
        rows, places = [], []
        for s in CATALOG.values():
            try:
                place = "embedded" if s.obtain == "embedded" else locate(s, root)
                how = s.how(root).replace("download=True", "--download")  # as this command has it
                state, text = ("yes" if place else "no"), place or f"missing; {how}"
            except UsageError as error:
                state, text = "in part", error
            rows.append([s.name, s.classes, s.train_size, s.test_size, s.metric, s.licence, state])
            places.append(textwrap.fill(f"{s.name}: {text}", 100, subsequent_indent="  ", break_on_hyphens=False))
        columns = ["name", "classes", "train", "test", "metric", "licence", "here"]
        print_rows(columns, rows, f"Data sets known by name; root: {root}")
        print("\n".join(places))


@dataclass
class Train:
    """Train a network on a named data set or a folder of images; writes a run folder."""

    data: Positional[str]
    """Name of a data set, or a folder with train/<class>/* and test/<class>/*."""
    out: str
    """The run folder; an unfinished run there goes on, a finished one is left as it is."""
    objective: str = "adversarial"
    """standard, adversarial (eq. 1), trades (eq. 2) or gaussian-noise."""
    eps: float = 0.5
    """Radius of the ball, in pixel units [0, 1]."""
    norm: str = "l2"
    """l2 or linf."""
    attack_steps: int = 7
    """Steps of the attack."""
    beta: float = 6.0
    """Weight of the KL of trades."""
    model: str = "resnet18"
    """resnet10, resnet18, resnet34, resnet50, resnet101 or wide_resnet50_2."""
    stem: str = "cifar"
    """cifar (small images) or imagenet (large ones)."""
    width: int = 64
    """Channels of the first stage."""
    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    """one-cycle, cosine, step or constant."""
    milestones: tuple[int, ...] = ()
    """Epochs after which schedule=step falls to a tenth; by default 1/3 and 2/3 of all."""
    nesterov: bool = True
    """Nesterov's momentum."""
    momentum: float = 0.9
    augment: str = "auto"
    """auto, crop-flip, crop or none."""
    validation: float = 0.0
    """Fraction of the training images held out to choose the epoch; 0 keeps the last."""
    ema: float = 0.0
    """Decay per step of averaged weights, such as 0.995, to watch and keep in place of the last; 0 for none."""
    seed: int = 0
    precision: str = "auto"
    """auto, fp32 or bf16."""
    resume: str = "auto"
    """auto or never."""
    workers: int = 0
    """Processes that decode images, for data too large for memory."""
    checkpoint_minutes: float = 15.0
    """Within long epochs the state is saved that often."""
    trackers: tuple[str, ...] = ()
    """tensorboard, wandb, mlflow, beside metrics.jsonl."""
    dry_run: bool = False
    """Show shapes, parameters, memory and the time it would take, from three steps; train and write nothing."""
    root: str | None = None
    """Where named data sets lie."""
    download: bool = False
    """Fetch a named data set that is missing."""
    size: int | None = None
    """Side of the square images."""
    channels: int | None = None
    """1 (grey) or 3 (RGB)."""

    def __call__(self) -> None:
        from waterbed import create_model, fit
        from waterbed.cli.common import FIT_OPTIONS, load_with_source, objective

        chosen = objective(self.objective, self.eps, self.norm, self.attack_steps, self.beta)
        data, source = load_with_source(self.data, self.root, self.download, self.size, self.channels)
        model = create_model(self.model, data.num_classes, self.stem, self.width, data.shape[0], self.seed)
        options = {name: getattr(self, name) for name in FIT_OPTIONS}
        if self.dry_run:
            from waterbed.training.config import TrainConfig
            from waterbed.training.dry_run import dry_run

            rows = dry_run(model, data, chosen, TrainConfig(**options))
            print_rows(["what", "how much"], rows, f"{self.out} would be")
            return
        run = fit(model, data, chosen, self.out, seed=self.seed, notes={"source": source}, **options)
        last = run.kept
        shown = ("loss", "train_accuracy", "validation_clean", "validation_robust", "test_clean", "test_robust")
        values = ", ".join(f"{k.replace('_', ' ')} {last[k]:.4g}" for k in shown if k in last)
        print(f"{self.out}: epoch {last['epoch']}: {values}")


@dataclass
class Sweep:
    """Train one recipe at several eps and seeds, evaluate and measure every network; one table and one picture."""

    recipe: Positional[str]
    """TOML file with options of `waterbed train` (data, objective, model, epochs, ...)."""
    out: str
    """Folder for the runs, sweep.json and sweep.png; finished runs in it are not repeated."""
    eps: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    """Radii to train at; 0 is standard training."""
    seeds: int = 1
    """How many seeds, from 0."""
    evaluated_eps: tuple[float, ...] = (0.5,)
    """Radii of the PGD-20 evaluation."""
    num_samples: int = 500
    """Images behind each measure."""
    num_evaluated: int | None = 1000
    """Test images for the accuracies."""
    launcher: str = "here"
    """here (one after the other), slurm (a job each, by submitit), local (all at once) or debug."""

    def __call__(self) -> None:
        from waterbed.cli.common import sweep_recipe

        points = sweep_recipe(self)
        columns = ["eps", "seed", "clean [%]", *(f"{k} [%]" for k in points[0].robust), "weight norm"]
        columns += [name.replace("_", " ") for name in points[0].measures]
        rows = []
        for p in points:
            numbers = [f"{p.clean:.1f}", *(f"{v:.1f}" for v in p.robust.values()), f"{p.weight_norms[-1]:.2f}"]
            rows.append([p.eps, p.seed, *numbers, *(e.short() for e in p.measures.values())])
        # One column a network: there are more quantities than fit side by side.
        turned = [list(line) for line in zip(columns, *rows, strict=True)]
        print_rows(turned[0], turned[1:], f"Sweep over eps; ± is one standard error; {self.out}/sweep.png")


@dataclass
class Evaluate:
    """Clean and robust accuracy of runs, with 95 % Wilson intervals."""

    runs: Positional[Words]
    """Run folders or files of networks."""
    eps: tuple[float, ...] = (0.5,)
    """Radii of the attacks, one or more."""
    attacks: str = "pgd"
    """pgd (with --steps and --restarts), or standard: PGD-20, PGD-100 x5, AutoAttack, a check of gradient masking."""
    norm: str = "l2"
    """l2 or linf."""
    steps: int = 20
    """Steps of each pgd attack."""
    restarts: int = 1
    """Random restarts of each pgd attack."""
    autoattack: str = "auto"
    """In standard: auto (where it is installed), always or never."""
    data: str | None = None
    """Data set or folder; by default the one the run was trained on."""
    root: str | None = None
    """Where named data sets lie."""
    num_samples: int | None = None
    """Test images to use; all by default."""
    seed: int = 0
    out: str | None = None
    """A JSON file for the results; standard attacks keep their progress beside it and go on from there."""

    def __call__(self) -> None:
        from waterbed import PGD, evaluate
        from waterbed.cli.common import check_writable, open_runs, write_json
        from waterbed.errors import check_choice

        check_choice("attacks", self.attacks, ("pgd", "standard"))
        if self.attacks == "standard":
            return self._standard()
        attacks = [PGD(eps, self.norm, self.steps, restarts=self.restarts) for eps in self.eps]
        check_writable(self.out)
        scores = {}
        for name, run, data in open_runs(self.runs, self.data, self.root):
            scores[name] = evaluate(
                run.model, data.test, attacks, num_samples=self.num_samples, seed=self.seed, progress=True
            )
        columns = ["run", "clean", *(a.name for a in attacks), "clean, mean per class", "images"]
        rows = [[n, s.clean, *s.robust.values(), f"{s.mean_per_class:.2f} %", s.n] for n, s in scores.items()]
        print_rows(columns, rows, "Accuracy on test images, with 95 % intervals")
        write_json(self.out, {name: score.to_dict() for name, score in scores.items()})
        return None

    def _standard(self) -> None:
        """The standard battery of every run at every eps: a row each, and below the table what is behind it."""
        from pathlib import Path

        from waterbed.cli.common import check_writable, open_runs, write_json
        from waterbed.evaluation.standard import RobustnessReport, evaluate_standard

        check_writable(self.out)
        reports: dict[str, list[RobustnessReport]] = {}
        for name, run, data in open_runs(self.runs, self.data, self.root):
            for eps in dict.fromkeys(self.eps):
                place = None if self.out is None else Path(self.out).with_suffix(f".{name}.{self.norm}-{eps:g}.json")
                options = {"num_samples": self.num_samples, "seed": self.seed, "autoattack": self.autoattack}
                report = evaluate_standard(run.model, data.test, eps, self.norm, out=place, progress=True, **options)
                reports.setdefault(name, []).append(report)
        flat = [(name, report) for name, found in reports.items() for report in found]
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
        write_json(self.out, {name: [report.to_dict() for report in found] for name, found in reports.items()})
