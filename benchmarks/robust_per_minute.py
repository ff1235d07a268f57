"""Robust accuracy against training time: PGD with 7, 3, 2 and 1 steps, N-FGSM, ATTA, free training, growing images.

    python benchmarks/robust_per_minute.py run --data cifar10 [--root DIR] [--methods pgd-7 n-fgsm] [--seeds 3]
        [--epochs 30] [--images N] [--balls linf-8/255 l2-0.5 l2-1] [--schedules one-cycle step] [--test 1000]
    python benchmarks/robust_per_minute.py draw

A ResNet-18 of width 16 (or another --model) at one thread; time is that of the processor spent in ``fit``, so that
other jobs do not count. Every training keeps averaged weights (ema 0.995) beside the last ones, and both are evaluated:
PGD-100 with 5 restarts and, with --autoattack auto, AutoAttack. After each epoch the network meets PGD-10 (outside the
time): catastrophic overfitting is a fall to less than half of the best epoch before. Each training is one JSON file in
--out, and one that exists is not repeated. ``draw`` makes a table and a picture, in which the frontier is what no other
beats in both, with 95 % intervals over the images.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

import waterbed as wb
from waterbed.data.images import ImageData, TensorImages, adapt
from waterbed.environment import environment
from waterbed.evaluation.accuracy import Accuracy

OUT = Path("results/benchmarks/robust-per-minute")
WATCHED_IMAGES = 256
FREE_REPLAYS = 4
SMALL = 5 / 8  # of the side, in the first half of the epochs


@dataclass(frozen=True)
class Method:
    """An objective from (eps, norm), the share of the epochs it needs, and whether its images grow."""

    objective: Callable[[float | str, str], Any]
    epochs: float = 1.0
    progressive: bool = False


def pgd(steps: int) -> Callable[[float | str, str], Any]:
    return lambda eps, norm: wb.AdversarialTraining(wb.PGD(eps, norm, steps))


def watched(eps: float | str, norm: str) -> wb.PGD:
    return wb.PGD(eps, norm, 10)


METHODS = {
    "pgd-7": Method(pgd(7)),
    "pgd-3": Method(pgd(3)),
    "pgd-2": Method(pgd(2)),
    "pgd-1": Method(pgd(1)),
    "n-fgsm": Method(lambda eps, norm: wb.NFGSM(watched(eps, norm))),
    "atta-1": Method(lambda eps, norm: wb.ATTA(watched(eps, norm))),
    "free-4": Method(lambda eps, norm: wb.FreeTraining(watched(eps, norm), FREE_REPLAYS), 1 / FREE_REPLAYS),
    "pgd-3 growing": Method(pgd(3), progressive=True),
}


class Watch:
    """The accuracy under PGD-10 after each epoch, the last weights beside the averaged ones, and its own time."""

    def __init__(self, data: Any, attack: wb.PGD) -> None:
        self.data, self.attack, self.seconds = data, attack, 0.0
        self.robust: list[float] = []
        self.last: nn.Module | None = None

    def on_epoch_end(self, job: Any) -> None:
        began = time.process_time()
        score = wb.evaluate(job.model, self.data.test, [self.attack], num_samples=WATCHED_IMAGES)
        self.robust.append(float(next(iter(score.robust.values()))))
        self.last = copy.deepcopy(job.model)
        self.seconds += time.process_time() - began


def catastrophic(robust: list[float]) -> bool:
    """Whether the robust accuracy of an epoch is less than half of the best before it (and that was above chance)."""
    return any(max(robust[:i]) > 15 and value < max(robust[:i]) / 2 for i, value in enumerate(robust) if i)


def resized(data: ImageData, side: int) -> ImageData:
    def part(images: TensorImages) -> TensorImages:
        return TensorImages(adapt(images.images, side, None), images.labels, images.classes)

    return ImageData(data.name, part(data.train), part(data.test), data.classes, data.flip, data.metric)


def train(name: str, norm: str, eps: str, schedule: str, seed: int, data: ImageData, options: Any) -> dict[str, Any]:
    """One training and the evaluation of both its networks."""
    method = METHODS[name]
    model = wb.create_model("resnet18", data.num_classes, width=options.width, in_channels=data.shape[0], seed=seed)
    epochs = max(1, round(options.epochs * method.epochs))
    settings = {"schedule": schedule, "ema": 0.995, "watch": 0, "seed": seed, "threads": 1, "progress": False}
    settings |= {"lr": options.lr, "precision": options.precision}
    value = wb.PGD(eps, norm).eps
    phases = [(data, value, epochs)]
    if method.progressive:
        first = epochs // 2
        # The distance in l2 between two images grows with their side.
        small = value * (SMALL if norm == "l2" else 1)
        phases = [(resized(data, round(SMALL * data.shape[1])), small, first), (data, value, epochs - first)]
    seconds, robust, watch = 0.0, [], None
    for images, radius, count in phases:
        watch = Watch(data, watched(value, norm))
        began = time.process_time()
        objective = method.objective(radius, norm)
        run = wb.fit(model, images, objective, epochs=count, callbacks=[watch], **settings)
        seconds += time.process_time() - began - watch.seconds
        robust += watch.robust
    networks = {"averaged": run.model, "last": watch.last}
    return {
        "method": name,
        "norm": norm,
        "eps": eps,
        "schedule": schedule,
        "seed": seed,
        "epochs": epochs,
        "cpu_seconds": seconds,
        "watched_pgd_10": robust,
        "catastrophic_overfitting": catastrophic(robust),
        "networks": {kind: evaluated(network, data, norm, value, options) for kind, network in networks.items()},
        "environment": environment(),
    }


def evaluated(model: nn.Module, data: ImageData, norm: str, eps: float, options: Any) -> dict[str, Any]:
    report = wb.evaluate_standard(
        model, data.test, eps, norm, num_samples=options.test, autoattack=options.autoattack, seed=0
    )
    pgd_100, autoattack = list(report.robust.values())[1:]
    return {
        "clean": report.clean.to_dict(),
        "pgd-100 x5": pgd_100.to_dict(),
        "autoattack": None if autoattack is None else autoattack.to_dict(),
        "masking": str(report.masking),
    }


def run(options: Any) -> None:
    torch.set_num_threads(1)
    data = wb.load_dataset(options.data, root=options.root, size=options.size)
    data = data.take(options.images or len(data.train), len(data.test))
    config = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    for seed in range(options.seeds):
        for ball in options.balls:
            norm, eps = ball.split("-", 1)
            for schedule in options.schedules:
                for name in options.methods:
                    words = [ball.replace("/", "_"), schedule, name.replace(" ", "-"), f"seed-{seed}"]
                    file = options.out / f"{'.'.join(words)}.json"
                    if file.exists():
                        continue
                    row = {**train(name, norm, eps, schedule, seed, data, options), "images": len(data.train)}
                    file.parent.mkdir(parents=True, exist_ok=True)
                    row["config"] = {
                        key: config[key] for key in ("data", "size", "images", "epochs", "model", "width", "test", "lr")
                    }
                    file.write_text(json.dumps(row, indent=2) + "\n")
                    averaged, last = (row["networks"][kind]["pgd-100 x5"]["value"] for kind in ("averaged", "last"))
                    print(
                        f"{'.'.join(words)}: {row['cpu_seconds']:.0f} s, PGD-100 x5 {averaged:.1f} % averaged, "
                        f"{last:.1f} % last{', OVERFITTED' if row['catastrophic_overfitting'] else ''}",
                        flush=True,
                    )


def frontier(points: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Of (seconds, accuracy, name) those that nothing faster is at least as accurate as.

    >>> frontier([(2.0, 40.0, "b"), (1.0, 30.0, "a"), (3.0, 35.0, "c")])
    [(1.0, 30.0, 'a'), (2.0, 40.0, 'b')]
    """
    best: list[tuple[float, float, str]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best


def draw(options: Any) -> None:
    """The means over seeds: a table on the terminal and frontier.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [json.loads(file.read_text()) for file in sorted(options.out.glob("*.seed-*.json"))]
    balls = sorted({(row["norm"], row["eps"]) for row in rows})
    figure, axes = plt.subplots(1, len(balls), figsize=(7.5 * len(balls), 4.5), squeeze=False, layout="constrained")
    for ax, ball in zip(axes[0], balls, strict=True):
        points = []
        for method in METHODS:
            for schedule in sorted({row["schedule"] for row in rows}):
                same = [
                    r
                    for r in rows
                    if (r["norm"], r["eps"]) == ball and (r["method"], r["schedule"]) == (method, schedule)
                ]
                for kind in ("last", "averaged") if same else ():
                    values = [r["networks"][kind]["autoattack"] or r["networks"][kind]["pgd-100 x5"] for r in same]
                    seconds, accuracy = mean(r["cpu_seconds"] for r in same), mean(v["value"] for v in values)
                    overfitted = sum(r["catastrophic_overfitting"] for r in same)
                    name = f"{method}, {schedule}, {kind}"
                    points.append((seconds, accuracy, name))
                    pooled = Accuracy(sum(v["correct"] for v in values), sum(v["n"] for v in values))
                    ax.errorbar(
                        seconds / 60,
                        accuracy,
                        [[accuracy - pooled.low], [pooled.high - accuracy]],
                        fmt="o" if kind == "averaged" else "x",
                        color=f"C{list(METHODS).index(method)}",
                        alpha=1.0 if schedule == "one-cycle" else 0.4,
                        elinewidth=0.7,
                        label=name,
                    )
                    print(
                        f"{'-'.join(ball):12} {name:36} {seconds / 60:7.1f} min  {accuracy:5.1f} % "
                        f"({len(same)} seeds, n = {values[0]['n']}, {overfitted} overfitted)"
                    )
        best = frontier(points)
        ax.step([p[0] / 60 for p in best], [p[1] for p in best], where="post", color="black", label="frontier")
        ax.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        ax.set(xlabel="minutes of one core", ylabel="robust accuracy [%]", title=" ".join(ball))
        ax.set_xlim(left=0)
    figure.savefig(options.out / "frontier.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("--data", default="cifar10", help="name of a data set or a folder")
    runs.add_argument("--root", type=Path)
    runs.add_argument("--size", type=int, help="side of the images, if not their own")
    runs.add_argument("--model", default="resnet18")
    runs.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    runs.add_argument("--balls", nargs="+", default=["linf-8/255", "l2-0.5", "l2-1"])
    runs.add_argument("--schedules", nargs="+", default=["one-cycle", "step"])
    runs.add_argument("--seeds", type=int, default=3)
    runs.add_argument("--epochs", type=int, default=30)
    runs.add_argument("--images", type=int)
    runs.add_argument("--width", type=int, default=16)
    runs.add_argument("--lr", type=float, default=0.2)
    runs.add_argument("--test", type=int, default=1000)
    runs.add_argument("--precision", default="auto")
    runs.add_argument("--autoattack", default="auto", choices=["auto", "never"])
    draws = commands.add_parser("draw")
    for command, function in ((runs, run), (draws, draw)):
        command.add_argument("--out", type=Path, default=OUT)
        command.set_defaults(function=function)
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
