"""invert: the images that a network cannot tell from given ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from waterbed.cli.options import Fetch, Force, Root, RunData, Runs
from waterbed.cli.output import print_rows, say
from waterbed.information.defaults import BETA, PRIOR_VARIANCE
from waterbed.inversion.defaults import (
    BETAS,
    INIT,
    NUM_IMAGES,
    NUM_SAMPLES,
    NUM_SEEDS,
    OPTIMIZER,
    PRECISION,
    STEPS,
)


@dataclass
class Invert:
    """Find images that a network cannot tell from given ones; one picture per run."""

    runs: Runs
    images: str | None = None
    """Folder of pictures of any size; by default test images of the run's data."""
    out: str = "inversions"
    """Folder for NAME.png and NAME.json of each run; its run folder gets a copy, for `waterbed report`."""
    mode: str = "all"
    """plain, variational, effective, all of them, or class (one image per class)."""
    study: str = "none"
    """none, convergence (Fig. 2: which arm is fastest, each with a tuned step size) or beta (images at all --betas)."""
    num_images: int = NUM_IMAGES
    """Number of images, or of classes, from the first."""
    steps: int = STEPS
    """Gradient steps."""
    lr: float | None = None
    """Step size; by default found for each image, and in the convergence study for each arm."""
    optimizer: str = OPTIMIZER
    """sgd, normalized, adam or lbfgs (without noise at every step)."""
    precision: str = PRECISION
    """fp32, or bf16 for the descent alone."""
    layer: str | None = None
    """Invert this module's output instead of the features."""
    init: str = INIT
    """Start: gaussian (grey with a little noise), uniform, zeros or ones."""
    fake_relu: bool = False
    """Give the last ReLU the gradient of the identity."""
    animate: bool = False
    """Also write the images on the way as a GIF."""
    force: Force = False
    beta: float = BETA
    """Information level of the weight noise."""
    prior_variance: float = PRIOR_VARIANCE
    """Prior variance of the weights."""
    betas: tuple[float, ...] = BETAS
    """Information levels of the studies."""
    seeds: int = NUM_SEEDS
    """Number of seeds in the convergence study."""
    num_samples: int = NUM_SAMPLES
    """Training images behind the weights' Fisher information."""
    data: RunData = None
    root: Root = None
    download: Fetch = False
    seed: int = 0
    """Seed of the start, of the noise and of the choice of images."""

    def __call__(self) -> Any:
        import json
        from pathlib import Path

        from waterbed.cli.results import KeptPictures
        from waterbed.cli.runs import data_of, unique_runs
        from waterbed.inversion.gallery import check_used, draw_gallery
        from waterbed.inversion.outputs import file_pattern

        arguments = vars(self).copy()
        check_used(arguments, spell=lambda name, value: f"--{name.replace('_', '-')} {value}")
        data, root, runs, download = (arguments.pop(name) for name in ("data", "root", "runs", "download"))
        opened = unique_runs(runs, download)
        kind = "classes" if self.mode == "class" else "" if self.study == "none" else self.study
        pattern = file_pattern(self.mode, self.study)
        kept = KeptPictures(opened, self.out, pattern, f"inversions-{kind}" if kind else "inversions", self.force)
        result = draw_gallery(
            {name: run.model for name, run in opened.items()},
            lambda name: data_of(name, opened[name], data, root),
            progress=True,
            **arguments,
        )
        kept.copy()
        for note in result.notes:
            say(note)
        print_rows(result.columns, result.rows, f"After {self.steps} steps; pictures and numbers in {self.out}")
        files = {name: Path(self.out).expanduser() / f"{pattern.format(name)}.json" for name in opened}
        return {name: json.loads(file.read_text()) for name, file in files.items()}
