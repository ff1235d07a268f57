"""Does `choose` find the backbone that fine-tuning finds, and does the order hold as often as it says?

    python benchmarks/choose.py scores --root DATA       # the scores of every backbone on every target
    python benchmarks/choose.py fit                      # the rule, left-out targets, calibration

`scores` writes results/benchmarks/choose-scores.json: the scores of the networks in results/networks on the training
images of every target on which results/transfer and results/cpu have a fine-tuning in mode 0. Finished ones are kept.
`fit` fixes the constant of `waterbed.transfer_learning.ranking` on them and validates it on targets left out one at
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
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr
from scipy.stats import spearmanr

import waterbed as wb
from waterbed.environment import environment
from waterbed.files import to_json
from waterbed.models.features import head_probabilities
from waterbed.transfer_learning.cross_validation import CrossValidated, cross_validate
from waterbed.transfer_learning.ranking import CLEAR, RULE, Rule
from waterbed.transfer_learning.transfer import target_loader

RESULTS = Path(__file__).parents[1] / "results"
SCORES_FILE = RESULTS / "benchmarks" / "choose-scores.json"
NUM_SAMPLES = 1000
CANDIDATES = ("probe", "knn", "logme", "h_score")
SUBSETS = [names for k in range(1, 5) for names in combinations(CANDIDATES, k)]
SINGLE = ("probe", "knn", "logme", "h_score", "leep")
BINS = (0.5, 0.6, 0.7, 0.8, 0.9, CLEAR, 1.0)


def accuracies() -> dict[str, dict[str, list[float]]]:
    """Target -> backbone -> test accuracy [%] of each fine-tuning in mode 0."""
    table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in csv.DictReader((RESULTS / "transfer" / "transfer-0.csv").read_text().splitlines()):
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


def read_scores() -> dict[str, list[Scored]]:
    """Target -> its backbones, of the file that ``scores`` writes."""
    table = accuracies()
    targets: dict[str, list[Scored]] = defaultdict(list)
    for row in json.loads(SCORES_FILE.read_text()):
        scores = {name: CrossValidated(s["value"], np.array(s["parts"])) for name, s in row["scores"].items()}
        known = table[row["target"]][row["backbone"]]
        targets[row["target"]].append(Scored(row["target"], row["backbone"], np.array(row["counts"]), scores, known))
    return targets


def fit_rule(targets: Sequence[Sequence[Scored]], choices: Sequence[Sequence[str]] = SUBSETS) -> Rule:
    """Scores, of these choices, and noise of largest likelihood of the orders that held on the worst target.

    The worst, since a target to come may be as hard; the mean over targets gave rules that were too sure of new ones.
    """
    fits = {}
    for names in choices:
        pairs = [_pairs(backbones, Rule(tuple(names), 1.0)) for backbones in targets]

        def loss(log_noise: float, pairs: list[tuple[np.ndarray, ...]] = pairs) -> float:
            z = [(gap / np.hypot(np.exp(log_noise), error), held) for gap, error, held in pairs]
            return max(-float(np.mean(held * log_ndtr(v) + (1 - held) * log_ndtr(-v))) for v, held in z)

        fits[tuple(names)] = minimize_scalar(loss, bounds=(np.log(1e-3), np.log(10)), method="bounded")
    names, best = min(fits.items(), key=lambda item: item[1].fun)
    return Rule(names, round(float(np.exp(best.x)), 2))


def _pairs(backbones: Sequence[Scored], rule: Rule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every two backbones: difference of the combined scores, its standard error, and whether the order held."""
    combined = [rule.combined(s.scores, s.counts) for s in backbones]
    rows = [
        ((gap := combined[i] - combined[j]).value, gap.stderr(), backbones[i].held(backbones[j]))
        for i, j in combinations(range(len(backbones)), 2)
    ]
    return tuple(np.array(rows).T)


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
    targets = read_scores()
    rule = fit_rule(list(targets.values()))
    rules = {t: fit_rule([s for other, s in targets.items() if other != t]) for t in targets}
    pairs = left_out(targets, SUBSETS)
    results = {
        "num_samples": NUM_SAMPLES,
        "rule": asdict(rule),
        "rule without the target": {t: asdict(r) for t, r in rules.items()},
        "backbones": {t: len(s) for t, s in targets.items()},
        "ranking": {
            t: {
                **{name: ranking(s, [b.scores[name].value for b in s]) for name in SINGLE},
                "combined": ranking(s, [rule.combined(b.scores, b.counts).value for b in s]),
                "combined, left out": ranking(s, [rules[t].combined(b.scores, b.counts).value for b in s]),
            }
            for t, s in targets.items()
        },
        "calibration": calibration([pair for part in pairs.values() for pair in part]),
        "clearly, by target": {t: clear(part) for t, part in pairs.items()},
        "clearly, by scores": {
            label: clear([pair for part in left_out(targets, choices).values() for pair in part])
            for label, choices in {"all": SUBSETS, **{", ".join(n): [n] for n in SUBSETS}}.items()
        },
        "environment": environment(),
    }
    show(results)
    print(f"\n{rule}, {'as committed' if rule == RULE else f'but the committed one is {RULE}'}")
    print("\n".join(f"without {t}: {r}" for t, r in rules.items()))
    options.out.write_text(to_json(results))


