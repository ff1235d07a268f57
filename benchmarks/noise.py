"""Time of Sigma_z = J_w Sigma* J_w^T, layer by layer and with the full Jacobian J_w.

    python benchmarks/noise.py [--threads 1] [--repeats 5] [--width 16] [--out FILE.json]

A ResNet-18 in eval mode on random images 32 x 32, one image at a time, float32 weights and float64 sums, the diagonal
of Sigma*. Every repetition runs both in turn, so that a busy machine slows both; medians are reported.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

import waterbed as wb
from waterbed.environment import environment
from waterbed.information.representation_noise import RepresentationNoise
from waterbed.models.states import frozen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/noise.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = wb.create_model("resnet18", 10, width=options.width, seed=0).eval()
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with frozen(model):
        noise = RepresentationNoise(model, wb.WeightFisher(model, x, params="features"), 1e-8, 1e-3, "diagonal")
        seconds: dict[str, list[float]] = {"layer by layer": [], "whole Jacobian": []}
        for _ in range(options.repeats + 1):  # the first round is a warm-up
            values = []
            for name, method in zip(
                seconds, (noise.covariance, lambda one: noise.project(noise.jacobian(one))), strict=True
            ):
                start = time.perf_counter()
                values.append(method(x[:1]))
                seconds[name].append(time.perf_counter() - start)
    difference = float((values[0] - values[1]).norm() / values[1].norm())
    times = {name: median(s[1:]) for name, s in seconds.items()}
    ratio = times["whole Jacobian"] / times["layer by layer"]
    print(f"{noise.size:,} weights, {values[0].shape[1]} features, {options.threads} thread(s)")
    for name, value in times.items():
        print(f"{name}: {value:.3f} s per image")
    print(f"ratio {ratio:.2f}, relative difference {difference:.1e}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"weights": noise.size, "seconds": times, "ratio": ratio, "difference": difference}
    options.out.write_text(
        json.dumps({**result, "repeats": options.repeats, "environment": environment()}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
