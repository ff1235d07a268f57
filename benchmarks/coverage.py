"""How often the 95 % interval of each measure holds what it is for, at 30, 100 and 500 images.

    python benchmarks/coverage.py [--draws 200] [--sizes 30 100 500] [--processes 2] [--out FILE.json]
                                      [--table docs/information.md]

The population is a pool of 1200 images of digits, whose class is whether the digit is odd, with a standard and an
adversarially trained network of one hidden layer. Images are drawn from it with replacement, those of the test apart
from those of the training set, and ``measure`` is asked for every quantity that it has. An interval for the population
must hold the value over the whole pool; one for the sample size, the mean over the draws.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import waterbed as wb
from waterbed.environment import environment
from waterbed.information.estimate import POPULATION, Estimate
from waterbed.information.measure import QUANTITIES, measure

SIZES = (30, 100, 500)
NETWORKS = ("standard", "robust")
CLASSES, HIDDEN, POOL = 2, 8, 1200
ROUNDING = 1e-12  # two class means are a simplex: neural collapse 2 is 0
SAMPLED = "weight_fisher_trace, one sampled label"
BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"


def pool() -> tuple[Tensor, Tensor]:
    """Images (N, 1, 8, 8) and classes (N,) of the population."""
    images, digits = wb.stack(wb.load_dataset("digits").train, POOL, seed=0)
    return images, digits % CLASSES


def trained(robust: bool, epochs: int = 60) -> nn.Module:
    """A network of one hidden layer, trained on the pool; the robust one at eps 0.5."""
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Flatten(), nn.Linear(64, HIDDEN), nn.ReLU())
    model = wb.FeatureClassifier(hidden, nn.Linear(HIDDEN, CLASSES))
    attack, (x, y) = wb.PGD(0.5, steps=3), pool()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(100):
            inputs = attack(model, x[part], y[part]) if robust else x[part]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), y[part]).backward()
            optimizer.step()
    return model.eval()


def measured(
    model: nn.Module, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], names: Sequence[str], seed: int
) -> dict[str, Estimate]:
    """Each quantity, with that from sampled labels, which ``measure`` does not name."""
    data = (TensorDataset(*train), TensorDataset(*test))
    sizes = max(len(train[0]), len(test[0]))
    estimates = measure(model, data, sizes, seed, quantities=[n for n in names if n != SAMPLED])
    if SAMPLED in names:
        estimates[SAMPLED] = wb.WeightFisher(model, train[0], labels="sampled", seed=seed).trace()
    return estimates


def whole(model: nn.Module, names: Sequence[str]) -> dict[str, float]:
    """The value of each quantity over the whole pool."""
    everything = pool()
    values = {name: e.value for name, e in measured(model, everything, everything, names, 0).items()}
    fisher = wb.WeightFisher(model, everything[0])
    # The pool is the population: nothing is to be corrected, and no label to be drawn.
    exact = {
        "weight_log_variance": fisher.log_variance(target="sample size").value,
        SAMPLED: fisher.trace().value,
    }
    return values | {name: value for name, value in exact.items() if name in names}


def coverages(
    model: nn.Module, truths: dict[str, float], n: int, draws: int, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """For each quantity: what its interval is for, how many of the intervals from n images hold it, and, in units of
    the spread over draws, the bias and the error that is claimed."""
    x, y = pool()
    generator = torch.Generator().manual_seed(n)
    found: dict[str, list[Estimate]] = {name: [] for name in names}
    for seed in range(draws):
        train, test = (torch.randint(len(x), (n,), generator=generator) for _ in range(2))
        for name, e in measured(model, (x[train], y[train]), (x[test], y[test]), names, seed).items():
            found[name].append(e)
    return {name: _coverage(estimates, truths[name]) for name, estimates in found.items()}


def _coverage(estimates: list[Estimate], truth: float) -> dict[str, Any]:
    values = torch.tensor([e.value for e in estimates], dtype=torch.float64)
    target, mean = estimates[0].target, float(values.mean())
    intervals = [e.interval() for e in estimates]
    population, at_n = (
        sum(low - ROUNDING <= aim <= high + ROUNDING for low, high in intervals) for aim in (truth, mean)
    )
    claimed = sum(math.hypot(e.stderr, e.probe_stderr) for e in estimates) / len(estimates)
    spread = float(values.std())
    return {
        "target": target,
        "held": population if target == POPULATION else at_n,
        "held_population": population,
        "draws": len(estimates),
        "population": truth,
        "bias": mean - truth,
        "spread": spread,
        "claimed": claimed,
    }


def _of_network(network: str, n: int, draws: int, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    torch.set_num_threads(1)
    model = trained(robust=network == "robust")
    return coverages(model, whole(model, names), n, draws, names)


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Rows of Markdown: the share of intervals that hold their target, in percent, by network and size."""
    sizes = list(next(iter(results.values())))
    columns = [f"{network}, {n}" for network in results for n in sizes]
    lines = [f"| quantity | interval for | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name, first in next(iter(results.values()))[sizes[0]].items():
        cells = [results[network][n][name] for network in results for n in sizes]
        shares = " | ".join(f"{100 * c['held'] / c['draws']:.0f}" for c in cells)
        lines.append(f"| {name} | {first['target']} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/coverage.json"))
    parser.add_argument("--table", type=Path, help="a page that holds the table between its marks")
    options = parser.parse_args()
    names = [*QUANTITIES, SAMPLED]
    jobs = [(network, n) for n in sorted(options.sizes, reverse=True) for network in NETWORKS]
    results: dict[str, dict[str, dict[str, Any]]] = {
        network: {str(n): {} for n in options.sizes} for network in NETWORKS
    }
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as executor:
        futures = [executor.submit(_of_network, network, n, options.draws, names) for network, n in jobs]
        for (network, n), future in zip(jobs, futures, strict=True):
            results[network][str(n)] = future.result()
            print(network, n, {k: c["held"] for k, c in results[network][str(n)].items()}, flush=True)
    low, high = binomtest(round(0.95 * options.draws), options.draws).proportion_ci(0.95, "wilson")
    print(table(results))
    print(f"an exact interval would be at {100 * low:.0f} to {100 * high:.0f} % of {options.draws} draws")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    content = {"draws": options.draws, "pool": POOL, "networks": results, "environment": environment()}
    options.out.write_text(json.dumps(content, indent=2) + "\n")
    if options.table:
        page = options.table.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        options.table.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")


if __name__ == "__main__":
    main()
