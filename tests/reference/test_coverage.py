"""95 % intervals of the measures over images drawn from a pool, against the pool: benchmarks/coverage.py."""

import importlib.util
import json
from pathlib import Path

import pytest
from scipy.stats import binom

from waterbed.information.measure import QUANTITIES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "benchmarks" / "coverage.json"
pytestmark = pytest.mark.skipif(not RESULTS.is_file(), reason="only in a checkout")


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_coverage", ROOT / "benchmarks" / "coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_intervals_of_functions_that_are_far_from_linear_hold_their_target(benchmark):
    """Without the jackknife's bias and error: log-variance 35, log det 60 of 100."""
    model = benchmark.trained(robust=False)
    names = ("weight_log_variance", "weight_fisher_logdet")
    truths = benchmark.whole(model, ("weight_log_variance",)) | {"weight_fisher_logdet": 0.0}
    found = benchmark.coverages(model, truths, 100, 50, names)
    assert [found[name]["target"] for name in names] == ["population", "sample size"]
    assert found["weight_log_variance"]["held"] >= 38
    assert found["weight_fisher_logdet"]["held"] >= 43
    assert found["weight_fisher_logdet"]["claimed"] == pytest.approx(found["weight_fisher_logdet"]["spread"], rel=0.4)


def test_the_table_is_that_of_the_results(benchmark):
    results = json.loads(RESULTS.read_text())["networks"]
    assert benchmark.table(results) in (ROOT / "docs" / "information.md").read_text()
    for of_size in results.values():
        for of_quantity in of_size.values():
            assert set(of_quantity) == {*QUANTITIES, benchmark.SAMPLED}


@pytest.mark.slow
@pytest.mark.parametrize("network", ["standard", "robust"])
def test_every_quantity_covers_what_the_table_says(benchmark, network):
    """Within chance: another run of so many draws, of the share of the table, has fewer once in 10,000."""
    stored, names = json.loads(RESULTS.read_text())["networks"][network], [*QUANTITIES, benchmark.SAMPLED]
    model = benchmark.trained(robust=network == "robust")
    truths = benchmark.whole(model, names)
    for n in benchmark.SIZES:
        found = benchmark.coverages(model, truths, n, 40, names)
        for name, row in found.items():
            share = min(stored[str(n)][name]["held"] / stored[str(n)][name]["draws"], 0.95)
            assert row["held"] >= binom.ppf(1e-4, 40, share), (n, name)
