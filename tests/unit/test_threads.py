"""The number of CPU threads follows the load that others make, when a run starts and only then."""

import json
import os

import pytest
import torch

import waterbed as wb
from waterbed import threads
from waterbed.training import fit as fitting

SHORT = {"epochs": 2, "batch_size": 64, "watch": 0, "precision": "fp32"}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def few():
    return wb.load_dataset("digits").take(64, 10)


class Watching:
    """Notes the number of threads after each epoch."""

    def __init__(self):
        self.seen = []

    def on_epoch_end(self, job):
        self.seen.append(torch.get_num_threads())


def train(data, out=None, **settings):
    watching = Watching()
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    wb.fit(model, data, out=out, callbacks=[watching], **{**SHORT, "progress": False, **settings})
    return watching.seen


def write_load(path, ticks):
    """A file like /proc/stat: of each core user, nice, system, idle, iowait, irq, softirq, steal and two of guests."""
    lines = [f"cpu{core} {' '.join(map(str, values))}" for core, values in enumerate(ticks)]
    path.write_text("\n".join(["cpu  1 1 1 1 1 1 1 1 0 0", *lines, "intr 1 2 3", "ctxt 5"]))


@pytest.mark.parametrize(
    ("one", "two", "free"),
    [
        ((0, 0, 0, 10, 0, 0, 0, 0, 0, 0), (0, 0, 0, 10, 0, 0, 0, 0, 0, 0), 2.0),
        ((10, 0, 0, 0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 10, 0, 0, 0, 0, 0, 0), 1.0),
        ((2, 1, 1, 4, 1, 0, 0, 1, 3, 0), (0, 0, 0, 10, 0, 0, 0, 0, 0, 0), 1.5),
        ((10, 0, 0, 0, 0, 0, 0, 0, 0, 0), (0, 10, 0, 0, 0, 0, 0, 0, 0, 0), 0.0),
    ],
)
def test_free_cores_of_a_made_up_load(tmp_path, monkeypatch, one, two, free):
    stat = tmp_path / "stat"
    start = [[100] * 10, [200] * 10, [7] * 10]
    write_load(stat, start)
    # A third core that this process may not use is no matter.
    changes = [one, two, (10, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    later = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(start, changes, strict=True)]
    monkeypatch.setattr(threads, "STAT", stat)
    monkeypatch.setattr(threads, "_own_cores", lambda: {0, 1})
    monkeypatch.setattr(threads.time, "sleep", lambda _: write_load(stat, later))
    monkeypatch.setattr(threads.time, "process_time", lambda: 0.0)
    assert threads.free_cores() == pytest.approx(free)


def test_our_own_work_leaves_cores_free(tmp_path, monkeypatch):
    stat, clock = tmp_path / "stat", iter([1.0, 1.1])
    write_load(stat, [[0] * 10, [0] * 10])
    busy = [[10] + [0] * 9, [0, 0, 0, 10] + [0] * 6]
    monkeypatch.setattr(threads, "STAT", stat)
    monkeypatch.setattr(threads, "_own_cores", lambda: {0, 1})
    monkeypatch.setattr(threads.time, "sleep", lambda _: write_load(stat, busy))
    monkeypatch.setattr(threads.time, "process_time", lambda: next(clock))
    assert threads.free_cores() == pytest.approx(2.0)


def test_all_cores_are_free_where_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "STAT", tmp_path / "none")
    monkeypatch.setattr(threads, "_own_cores", lambda: {0, 1, 2})
    assert threads.free_cores() == 3.0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity")
def test_the_load_of_this_machine():
    assert 0 <= threads.free_cores() <= len(os.sched_getaffinity(0)) + 0.5


@pytest.mark.usefixtures("two_threads")
def test_a_training_takes_the_threads_that_are_free_and_gives_all_back(few, monkeypatch, capsys):
    monkeypatch.setattr(fitting, "free_cores", lambda seconds: 1.1)
    assert train(few, progress=True) == [1, 1]
    assert "training on 1 of 2 CPU threads, since other processes leave 1.1 cores free" in capsys.readouterr().err
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(fitting, "free_cores", lambda seconds: 1.9)
    assert train(few, progress=True) == [2, 2]
    assert "CPU threads" not in capsys.readouterr().err


@pytest.mark.usefixtures("two_threads")
def test_a_number_that_is_given_is_taken_without_a_look(few, monkeypatch):
    monkeypatch.setattr(fitting, "free_cores", lambda seconds: pytest.fail("looked"))
    assert train(few, threads=1) == [1, 1]
    assert train(few, threads=2) == [2, 2]
    torch.set_num_threads(1)
    assert train(few) == [1, 1], "no more than torch has"
    with pytest.raises(wb.UsageError, match="threads=2 is more than the 1 that torch may use"):
        train(few, threads=2)


@pytest.mark.usefixtures("two_threads")
def test_a_run_goes_on_with_the_threads_it_began_with(few, tmp_path, monkeypatch):
    class Stopping:
        def on_epoch_end(self, job):
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "free_cores", lambda seconds: 1.0)
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    with pytest.raises(KeyboardInterrupt):
        wb.fit(model, few, out=tmp_path / "run", callbacks=[Stopping()], progress=False, **SHORT)
    assert torch.get_num_threads() == 2
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["threads"] == 1
    monkeypatch.setattr(fitting, "free_cores", lambda seconds: pytest.fail("looked"))
    assert train(few, tmp_path / "run") == [1]
