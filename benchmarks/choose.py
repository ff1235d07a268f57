"""Does `choose` find the backbone that fine-tuning finds, and does the order hold as often as it says?

    python benchmarks/choose.py scores --root DATA       # the scores of every backbone on every target
    python benchmarks/choose.py fit                      # the rule, left-out targets, calibration

`scores` writes results/benchmarks/choose-scores.json: the scores of the networks in results/networks on the training
images of every target on which results/transfer and results/cpu have a fine-tuning in mode 0. Finished ones are kept.
`fit` fixes the constants of `waterbed.transfer_learning.ranking` on them and validates them on targets left out one at
a time. For every target it prints Spearman's rank correlation between each score and the accuracy and, in brackets, the
percentage points lost by taking the backbone that the score puts first; then how often the order of two backbones held
that was predicted with a probability.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_ndtr
from scipy.stats import spearmanr

import waterbed as wb
from waterbed.environment import environment
from waterbed.files import to_json
from waterbed.models.features import head_probabilities
from waterbed.transfer_learning.cross_validation import CrossValidated, cross_validate
from waterbed.transfer_learning.ranking import CLEAR, RULE, Rule, log_odds
from waterbed.transfer_learning.transfer import target_loader

RESULTS = Path(__file__).parents[1] / "results"
SCORES_FILE = RESULTS / "benchmarks" / "choose-scores.json"
SIZES = (1000,)
SINGLE = ("probe", "knn", "logme", "h_score", "leep")
COMBINED = ("probe", "knn", "logme", "h_score")
BINS = (0.5, 0.6, 0.7, 0.8, 0.9, CLEAR, 1.0)


def accuracies() -> dict[str, dict[str, list[float]]]:
    """Target -> backbone -> test accuracy [%] of each fine-tuning in mode 0."""
    table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in csv.DictReader((RESULTS / "transfer" / "transfer-0.csv").open()):
        table[row["target"]][row["model"]].append(float(row["accuracy"]))
    for file in sorted((RESULTS / "cpu" / "nodes" / "transfer").rglob("mode-0.json")):
        node = json.loads(file.read_text())
        backbone = Path(node["config"]["file"]).stem
        table[node["config"]["data"]][backbone].append(node["result"]["accuracy"])
    return table


@dataclass(frozen=True)
class Scored:
    """One backbone's scores on a target, and the accuracies that its fine-tunings reach."""

    target: str
    backbone: str
    counts: np.ndarray
    scores: dict[str, CrossValidated]
    accuracies: Sequence[float]

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.accuracies))

    def held(self, other: Scored) -> float:
        """In how many of the pairs of fine-tunings this backbone is the better one, from 0 to 1."""
        return float(np.mean([(a > b) + (a == b) / 2 for a in self.accuracies for b in other.accuracies]))


def read_scores(size: int) -> dict[str, list[Scored]]:
    """Target -> its backbones, of the file that ``scores`` writes."""
    table = accuracies()
    targets: dict[str, list[Scored]] = defaultdict(list)
    for row in json.loads(SCORES_FILE.read_text()):
        if row["size"] == size:
            scores = {name: CrossValidated(s["value"], np.array(s["parts"])) for name, s in row["scores"].items()}
            known = table[row["target"]][row["backbone"]]
            targets[row["target"]].append(
                Scored(row["target"], row["backbone"], np.array(row["counts"]), scores, known)
            )
    return targets


def fit_rule(targets: Sequence[Sequence[Scored]], names: Sequence[str] = COMBINED) -> Rule:
    """The weights >= 0 of largest likelihood of the orders that held; every target counts the same."""
    pairs = [[_pair(a, b, names) for a, b in combinations(backbones, 2)] for backbones in targets]
    gaps = np.concatenate([[p[0] for p in part] for part in pairs])  # (pairs, scores)
    covariances = np.concatenate([[p[1] for p in part] for part in pairs])
    held = np.concatenate([[p[2] for p in part] for part in pairs])
    share = np.concatenate([np.full(len(part), 1 / len(part)) for part in pairs])

    def loss(weights: np.ndarray) -> float:
        z = gaps @ weights / np.sqrt(1 + np.einsum("i,nij,j->n", weights, covariances, weights))
        return -float(share @ (held * log_ndtr(z) + (1 - held) * log_ndtr(-z)))

    best = minimize(loss, np.ones(len(names)), bounds=[(0, None)] * len(names), method="L-BFGS-B")
    return Rule({name: round(float(w), 2) for name, w in zip(names, best.x, strict=True)})


def _pair(a: Scored, b: Scored, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, float]:
    """Differences of the log-odds, the covariance of their errors, and whether the order held."""
    gaps = [log_odds(n, a.scores[n], a.counts) - log_odds(n, b.scores[n], b.counts) for n in names]
    parts = np.stack([gap.parts for gap in gaps])
    factor = gaps[0].stderr() ** 2 / gaps[0].parts.var(ddof=1)
    return np.array([gap.value for gap in gaps]), factor * np.atleast_2d(np.cov(parts)), a.held(b)


