"""One step of l2 PGD-7 training compared with `robustness` and `torchattacks`.

    python benchmarks/training.py [--threads 2] [--repeats 3] [--width 64] [--steps 7] [--out FILE.json]

The network is the ResNet-18 with a CIFAR stem, batch 128, images 32 x 32. Ours is timed through ``fit`` itself, with
precision="auto" and, for comparison, "fp32"; the peers with their own attack and model code, in float32, as published.
Every repetition runs all methods in turn; medians and ratios are printed. Peers are optional: pip install
robustness==1.2.1 torchattacks. (`robustness` imports a module that torchvision has removed, so it gets a stand-in, and
always moves tensors to a GPU, which is disabled if there is none.)
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waterbed as wb
from waterbed.data.images import TensorImages
from waterbed.environment import environment

EPS = 1.0
BATCH = 128
Step = Callable[[], float]  # runs some steps, returns the seconds of one


class Noise:
    """Random images, enough for two batches."""

    name, classes, num_classes, shape = "noise", tuple(map(str, range(10))), 10, (3, 32, 32)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (2 * BATCH, *self.shape), generator=generator, dtype=torch.uint8)
        self.train = self.test = TensorImages(pixels, torch.arange(2 * BATCH) % 10)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batch() -> tuple[Tensor, Tensor]:
    x, y = Noise().train.batch(torch.arange(BATCH))
    return x.to(device()), y.to(device())


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ours(width: int, steps: int, precision: str) -> Step:
    """Two epochs of two steps; the second is timed."""

    def step() -> float:
        model = wb.create_model("resnet18", 10, width=width, seed=0)
        objective = wb.AdversarialTraining(wb.PGD(EPS, steps=steps))
        run = wb.fit(model, Noise(), objective, epochs=2, precision=precision, watch=0, progress=False)
        return run.history[-1]["seconds"] / 2

    return step


def timed_step(loss_of: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> Step:
    """An ordinary float32 step with a peer's attack, in seconds."""

    def step() -> float:
        began = time.perf_counter()
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        synchronise()
        return time.perf_counter() - began

    return step


def robustness_step(width: int, steps: int) -> Step | None:
    """The AttackerModel and ResNet-18 of `robustness`, with the loop of its train.py without logging."""
    if width != 64:
        return None  # it has no narrow networks
    try:
        stand_in = types.ModuleType("torchvision.models.utils")
        stand_in.load_state_dict_from_url = torch.hub.load_state_dict_from_url
        sys.modules.setdefault("torchvision.models.utils", stand_in)
        from robustness.attacker import AttackerModel
        from robustness.cifar_models.resnet import ResNet18
        from robustness.datasets import CIFAR
    except ImportError as error:
        print(f"robustness: {error}", file=sys.stderr)
        return None
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *args, **keywords: self
    model = AttackerModel(ResNet18(), CIFAR("/nowhere")).to(device()).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    attack = {"constraint": "2", "eps": EPS, "step_size": 2.5 * EPS / steps, "iterations": steps}
    x, y = batch()

    return timed_step(
        lambda: F.cross_entropy(model(x, target=y, make_adv=True, random_start=True, **attack)[0], y), optimizer
    )


def torchattacks_step(width: int, steps: int) -> Step | None:
    """Its PGDL2 on our network, with a plain float32 step around it."""
    try:
        import torchattacks
    except ImportError as error:
        print(f"torchattacks: {error}", file=sys.stderr)
        return None
    model = wb.create_model("resnet18", 10, width=width, seed=0).to(device()).train()
    model.set_normalisation([0.5] * 3, [0.25] * 3)
    attack = torchattacks.PGDL2(model, eps=EPS, alpha=2.5 * EPS / steps, steps=steps)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    x, y = batch()

    return timed_step(lambda: F.cross_entropy(model(attack(x, y)), y), optimizer)


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def flops(model: nn.Module, steps: int) -> float:
    """Floating-point operations of one training step: ``steps`` attack steps (two passes each) and three passes."""
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() * BATCH * (2 * steps + 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # those of the peers
    methods = {
        "waterbed, auto": ours(options.width, options.steps, "auto"),
        "waterbed, fp32": ours(options.width, options.steps, "fp32"),
        "robustness": robustness_step(options.width, options.steps),
        "torchattacks": torchattacks_step(options.width, options.steps),
    }
    seconds: dict[str, list[float]] = {name: [] for name, method in methods.items() if method is not None}
    for _ in range(options.repeats):
        for name in seconds:
            seconds[name].append(methods[name]())
    total = flops(wb.create_model("resnet18", 10, width=options.width), options.steps)
    base = median(seconds["waterbed, auto"])
    print(f"one step, batch {BATCH}, PGD-{options.steps}, width {options.width}, {options.threads} thread(s)")
    rows = {}
    for name, times in seconds.items():
        middle = median(times)
        rows[name] = {
            "seconds": middle,
            "fastest": min(times),
            "slowest": max(times),
            "images_per_second": BATCH / middle,
            "tflops": total / middle / 1e12,
            "ratio": middle / base,
        }
        print(
            f"{name:16} {middle:8.3f} s ({min(times):.3f} - {max(times):.3f})  {BATCH / middle:8.1f} images/s  "
            f"{total / middle / 1e12:7.3f} TFLOP/s  {middle / base:5.2f} x waterbed"
        )
    if options.out is not None:
        where = {**environment(), **{name: version(name) for name in ("robustness", "torchattacks")}}
        content = {"step": rows, "batch": BATCH, "width": options.width, "steps": options.steps, "environment": where}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
