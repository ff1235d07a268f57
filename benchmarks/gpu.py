"""The ladder of docs/reproduction.md on one GPU, in at most eight minutes.

    python benchmarks/gpu.py [--root DATA] [--out results/benchmarks/gpu.json] [--minutes 8] [--compile]
    python benchmarks/gpu.py --check

Rungs, each written to the file as soon as it is done and not repeated: images/s of a PGD-7 step (ResNet-18, batch 128)
and the share of the card's peak, beside `robustness` and torchattacks where they are installed; CIFAR-10 ResNet-18 and
ResNet-50 and CIFAR-100 ResNet-18, trained at l2 eps 1 for as many epochs as the rung's share of the minutes allows
(recipe of recipes/fast-cifar10.toml), then attacked. Published for `robustness` (ResNet-50, eps 1, 150 epochs): 81.62
clean, 68.61 and 52.61 under PGD-100 at eps 0.5 and 1. --check runs every rung on the CPU in seconds, on noise and with
tiny networks, and verifies what it writes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import training as steps  # benchmarks/training.py

import waterbed as wb
from waterbed.data.images import ImageData, TensorImages
from waterbed.environment import environment

PUBLISHED = {"clean": 81.62, "pgd-100 l2 eps=0.5": 68.61, "pgd-100 l2 eps=1": 52.61}
# Dense bfloat16 TFLOP/s by the data sheets.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125, "4090": 165, "3090": 71}
MOST_EPOCHS = 60


@dataclass(frozen=True)
class Rung:
    """A training: data, network, and its share of the minutes."""

    data: str
    network: str
    share: float


RUNGS = {
    "cifar10 resnet18": Rung("cifar10", "resnet18", 0.22),
    "cifar10 resnet50": Rung("cifar10", "resnet50", 0.38),
    "cifar100 resnet18": Rung("cifar100", "resnet18", 0.22),
}


@dataclass(frozen=True)
class Size:
    """How much of everything: the ladder itself, or the check."""

    width: int
    images: int | None
    repeats: int
    attack_steps: int
    test: int
    final_steps: int
    batches: int


LADDER = Size(width=64, images=None, repeats=3, attack_steps=3, test=2000, final_steps=100, batches=40)
CHECK = Size(width=4, images=64, repeats=1, attack_steps=1, test=16, final_steps=2, batches=2)


def noise(classes: int, images: int) -> ImageData:
    """Stands in for a data set in the check."""
    pixels = torch.randint(0, 256, (images, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    part = TensorImages(pixels, torch.arange(images) % classes)
    return ImageData("noise", part, part, tuple(map(str, range(classes))), flip=True)


def peak() -> float | None:
    """TFLOP/s of the card, where it is known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((float(value) for key, value in PEAKS.items() if key in name), None)


def ours(size: Size, precision: str, compile: bool) -> steps.Step:
    """Seconds of one step of ``fit``, from the second of two epochs."""
    data = noise(10, size.batches * steps.BATCH)

    def step() -> float:
        model = wb.create_model("resnet18", 10, width=size.width, seed=0)
        settings = {"batch_size": steps.BATCH, "precision": precision, "compile": compile, "watch": 0}
        objective = wb.AdversarialTraining(wb.PGD(steps.EPS, steps=7))
        run = wb.fit(model, data, objective, epochs=2, progress=False, **settings)
        return run.history[-1]["seconds"] / size.batches

    return step


def step_times(size: Size, compile: bool) -> dict[str, Any]:
    """Images/s of one training step, ours and the peers', in turn."""
    methods = {
        "waterbed, auto": ours(size, "auto", False),
        "waterbed, fp32": ours(size, "fp32", False),
        **({"waterbed, compiled": ours(size, "auto", True)} if compile else {}),
        "robustness": steps.robustness_step(size.width, 7),
        "torchattacks": steps.torchattacks_step(size.width, 7),
    }
    times: dict[str, list[float]] = {name: [] for name, method in methods.items() if method is not None}
    for _ in range(size.repeats):
        for name in times:
            times[name].append(methods[name]())
    total = steps.flops(wb.create_model("resnet18", 10, width=size.width), 7)
    rows = {}
    for name, values in times.items():
        seconds = median(values)
        share = None if peak() is None else total / seconds / 1e12 / peak()
        rows[name] = {"seconds": seconds, "images_per_second": steps.BATCH / seconds, "share_of_peak": share}
    return {"batch": steps.BATCH, "width": size.width, "rows": rows}


