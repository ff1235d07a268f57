"""95 % intervals of the measures over images drawn from a pool, against the pool: benchmarks/coverage.py."""

from pathlib import Path

import pytest
from tests.programs import load_program

from waterbed.information.measure import QUANTITIES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark():
    return load_program("benchmarks/coverage.py")


def test_intervals_of_functions_that_are_far_from_linear_hold_their_target(benchmark):
    """The jackknife takes out the bias of the one and gives both their error."""
    model = benchmark.trained(robust=False)
    names = ("weight_log_variance", "weight_fisher_logdet")
    truths = benchmark.whole(model, ("weight_log_variance",)) | {"weight_fisher_logdet": 0.0}
    found = benchmark.coverages(model, truths, 100, 50, names)
    assert [found[name]["target"] for name in names] == ["population", "sample size"]
    assert found["weight_log_variance"]["held"] >= 38
    assert found["weight_fisher_logdet"]["held"] >= 43
    assert found["weight_fisher_logdet"]["claimed"] == pytest.approx(found["weight_fisher_logdet"]["spread"], rel=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["standard", "robust"])
@pytest.mark.parametrize("n", [30, 100, 500])
def test_most_intervals_of_every_quantity_hold_their_target(benchmark, network, n):
    """Skewed per-example values make those of few images too narrow."""
    names = [*QUANTITIES, benchmark.SAMPLED]
    model = benchmark.trained(robust=network == "robust")
    found = benchmark.coverages(model, benchmark.whole(model, names), n, 40, names)
    held = {name: row["held"] for name, row in found.items()}
    assert min(held.values()) >= {30: 20, 100: 26, 500: 30}[n], held
