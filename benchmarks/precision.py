"""Does training with bfloat16 and folded attacks cost robustness? Paired trainings, the interval of the difference.

    python benchmarks/precision.py [--seeds 8] [--threads 2] [--out FILE.json]

Each seed trains the network of recipes/fashion-mini.toml twice, in "fp32" and in "bf16", from the same weights and with
the same order of data; both are evaluated in float32 on the same 2,000 test images, clean and under PGD-20 at eps 0.5.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import mean, stdev

import torch
from scipy.stats import t as student

import waterbed as wb
from waterbed.runs import environment

EPS = 0.5


def trained(seed: int, precision: str) -> dict[str, float]:
    """Accuracies in percent after one training."""
    data = wb.load_dataset("fashion-mini", size=16)
    model = wb.create_model("resnet10", 10, width=16, in_channels=1, seed=seed)
    objective = wb.AdversarialTraining(wb.PGD(EPS, steps=3))
    settings = {"epochs": 8, "lr": 0.2, "augment": "none", "watch": 0, "progress": False}
    run = wb.fit(model, data, objective, seed=seed, precision=precision, **settings)
    score = wb.evaluate(run.model, data.test, [wb.PGD(EPS, steps=20)])
    return {"clean": float(score.clean), "robust": float(next(iter(score.robust.values())))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = []
    for seed in range(options.seeds):
        pairs.append({precision: trained(seed, precision) for precision in ("fp32", "bf16")})
        print(f"seed {seed}: {pairs[-1]}", flush=True)
    summary = {}
    for kind in ("clean", "robust"):
        differences = [pair["bf16"][kind] - pair["fp32"][kind] for pair in pairs]
        half = float(student.ppf(0.975, len(pairs) - 1)) * stdev(differences) / math.sqrt(len(pairs))
        middle = mean(differences)
        summary[kind] = {"difference": middle, "low": middle - half, "high": middle + half}
        print(f"{kind}: bf16 less fp32 {middle:+.2f} points [{middle - half:+.2f}, {middle + half:+.2f}]")
    if options.out is not None:
        content = {"summary": summary, "pairs": pairs, "environment": environment()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