def trained(rung: Rung, size: Size, seconds: float, options: Any) -> dict[str, Any]:
    """A training that takes about so many seconds, and its accuracies."""
    began = time.monotonic()
    if options.check:
        data = noise(100 if rung.data == "cifar100" else 10, size.images)
    else:
        data = wb.load_dataset(rung.data, root=options.root)
    objective = wb.AdversarialTraining(wb.PGD(1.0, steps=size.attack_steps))
    settings = {"batch_size": 256, "lr": 0.2, "watch": 0, "progress": False, "compile": options.compile}

    def network() -> torch.nn.Module:
        return wb.create_model(rung.network, data.num_classes, width=size.width, seed=0)

    # The second epoch of a short training is its speed.
    few = data.take(min(len(data.train), 20 * 256), 1)
    speed = len(few.train) / wb.fit(network(), few, objective, epochs=2, **settings).history[-1]["seconds"]
    epoch = len(data.train) / speed
    left = seconds - (time.monotonic() - began)
    epochs = max(1, min(MOST_EPOCHS, int(0.8 * left / epoch)))
    trial = time.monotonic()
    run = wb.fit(network(), data, objective, epochs=epochs, **settings)
    trial = time.monotonic() - trial
    attacks = [wb.PGD(eps, steps=size.final_steps) for eps in (0.5, 1.0)]
    score = wb.evaluate(run.model, data.test, attacks, num_samples=min(size.test, len(data.test)), batch_size=500)
    return {
        "epochs": epochs,
        "images": len(data.train),
        "images_per_second": speed,
        "seconds": trial,
        "clean": score.clean.to_dict(),
        "robust": {name: accuracy.to_dict() for name, accuracy in score.robust.items()},
        "published": PUBLISHED if rung.data == "cifar10" else None,
    }


def climb(options: Any, size: Size) -> dict[str, Any]:
    """All rungs that the file does not have yet."""
    content: dict[str, Any] = {"environment": environment(), "peak_tflops": peak(), "rungs": {}}
    if options.out.is_file():
        content["rungs"] = json.loads(options.out.read_text())["rungs"]
    jobs: dict[str, Callable[[], dict[str, Any]]] = {"step": lambda: step_times(size, options.compile)}
    for name, rung in RUNGS.items():
        jobs[name] = lambda rung=rung: trained(rung, size, 60 * options.minutes * rung.share, options)
    for name, job in jobs.items():
        if name in content["rungs"]:
            continue
        began = time.monotonic()
        try:
            result = job()
        except wb.UsageError as error:  # data that are not there
            result = {"not run": str(error)}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if "not run" not in result:
            content["rungs"][name] = {**result, "wall_seconds": time.monotonic() - began}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(content, indent=2) + "\n")
        print(f"{name}: {json.dumps(result)}", flush=True)
    return content


def check(content: dict[str, Any]) -> None:
    """Raise unless every rung wrote what it should."""
    rungs = content["rungs"]
    if set(rungs) != {"step", *RUNGS}:
        raise AssertionError(f"rungs {sorted(rungs)}")
    for name in RUNGS:
        row = rungs[name]
        accuracies = [row["clean"], *row["robust"].values()]
        if len(accuracies) != 3 or not all(0 <= a["value"] <= 100 and a["n"] == CHECK.test for a in accuracies):
            raise AssertionError(f"{name}: {row}")
        if not (row["epochs"] >= 1 and row["images_per_second"] > 0):
            raise AssertionError(f"{name}: {row}")
    for name, row in rungs["step"]["rows"].items():
        if row["images_per_second"] <= 0:
            raise AssertionError(f"{name}: {row}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/gpu.json"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        options.minutes = 0.0
        steps.BATCH = 8
        with tempfile.TemporaryDirectory() as folder:
            options.out = Path(folder) / "gpu.json"
            climb(options, CHECK)
            check(json.loads(options.out.read_text()))
            if climb(options, CHECK)["rungs"] != json.loads(options.out.read_text())["rungs"]:
                raise AssertionError("a second call repeats a rung")
        print("checked: every rung runs")
        return
    if not torch.cuda.is_available():
        sys.exit("no GPU is at hand; --check runs every rung on the CPU in seconds")
    climb(options, LADDER)


if __name__ == "__main__":
    main()
