"""measure: Fisher information of runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from waterbed.cli.options import Fetch, Force, Radius, Root, RunData, Runs, Workers
from waterbed.cli.output import print_rows, say_written
from waterbed.information.defaults import BETA, PRIOR_VARIANCE


@dataclass
class Measure:
    """Fisher information of representations (on test images) and of weights (on training images), with errors."""

    runs: Runs
    quantities: tuple[str, ...] = ()
    """Quantities by name; an unknown name lists them all. By default five cheap ones."""
    num_samples: int = 500
    """Number of test images, and of training images."""
    damping: float = 1e-8
    """Added to F_w in its log-variance and log-determinant."""
    eps: Radius = 0.5
    """Radius of the curvature ratios."""
    beta: float = BETA
    """Information level, for weight_information and effective_information."""
    prior_variance: float = PRIOR_VARIANCE
    """Prior variance of the weights, for the same two."""
    input_variance: float = 1.0
    """Variance of the perturbation of the input, for effective_information."""
    data: RunData = None
    root: Root = None
    download: Fetch = False
    workers: Workers = 0
    seed: int = 0
    """Seed of the choice of images and of random probes."""
    out: str | None = None
    """One JSON file for the results of all; other runs in it stay. By default measures.json in each run's folder."""
    force: Force = False

    def __call__(self) -> Any:
        from waterbed.cli.results import Kept
        from waterbed.cli.runs import open_runs, unique_runs
        from waterbed.information.measure import DEFAULT, measure
        from waterbed.models.classifier import weight_norm
        from waterbed.training.model_card import MEASURES

        runs = unique_runs(self.runs, self.download)
        kept = Kept(MEASURES, self.out, self.force, runs, self.data)
        results, norms, plain = {}, {}, {}
        for name, run, data in open_runs(runs, self.data, self.root):
            results[name] = measure(
                run.model,
                data,
                self.num_samples,
                self.seed,
                self.damping,
                self.quantities or DEFAULT,
                progress=True,
                workers=self.workers,
                eps=self.eps,
                beta=self.beta,
                prior_variance=self.prior_variance,
                input_variance=self.input_variance,
            )
            norms[name] = weight_norm(run.model)
            estimates = {quantity: estimate.to_dict() for quantity, estimate in results[name].items()}
            plain[name] = {**estimates, "weight_norm": norms[name]}
            kept.add(name, run, plain[name])
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
        say_written(*kept.written)
        return plain
