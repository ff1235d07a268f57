"""The command line: one dataclass and one thin function for each command.

Options have the library's names; --help shows their defaults. torch is imported only when a command runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import Positional, arg

Words = Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]")]


@dataclass
class Demo:
    """Train a standard and a robust network on embedded data, measure, invert and transfer both; a few minutes."""

    out: str = "waterbed-demo"
    """Folder for report.html, results.json and the two runs."""
    quick: bool = False
    """The same in seconds, on little data: a check that everything runs."""

    def __call__(self) -> None:
        from waterbed.demo import QUICK, Config, demo, summary_table

        results = demo(self.out, QUICK if self.quick else Config())
        _print_table(summary_table(results))
        print(f"{self.out}/report.html and {self.out}/results.json written in {results['seconds']:.0f} s")


@dataclass
class Data:
    """List the data sets known by name, or describe one (a name or a folder)."""

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
        from waterbed.data import CATALOG, load_dataset

        if self.name == "list":
            columns = ["name", "classes", "train", "test", "images", "licence", "how to get it"]
            rows = [
                [s.name, s.classes, s.train_size, s.test_size, s.image, s.licence, s.obtain] for s in CATALOG.values()
            ]
            return _print(columns, rows, "Data sets known by name")
        data = load_dataset(self.name, self.root, self.download, self.size, self.channels)
        row = [data.name, data.num_classes, len(data.train), len(data.test), " x ".join(map(str, data.shape))]
        return _print(["name", "classes", "train", "test", "shape"], [row], f"{data.name}: {', '.join(data.classes)}")


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
    augment: str = "auto"
    """auto, crop-flip, crop or none."""
    validation: float = 0.0
    """Fraction of the training images held out to choose the epoch; 0 keeps the last."""
    seed: int = 0
    precision: str = "auto"
    """auto, fp32 or bf16."""
    resume: str = "auto"
    """auto or never."""
    workers: int = 0
    """Processes that decode images, for data too large for memory."""
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
        from waterbed.commands import FIT_OPTIONS, load_with_source, objective

        chosen = objective(self.objective, self.eps, self.norm, self.attack_steps, self.beta)
        data, source = load_with_source(self.data, self.root, self.download, self.size, self.channels)
        model = create_model(self.model, data.num_classes, self.stem, self.width, data.shape[0], self.seed)
        run = fit(
            model,
            data,
            chosen,
            self.out,
            seed=self.seed,
            notes={"source": source},
            **{name: getattr(self, name) for name in FIT_OPTIONS},
        )
        last = run.kept
        shown = ("loss", "train_accuracy", "validation_clean", "validation_robust", "test_clean", "test_robust")
        values = ", ".join(f"{k.replace('_', ' ')} {last[k]:.4g}" for k in shown if k in last)
        print(f"{self.out}: epoch {last['epoch']}: {values}")


@dataclass
class Evaluate:
    """Clean and robust accuracy of runs, with 95 % Wilson intervals."""

    runs: Positional[Words]
    """Run folders."""
    eps: tuple[float, ...] = (0.5,)
    """Radii of the attacks, one or more."""
    norm: str = "l2"
    """l2 or linf."""
    steps: int = 20
    """Steps of each attack."""
    restarts: int = 1
    """Random restarts of each attack."""
    data: str | None = None
    """Data set or folder; by default the one the run was trained on."""
    root: str | None = None
    """Where named data sets lie."""
    num_samples: int | None = None
    """Test images to use; all by default."""
    seed: int = 0
    out: str | None = None
    """A JSON file for the results."""

    def __call__(self) -> None:
        from waterbed import PGD, evaluate
        from waterbed.commands import check_writable, open_runs, write_json

        attacks = [PGD(eps, self.norm, self.steps, restarts=self.restarts) for eps in self.eps]
        check_writable(self.out)
        scores = {}
        for name, run, data in open_runs(self.runs, self.data, self.root):
            scores[name] = evaluate(
                run.model, data.test, attacks, num_samples=self.num_samples, seed=self.seed, progress=True
            )
        columns = ["run", "clean", *(a.name for a in attacks), "clean, mean per class", "images"]
        rows = [[n, s.clean, *s.robust.values(), f"{s.mean_per_class:.2f} %", s.n] for n, s in scores.items()]
        _print(columns, rows, "Accuracy on test images, with 95 % intervals")
        write_json(self.out, {name: score.to_dict() for name, score in scores.items()})


@dataclass
class Measure:
    """Fisher information of representations (test images) and of weights (training images), with errors."""

    runs: Positional[Words]
    """Run folders."""
    quantities: tuple[str, ...] = ()
    """What to measure; a wrong name lists them all. By default five cheap ones."""
    num_samples: int = 500
    """Images of each kind."""
    damping: float = 1e-8
    """Added to F_w in its log-variance and log-determinant."""
    eps: float = 0.5
    """Radius of the curvature ratios."""
    beta: float = 1e-6
    """Information level, for weight_information and effective_information."""
    prior_variance: float = 1e-4
    """Prior variance of the weights, for the same."""
    input_variance: float = 1.0
    """Variance of the perturbation of the input, for effective_information."""
    data: str | None = None
    """Data set or folder; by default the one the run was trained on."""
    root: str | None = None
    """Where named data sets lie."""
    seed: int = 0
    out: str = "measures.json"
    """A JSON file for the results; runs that are already in it are kept."""

    def __call__(self) -> None:
        from waterbed.commands import add_to_json, check_writable, open_runs
        from waterbed.information.summary import DEFAULT, measure
        from waterbed.models import weight_norm

        check_writable(self.out)
        results, norms = {}, {}
        for name, run, data in open_runs(self.runs, self.data, self.root):
            results[name] = measure(
                run.model,
                data,
                self.num_samples,
                self.seed,
                self.damping,
                self.quantities or DEFAULT,
                progress=True,
                eps=self.eps,
                beta=self.beta,
                prior_variance=self.prior_variance,
                input_variance=self.input_variance,
            )
            norms[name] = weight_norm(run.model)
        rows = [
            [f"{q} [{first.unit}]", *(r[q].short() for r in results.values())]
            for q, first in next(iter(results.values())).items()
        ]
        rows.append(["weight_norm", *(f"{v:.4g}" for v in norms.values())])
        images = " or ".join(map(str, sorted({e.n for r in results.values() for e in r.values()})))
        _print(
            ["quantity", *results],
            rows,
            f"± is one standard error over {images} images (and over probes, if any)",
        )
        add_to_json(
            self.out,
            {n: {**{q: e.to_dict() for q, e in r.items()}, "weight_norm": norms[n]} for n, r in results.items()},
        )


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

    def __call__(self) -> None:
        from waterbed.commands import sweep_recipe

        points = sweep_recipe(self)
        columns = ["eps", "seed", "clean [%]", *(f"{k} [%]" for k in points[0].robust), "weight norm"]
        columns += [name.replace("_", " ") for name in points[0].measures]
        rows = []
        for p in points:
            numbers = [f"{p.clean:.1f}", *(f"{v:.1f}" for v in p.robust.values()), f"{p.weight_norms[-1]:.2f}"]
            rows.append([p.eps, p.seed, *numbers, *(e.short() for e in p.measures.values())])
        # One column a network: there are more quantities than fit side by side.
        turned = [list(line) for line in zip(columns, *rows, strict=True)]
        _print(turned[0], turned[1:], f"Sweep over eps; ± is one standard error; {self.out}/sweep.png")


@dataclass
class Invert:
    """Find the images that a network cannot tell from given ones; one picture for each run."""

    runs: Positional[Words]
    """Run folders."""
    images: str | None = None
    """Folder of pictures, of any size; by default test images of the run's data."""
    out: str = "inversions"
    """Folder for NAME.png and NAME.json of each run."""
    mode: str = "all"
    """plain, variational, effective or all."""
    num_images: int = 8
    """How many of them."""
    steps: int = 1000
    lr: float | None = None
    """Step size; by default found for each image."""
    optimizer: str = "sgd"
    """sgd, normalized or adam."""
    beta: float = 1e-6
    """Information level of the weight noise."""
    prior_variance: float = 1e-4
    """Prior variance of the weights."""
    num_samples: int = 500
    """Training images behind the weights' Fisher information."""
    data: str | None = None
    """Data set or folder; by default the one the run was trained on."""
    root: str | None = None
    """Where named data sets lie."""
    seed: int = 0

    def __call__(self) -> None:
        from waterbed.commands import invert_run, open_runs

        rows = []
        for name, run, data in open_runs(self.runs, self.data, self.root):
            rows += invert_run(name, run, data, self)
        columns = ["run", "mode", "loss, clean model", "noise / weights", "diverged"]
        _print(columns, rows, f"After {self.steps} steps; pictures in {self.out}")


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
        from waterbed.commands import check_writable, transfer_mode, unique_runs, write_text

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


@dataclass
class Report:
    """One HTML page about runs."""

    runs: Positional[Words]
    """Run folders."""
    out: str = "report.html"
    """The page."""

    def __call__(self) -> None:
        from waterbed import report

        print(f"{report(self.runs, self.out)} written")


COMMANDS: dict[str, Any] = {
    "demo": Demo,
    "data": Data,
    "train": Train,
    "evaluate": Evaluate,
    "measure": Measure,
    "sweep": Sweep,
    "invert": Invert,
    "transfer": Transfer,
    "report": Report,
}


def _print_table(table: Any) -> None:
    _print(table.columns, table.rows, table.caption)


def _print(columns: Any, rows: Any, title: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for i, column in enumerate(columns):
        # Names and short numbers stay whole; what is longer wraps.
        longest = max((len(str(row[i])) for row in rows), default=0)
        table.add_column(
            escape(str(column)),
            justify="left" if i == 0 else "right",
            min_width=min(longest, 24) if i == 0 else None,
            no_wrap=i > 0 and longest <= 18,
        )
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    Console().print(table)