def predictions(rule: Rule, backbones: Sequence[Scored]) -> list[tuple[float, float]]:
    """For every two backbones: probability of the likelier order, and whether it held."""
    combined = {s.backbone: rule.combined(s.scores, s.counts) for s in backbones}
    result = []
    for a, b in combinations(backbones, 2):
        p = rule.probability_better(combined[a.backbone], combined[b.backbone])
        result.append((p, a.held(b)) if p >= 0.5 else (1 - p, b.held(a)))
    return result


def calibration(pairs: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    """By the predicted probability: how many pairs, its mean, and the share whose order held."""
    predicted, held = np.array(pairs).T
    rows = []
    for low, high in pairwise(BINS):
        inside = (predicted >= low) & ((predicted < high) | (high == 1))
        if inside.any():
            rows.append({"from": low, "to": high, "pairs": int(inside.sum())})
            rows[-1] |= {"predicted": float(predicted[inside].mean()), "held": float(held[inside].mean())}
    return rows


def ranking(backbones: Sequence[Scored], values: Sequence[float]) -> dict[str, float]:
    """Rank correlation of a score with the accuracies, and the points lost by following it."""
    known = [s.accuracy for s in backbones]
    return {
        "spearman": float(spearmanr(values, known).statistic),
        "lost": float(max(known) - known[int(np.argmax(values))]),
    }


def fit(options: argparse.Namespace) -> None:
    """The rule on all targets and on all but one, what it predicts, and how often that held."""
    by_size = {size: read_scores(size) for size in SIZES}
    training = {t: [by_size[size][t] for size in SIZES] for t in by_size[SIZES[0]]}
    left_out = {t: fit_rule([part for other in training if other != t for part in training[other]]) for t in training}
    rule = fit_rule([part for parts in training.values() for part in parts])
    results: dict[str, Any] = {
        "rule": dict(rule.weights),
        "left out": {t: dict(r.weights) for t, r in left_out.items()},
    }
    for size, targets in by_size.items():
        ranked = {
            t: {
                **{name: ranking(s, [b.scores[name].value for b in s]) for name in SINGLE},
                "combined": ranking(s, [left_out[t].combined(b.scores, b.counts).value for b in s]),
            }
            for t, s in targets.items()
        }
        pairs = {t: predictions(left_out[t], s) for t, s in targets.items()}
        results[str(size)] = {
            "backbones": {t: len(s) for t, s in targets.items()},
            "ranking": ranked,
            "calibration": calibration([pair for part in pairs.values() for pair in part]),
            "clearly, by target": {
                t: {"pairs": len(sure), "held": float(np.mean(sure)) if sure else None}
                for t, part in pairs.items()
                for sure in [[held for p, held in part if p >= CLEAR]]
            },
        }
        _print(size, results[str(size)])
    print("rule:", dict(rule.weights), "as committed" if rule == RULE else f"but the committed one is {RULE.weights}")
    options.out.write_text(to_json({**results, "environment": environment()}))


def _print(size: int, result: dict[str, Any]) -> None:
    columns = (*SINGLE, "combined")
    print(f"\n{size:,} training images\n\n| target | backbones | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for target, row in result["ranking"].items():
        cells = [f"{row[c]['spearman']:.2f} ({row[c]['lost']:.1f})" for c in columns]
        print(f"| {target} | {result['backbones'][target]} | " + " | ".join(cells) + " |")
    means = [np.mean([[r[c]["spearman"], r[c]["lost"]] for r in result["ranking"].values()], axis=0) for c in columns]
    print("| mean | | " + " | ".join(f"{s:.2f} ({lost:.1f})" for s, lost in means) + " |")
    print("\n| probability | pairs | mean | order held |\n|---|---:|---:|---:|")
    for row in result["calibration"]:
        cells = f"{row['pairs']} | {100 * row['predicted']:.0f} % | {100 * row['held']:.0f} %"
        print(f"| {row['from']:.2f} to {row['to']:.2f} | {cells} |")
    print(result["clearly, by target"])


def scores(options: argparse.Namespace) -> None:
    """Extract the features of every backbone on every target once, and score them at each size."""
    rows = json.loads(SCORES_FILE.read_text()) if SCORES_FILE.exists() else []
    load = target_loader(options.root)
    for target, backbones in accuracies().items():
        for backbone in sorted(backbones):
            if any((row["target"], row["backbone"]) == (target, backbone) for row in rows):
                continue
            model = wb.load_model(RESULTS / "networks" / f"{backbone}.safetensors")
            data = load(model, target)
            order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[: max(SIZES)]
            features, labels = wb.extract_features(model, data, indices=order)
            for size in SIZES:
                part = slice(0, size)  # the order is random
                probabilities = head_probabilities(model, features[part])
                row = {"target": target, "backbone": backbone, "size": size}
                row["counts"] = labels[part].bincount().tolist()
                row["scores"] = {
                    name: {"value": round(s.value, 5), "parts": [round(float(p), 5) for p in s.parts]}
                    for name, s in cross_validate(features[part], labels[part], probabilities).items()
                }
                rows.append(row)
            lines = ",\n".join(json.dumps(row) for row in rows)
            SCORES_FILE.write_text(f"[\n{lines}\n]\n")
            print(target, backbone, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    scoring = commands.add_parser("scores")
    scoring.add_argument("--root", help="the folder of the data sets")
    scoring.set_defaults(run=scores)
    fitting = commands.add_parser("fit")
    fitting.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "choose.json")
    fitting.set_defaults(run=fit)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
