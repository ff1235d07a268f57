"""Progress: an ETA that follows the speed, on a terminal, in a notebook and in lines."""

import io
import sys

import pytest

from waterbed.progress import Progress, Rate


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("waterbed.progress.time.monotonic", clock)
    return clock


def test_slow_first_steps_are_forgotten():
    rate = Rate()
    rate.add(100.0, 1)
    for _ in range(30):
        rate.add(1.0, 1)
    assert rate.seconds < 1.1, "the mean over all would be 4.2"


def test_what_comes_once_an_epoch_is_spread_over_its_steps():
    rate, seen = Rate(), []
    for step in range(1, 1001):
        rate.add(1.0 + 50.0 * (step % 100 == 0), 1)
        seen.append(rate.seconds)
    assert max(seen[500:]) < 1.9
    assert rate.seconds == pytest.approx(1.5, rel=0.2)


def test_lines_have_an_eta_without_the_steps_before_a_restart(clock, monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with Progress("training", 100) as progress:
        progress.skip(40)
        clock.now = 20.0
        progress.advance(10, "loss 1")
    assert stderr.getvalue() == "training: 50/100, ETA 0:01:40  loss 1\n"


def test_the_eta_is_counted_down_between_steps(clock):
    progress = Progress("training", 10, enabled=False)
    assert progress.seconds_left() is None
    clock.now = 5.0
    progress.advance()
    assert progress.seconds_left() == 45.0
    clock.now = 8.0
    assert progress.seconds_left() == 42.0
