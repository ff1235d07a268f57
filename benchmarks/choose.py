"""Does `choose` find the backbone that fine-tuning finds? Its ranking compared with the accuracies of a transfer table.

    python benchmarks/choose.py TABLE.csv --backbones NETWORK... --targets DATA... [--num-samples N] [--out FILE.json]

TABLE.csv is written by `waterbed transfer NETWORK... --targets DATA... --out TABLE.csv`. For every target: Spearman's
rank correlation over the backbones between each score and the accuracy (mean over seeds), and the percentage points
lost by taking the backbone that the score ranks first instead of the best one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import waterbed as wb
from waterbed.environment import environment

SCORES = ("probe", "logme", "h_score", "leep")


def validate(choice: wb.Choice, accuracies: pd.Series) -> dict[str, dict[str, float]]:
    """For each score: rank correlation with the accuracies (backbone -> percent), and points lost by following it."""
    frame = choice.to_frame().set_index("backbone")
    accuracies = accuracies.reindex(frame.index)
    return {
        score: {
            "spearman": float(spearmanr(frame[score], accuracies).statistic),
            "lost": float(accuracies.max() - accuracies[frame[score].idxmax()]),
        }
        for score in SCORES
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--backbones", nargs="+", required=True)
    parser.add_argument("--targets", nargs="+", required=True)
    parser.add_argument("--num-samples", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = pd.read_csv(options.table).groupby(["target", "model"])["accuracy"].mean()
    backbones = {Path(path).stem: wb.load_model(path) for path in options.backbones}
    results: dict[str, Any] = {}
    for target in options.targets:
        choice = wb.choose(backbones, target, options.num_samples)
        results[choice.target] = {
            "chosen": choice.best,
            "best": table[choice.target].reindex(backbones).idxmax(),
            "accuracies": table[choice.target].reindex(backbones).to_dict(),
            "probes": choice.to_frame().set_index("backbone")["probe"].to_dict(),
            "scores": validate(choice, table[choice.target]),
        }
    columns = ["target", "chosen", "best", "spread", *SCORES]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for target, row in results.items():
        values = list(row["accuracies"].values())
        scores = [f"{s['spearman']:.2f} ({s['lost']:.1f})" for s in row["scores"].values()]
        cells = [target, row["chosen"], row["best"], f"{max(values) - min(values):.1f}", *scores]
        print("| " + " | ".join(cells) + " |")
    means = {s: [row["scores"][s] for row in results.values()] for s in SCORES}
    cells = [
        f"{np.mean([m['spearman'] for m in v]):.2f} ({np.mean([m['lost'] for m in v]):.1f})" for v in means.values()
    ]
    print("| mean | | | | " + " | ".join(cells) + " |")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"targets": results, "num_samples": options.num_samples, "environment": environment()}
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