def left_out(
    targets: dict[str, list[Scored]], choices: Sequence[Sequence[str]]
) -> dict[str, list[tuple[float, float]]]:
    """Predictions for every target by the rule that the other targets fix."""
    return {
        t: predictions(fit_rule([s for other, s in targets.items() if other != t], choices), part)
        for t, part in targets.items()
    }


def clear(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Of the orders that would be called clear: how many there are, and the share that held."""
    sure = [held for probability, held in pairs if probability >= CLEAR]
    return {"of": len(pairs), "pairs": len(sure), "held": float(np.mean(sure)) if sure else None}


def show(results: dict[str, Any]) -> None:
    """The tables of docs/transfer.md."""
    columns = (*SINGLE, "combined", "combined, left out")
    print("| target | backbones | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 2) + "|")
    for target, row in results["ranking"].items():
        cells = [f"{row[c]['spearman']:.2f} ({row[c]['lost']:.1f})" for c in columns]
        print(f"| {target} | {results['backbones'][target]} | " + " | ".join(cells) + " |")
    means = [np.mean([[r[c]["spearman"], r[c]["lost"]] for r in results["ranking"].values()], axis=0) for c in columns]
    print("| mean | | " + " | ".join(f"{s:.2f} ({lost:.1f})" for s, lost in means) + " |")
    print("\n| probability | pairs | mean | order held |\n|---|---:|---:|---:|")
    for row in results["calibration"]:
        cells = f"{row['pairs']} | {100 * row['predicted']:.0f} % | {100 * row['held']:.0f} %"
        print(f"| {row['from']:.2f} to {row['to']:.2f} | {cells} |")
    print("\n| probability of 0.95 or more | pairs | of | order held |\n|---|---:|---:|---:|")
    for name, row in {**results["clearly, by target"], **results["clearly, by scores"]}.items():
        held = "" if row["held"] is None else f"{100 * row['held']:.1f} %"
        print(f"| {name} | {row['pairs']} | {row['of']} | {held} |")


def scores(options: argparse.Namespace) -> None:
    """Score every backbone on every target, once."""
    rows = json.loads(SCORES_FILE.read_text()) if SCORES_FILE.exists() else []
    load = target_loader(options.root)
    for target, backbones in accuracies().items():
        for backbone in sorted(backbones):
            if any((row["target"], row["backbone"]) == (target, backbone) for row in rows):
                continue
            model = wb.load_model(RESULTS / "networks" / f"{backbone}.safetensors")
            data = load(model, target)
            order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:NUM_SAMPLES]
            features, labels = wb.extract_features(model, data, indices=order)
            own = cross_validate(features, labels, head_probabilities(model, features))
            row = {"target": target, "backbone": backbone, "counts": labels.bincount().tolist()}
            row["scores"] = {
                name: {"value": round(s.value, 5), "parts": [round(float(p), 5) for p in s.parts]}
                for name, s in own.items()
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
