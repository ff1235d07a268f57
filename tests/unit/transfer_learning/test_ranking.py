"""The rule in the package is the one that its command fixes on its data, and is as sure as the left-out targets are."""

import numpy as np
import pytest
from tests.programs import load_program

from waterbed.transfer_learning.cross_validation import CrossValidated
from waterbed.transfer_learning.ranking import CLEAR, RULE


@pytest.fixture(scope="module")
def benchmark():
    return load_program("benchmarks/choose.py")


@pytest.fixture(scope="module")
def targets(benchmark):
    return benchmark.read_scores()


def test_the_constant_is_that_of_the_committed_data(benchmark, targets):
    assert benchmark.fit_rule(list(targets.values())) == RULE


def test_on_left_out_targets_clear_orders_hold(benchmark, targets):
    pairs = [pair for part in benchmark.left_out(targets, benchmark.SUBSETS).values() for pair in part]
    sure = [held for probability, held in pairs if probability >= CLEAR]
    assert len(sure) > len(pairs) / 5, "clearly is said often enough to be of use"
    assert np.mean(sure) >= CLEAR


def test_the_combined_score_ranks_no_worse_than_the_probe(benchmark, targets):
    ranks = [
        (
            benchmark.ranking(part, [RULE.combined(s.scores, s.counts).value for s in part])["spearman"],
            benchmark.ranking(part, [s.scores["probe"].value for s in part])["spearman"],
        )
        for part in targets.values()
    ]
    combined, probe = np.mean(ranks, axis=0)
    assert combined >= probe


def test_predictions_follow_the_likelier_order(benchmark):
    """One pair whose order held, and its mirror, by hand."""

    better, worse = (
        {
            name: 90.0 if name in ("probe", "knn") else 0.9 if name == "h_score" else -0.4
            for name in benchmark.CANDIDATES
        },
        {
            name: 50.0 if name in ("probe", "knn") else 0.5 if name == "h_score" else -0.6
            for name in benchmark.CANDIDATES
        },
    )

    def of(values, name, accuracies):
        scores = {n: CrossValidated(v, np.full(10, v)) for n, v in values.items()}
        return benchmark.Scored("t", name, np.array([50, 50]), scores, accuracies)

    a, b = of(better, "a", [80.0, 82.0]), of(worse, "b", [81.0, 79.0])
    for first, second in ((a, b), (b, a)):
        ((probability, held),) = benchmark.predictions(RULE, [first, second])
        assert probability > 0.8
        assert held == 0.75
    (row,) = benchmark.calibration([(0.96, 1.0), (0.99, 0.5)])
    assert (row["pairs"], row["predicted"], row["held"]) == (2, pytest.approx(0.975), 0.75)
