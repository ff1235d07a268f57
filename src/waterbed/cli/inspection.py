"""Commands that look into networks: measure, invert, report."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from waterbed.cli.output import Words, print_rows
from waterbed.information.defaults import BETA, PRIOR_VARIANCE


@dataclass
class Measure:
    """Fisher information of representations (test images) and of weights (training images), with errors."""

    runs: Positional[Words]
    """Run folders or files of networks."""
    quantities: tuple[str, ...] = ()
    """What to measure; a wrong name lists them all. By default five cheap ones."""
    num_samples: int = 500
    """Images of each kind."""
    damping: float = 1e-8
    """Added to F_w in its log-variance and log-determinant."""
    eps: float = 0.5
    """Radius of the curvature ratios."""
    beta: float = BETA
    """Information level, for weight_information and effective_information."""
    prior_variance: float = PRIOR_VARIANCE
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
        from waterbed.cli.common import add_to_json, check_writable, open_runs
        from waterbed.information.measure import DEFAULT, measure
        from waterbed.models.classifier import weight_norm

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
        print_rows(
            ["quantity", *results],
            rows,
            f"± is one standard error over {images} images (and over probes, if any)",
        )
        add_to_json(
            self.out,
            {n: {**{q: e.to_dict() for q, e in r.items()}, "weight_norm": norms[n]} for n, r in results.items()},
        )


@dataclass
class Invert:
    """Find the images that a network cannot tell from given ones; one picture for each run."""

    runs: Positional[Words]
    """Run folders or files of networks."""
    images: str | None = None
    """Folder of pictures, of any size; by default test images of the run's data."""
    out: str = "inversions"
    """Folder for NAME.png and NAME.json of each run."""
    mode: str = "all"
    """plain, variational, effective, all of them, or class (an image of each class)."""
    study: str = "none"
    """none, convergence (Fig. 2: which arm is fastest, step sizes tuned for each), beta (images at all --betas)."""
    num_images: int = 8
    """How many of them (or of the classes), from the first."""
    steps: int = 1000
    lr: float | None = None
    """Step size; by default found for each image, and in the convergence study for each arm."""
    optimizer: str = "sgd"
    """sgd, normalized, adam or lbfgs (without noise at every step)."""
    precision: str = "fp32"
    """fp32 or bf16 (for the descent alone)."""
    layer: str | None = None
    """Invert this module's output instead of the features."""
    init: str = "gaussian"
    """Start: gaussian (grey with a little noise), uniform, zeros or ones."""
    fake_relu: bool = False
    """Give the last ReLU the gradient of the identity."""
    animate: bool = False
    """Write the way there as a GIF, too."""
    beta: float = BETA
    """Information level of the weight noise."""
    prior_variance: float = PRIOR_VARIANCE
    """Prior variance of the weights."""
    betas: tuple[float, ...] = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6)
    """Information levels of the studies."""
    seeds: int = 3
    """Seeds of the convergence study."""
    num_samples: int = 500
    """Training images behind the weights' Fisher information."""
    data: str | None = None
    """Data set or folder; by default the one the run was trained on."""
    root: str | None = None
    """Where named data sets lie."""
    seed: int = 0

    def __call__(self) -> None:
        from waterbed.cli.inverting import invert_runs

        columns, rows = invert_runs(self)
        print_rows(columns, rows, f"After {self.steps} steps; pictures in {self.out}")


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
