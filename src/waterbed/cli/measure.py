"""measure: Fisher information of runs."""

from __future__ import annotations

from dataclasses import dataclass

from waterbed.cli.options import Radius, Root, RunData, Runs, Workers
from waterbed.cli.output import add_to_json, check_writable, print_rows
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
    workers: Workers = 0
    seed: int = 0
    """Seed of the choice of images and of random probes."""
    out: str = "measures.json"
    """A JSON file for the results; other runs in it stay."""

    def __call__(self) -> None:
        from waterbed.cli.runs import open_runs
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
                workers=self.workers,
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
