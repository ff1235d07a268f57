"""Speed of inversion compared with common practice, and of its optimisers with each other.

    python benchmarks/inversion.py NETWORK.safetensors [--data FOLDER] [--threads 1] [--repeats 3] [--out FILE.json]

Common practice is a loop over torch.autograd.grad on the network in eval mode, in float32, one image at a time or in
batches. Every repetition runs all methods in turn, with the same step size and start; medians and final losses are
reported. Then: the iterations that each optimiser needs to reach the loss of sgd after 2,000, at its own step size,
also including the search for that step size, which costs 20 iterations on 8 copies.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import waterbed as wb
from waterbed.environment import environment
from waterbed.inversion.optimizers import OPTIMIZERS, PILOT_STEPS

PILOT_COPIES = 8


def common_practice(model: nn.Module, x: Tensor, start: Tensor, lr: float, steps: int) -> Tensor:
    """Images after plain gradient descent with autograd on the unmodified network."""
    with torch.no_grad():
        z = model.features(x)
    r = start.clone()
    for _ in range(steps):
        r.requires_grad_()
        loss = (model.features(r) - z).square().sum()
        (gradient,) = torch.autograd.grad(loss, r)
        r = (r.detach() - lr * gradient).clamp(0, 1)
    return r


def relative_loss(model: nn.Module, r: Tensor, x: Tensor) -> float:
    """Mean of |f(r) - z|^2 / |z|^2."""
    with torch.no_grad():
        z = model.features(x)
        return float(((model.features(r) - z).square().sum(1) / z.square().sum(1)).mean())


def speed(model: nn.Module, x: Tensor, steps: int, repeats: int) -> dict[str, dict[str, float]]:
    """Image-iterations per second and final loss of each method."""
    lr = float(wb.invert(model, x, steps=1).lr.median())
    start = (0.5 + 0.1 * torch.randn(1, *x.shape[1:], generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    start = start.expand_as(x).contiguous()
    few = slice(0, 4)  # one at a time is slow, so time four images only
    methods: dict[str, tuple[int, Callable[[], Tensor]]] = {
        "usual, one image at a time": (
            len(x[few]),
            lambda: torch.cat(
                [common_practice(model, a[None], b[None], lr, steps) for a, b in zip(x[few], start[few], strict=True)]
            ),
        ),
        "usual, batched": (len(x), lambda: common_practice(model, x, start, lr, steps)),
        "waterbed, fp32": (len(x), lambda: wb.invert(model, x, steps=steps, lr=lr, init=start).images),
        "waterbed, bf16": (
            len(x),
            lambda: wb.invert(model, x, steps=steps, lr=lr, init=start, precision="bf16").images,
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    losses = {}
    for _ in range(repeats):
        for name, (count, method) in methods.items():
            start_time = time.perf_counter()
            inverted = method()
            seconds[name].append((time.perf_counter() - start_time) / (count * steps))
            losses[name] = relative_loss(model, inverted, x[: len(inverted)])
    return {
        name: {"image_iterations_per_second": 1 / median(s), "final_loss": losses[name]} for name, s in seconds.items()
    }


def iterations(model: nn.Module, x: Tensor, steps: int) -> dict[str, dict[str, Any]]:
    """Median iterations to the loss that sgd reaches after ``steps``, without and with the search for a step size."""
    goal, results = None, {}
    for optimizer in OPTIMIZERS:
        result = wb.invert(model, x, steps=steps, optimizer=optimizer, progress=True)
        relative = result.losses / result.scale
        goal = relative.min(0).values if goal is None else goal
        reached = relative <= goal
        first = torch.where(reached.any(0), reached.to(torch.uint8).argmax(0).double(), torch.inf)
        pilot = 0 if optimizer == "lbfgs" else PILOT_STEPS * PILOT_COPIES
        results[optimizer] = {
            "iterations": float(first.median()),
            "with_pilot": float(first.median()) + pilot,
            "reached": float(reached.any(0).double().mean()),
            "final_loss": float((result.final_losses / result.scale).median()),
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--data", default="fashion-mini", help="the data set whose test images to invert")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100, help="of the timed runs")
    parser.add_argument("--sgd-steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = wb.load_model(options.network).requires_grad_(False)
    channels, side, _ = model.input_shape
    data = wb.load_dataset(options.data, size=side, channels=channels)
    x, _ = wb.stack(data.test, options.images, seed=0)
    timed = speed(model, x, options.steps, options.repeats)
    usual = timed["usual, batched"]["image_iterations_per_second"]
    print(f"{options.images} images, {options.steps} steps, {options.threads} thread(s)")
    for name, numbers in timed.items():
        rate = numbers["image_iterations_per_second"]
        print(
            f"{name:28} {rate:8.0f} image-iterations/s  {rate / usual:5.2f} x  final loss {numbers['final_loss']:.4f}"
        )
    reached = iterations(model, x, options.sgd_steps)
    print(f"iterations to the loss of sgd after {options.sgd_steps}:")
    for name, numbers in reached.items():
        print(
            f"{name:28} {numbers['iterations']:8.0f}  with the pilot {numbers['with_pilot']:6.0f}  reached by "
            f"{100 * numbers['reached']:.0f} %  final loss {numbers['final_loss']:.2e}"
        )
    if options.out:
        content = {
            "speed": timed,
            "iterations": reached,
            "network": Path(options.network).stem,
            "data": data.name,
            "images": options.images,
            "steps": options.steps,
            "environment": environment(),
        }
        Path(options.out).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
