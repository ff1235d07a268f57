"""What the benchmarks conclude, and that the one for a GPU runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.programs import load_program

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="not a checkout")


@pytest.fixture(scope="module")
def per_minute():
    return load_program("benchmarks/robust_per_minute.py")


def test_the_frontier_is_what_nothing_faster_equals(per_minute):
    points = [
        (3.0, 35.0, "slow and weak"),
        (2.0, 40.0, "b"),
        (1.0, 30.0, "a"),
        (4.0, 40.0, "no better"),
        (9.0, 41.0, "c"),
    ]
    assert [name for *_, name in per_minute.frontier(points)] == ["a", "b", "c"]


def test_catastrophic_overfitting_is_a_fall_to_less_than_half(per_minute):
    assert per_minute.catastrophic([20.0, 30.0, 14.0])
    assert per_minute.catastrophic([20.0, 9.0, 30.0]), "also one that recovers"
    assert not per_minute.catastrophic([20.0, 30.0, 16.0])
    assert not per_minute.catastrophic([11.0, 3.0, 20.0]), "not above chance yet"


@pytest.mark.slow
def test_the_benchmark_for_a_gpu_checks_itself():
    words = [sys.executable, "-W", "ignore", str(BENCHMARKS / "gpu.py"), "--check"]
    done = subprocess.run(
        words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("checked: every rung runs\n")
