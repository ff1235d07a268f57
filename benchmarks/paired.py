"""Does a setting of fit change accuracy? Paired trainings, with an interval for the difference.

    python benchmarks/paired.py precision fp32 bf16
    python benchmarks/paired.py ema 0 0.97 0.995 --width 8 --images 4000
    [--seeds 8] [--width 16] [--images 10000] [--threads 2] [--out FILE.json]

Each seed trains a network of recipes/fashion-mini.toml (of the given width and number of images) once with each value
of the setting, with the same initial weights and order of data; all are evaluated in float32 on the same 2,000
test images, clean and under PGD-20 at eps 0.5. The others are compared with the first value.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from scipy.stats import t as student

import waterbed as wb
from waterbed.environment import environment

EPS = 0.5


def accuracies(seed: int, width: int, images: int, **setting: Any) -> dict[str, float]:
    """Accuracies in percent after one training."""
    data = wb.load_dataset("fashion-mini", size=16)
    data = data.take(images, len(data.test))
    model = wb.create_model("resnet10", 10, width=width, in_channels=1, seed=seed)
    objective = wb.AdversarialTraining(wb.PGD(EPS, steps=3))
    settings = {"epochs": 8, "lr": 0.2, "augment": "none", "watch": 0, "progress": False, "precision": "fp32"}
    run = wb.fit(model, data, objective, seed=seed, **{**settings, **setting})
    score = wb.evaluate(run.model, data.test, [wb.PGD(EPS, steps=20)])
    return {"clean": float(score.clean), "robust": float(next(iter(score.robust.values())))}


def value(text: str) -> Any:
    """A number, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def difference(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Mean of second minus first, with a 95 % t interval."""
    differences = [b - a for a, b in pairs]
    half = float(student.ppf(0.975, len(pairs) - 1)) * stdev(differences) / math.sqrt(len(pairs))
    middle = mean(differences)
    return {"difference": middle, "low": middle - half, "high": middle + half}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting")
    parser.add_argument("reference")
    parser.add_argument("others", nargs="+")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for seed in range(options.seeds):
        values = (options.reference, *options.others)
        size = {"width": options.width, "images": options.images}
        rows.append({v: accuracies(seed, **size, **{options.setting: value(v)}) for v in values})
        print(f"seed {seed}: {rows[-1]}", flush=True)
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for other in options.others:
        summary[other] = {}
        for kind in ("clean", "robust"):
            d = difference([(row[options.reference][kind], row[other][kind]) for row in rows])
            summary[other][kind] = d
            label = f"{options.setting} {other} minus {options.reference}"
            print(f"{kind}: {label} {d['difference']:+.2f} points [{d['low']:+.2f}, {d['high']:+.2f}]")
    if options.out is not None:
        content = {"setting": options.setting, "summary": summary, "rows": rows, "environment": environment()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
