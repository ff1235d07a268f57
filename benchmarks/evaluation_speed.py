"""The time of ``evaluate_standard`` beside what it took without early ends and without a fast copy.

    python benchmarks/evaluation_speed.py NETWORK.safetensors [...] --data FOLDER [--eps 0.5] [--num-samples 64]
        [--size SIDE] [--autoattack auto] [--out results/benchmarks/evaluation-speed.json]

Both evaluations of a network attack the same images with the same seeds in one process at one thread. The earlier one
runs every attack to its end on the network itself and looks at the last image alone. Reported: processor seconds of
each stage, how many images fell in one evaluation and not in the other, and both robust accuracies.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import waterbed as wb
from waterbed.attacks.pgd import PGD
from waterbed.environment import environment
from waterbed.evaluation import gradient_masking, standard
from waterbed.evaluation.accuracy import correct
from waterbed.evaluation.records import EvaluationFile
from waterbed.evaluation.search import Attacked
from waterbed.evaluation.standard import RobustnessReport


def without_copy(network: nn.Module, _: Tensor) -> Attacked:
    return Attacked(network, network)


def broken_at_the_end(pgd: PGD, target: Attacked, x: Tensor, y: Tensor) -> Tensor:
    return ~correct(target.network, pgd(target.network, x, y), y)


def timed(model: nn.Module, data: Any, options: dict[str, Any]) -> tuple[dict[str, float], RobustnessReport]:
    """Processor seconds of each stage, and the report."""
    seconds: dict[str, float] = {}
    last, exchange = time.process_time(), EvaluationFile.exchange

    def timing(self: EvaluationFile, finished: int | None) -> None:
        nonlocal last
        exchange(self, finished)
        stage = self._records[finished].done[-1]
        now = time.process_time()
        seconds[stage] = seconds.get(stage, 0.0) + now - last
        last = now

    with patch.object(EvaluationFile, "exchange", timing):
        report = wb.evaluate_standard(model, data, **options)
    return seconds, report


def compare(model: nn.Module, data: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Both evaluations of one network."""
    after, report = timed(model, data, options)
    with (
        patch.object(standard, "attacked", without_copy),
        patch.object(standard, "broken_by", broken_at_the_end),
        patch.object(gradient_masking, "broken_by", broken_at_the_end),
    ):
        before, earlier = timed(model, data, options)
    robust = {name: a.correct for name, a in report.robust.items() if a is not None}
    fell = list(zip(report.fell_to, earlier.fell_to, strict=True))
    return {
        "seconds": {"before": before, "after": after},
        "ratio": sum(before.values()) / sum(after.values()),
        "clean": report.clean.correct,
        "robust": {"before": {n: a.correct for n, a in earlier.robust.items() if a is not None}, "after": robust},
        "broken_only_after": sum(new is not None and old is None for new, old in fell),
        "broken_only_before": sum(new is None and old is not None for new, old in fell),
        "masking": {"before": str(earlier.masking), "after": str(report.masking)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", type=Path)
    parser.add_argument("--data", required=True, help="name of a data set or a folder")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--eps", type=float, default=0.5)
    parser.add_argument("--norm", default="l2")
    parser.add_argument("--num-samples", type=int, default=64)
    parser.add_argument("--size", type=int)
    parser.add_argument("--autoattack", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = wb.load_dataset(arguments.data, root=arguments.root, size=arguments.size)
    options = {
        "eps": arguments.eps,
        "norm": arguments.norm,
        "num_samples": arguments.num_samples,
        "autoattack": arguments.autoattack,
    }
    rows = {}
    for path in arguments.networks:
        row = rows[path.stem] = compare(wb.load_model(path), data.test, options)
        print(f"{path.stem}: {row['ratio']:.2f} times faster; robust {row['robust']}")
        for stage, seconds in row["seconds"]["before"].items():
            print(f"  {stage:32} {seconds:9.1f} s {row['seconds']['after'][stage]:9.1f} s")
        if arguments.out is not None:
            content = {"config": {**options, "data": data.name, "size": list(data.shape)}, "networks": rows}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps({**content, "environment": environment()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
