"""No work is lost: kills, requests to stop, torn files, full disks, two writers."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import waterbed as wb
from waterbed.data.images import TensorImages
from waterbed.errors import StoppedError
from waterbed.training.run_folder import Run, RunFolder

KILLS = Path(__file__).parents[2] / "kills.py"
SHORT = {"epochs": 3, "batch_size": 64, "watch": 0, "progress": False, "precision": "fp32"}
OBJECTIVE = wb.AdversarialTraining(wb.PGD(eps=0.3, steps=1))


def new_model(seed=0):
    return wb.create_model("resnet10", 10, width=2, in_channels=1, seed=seed)


def same_end(a, b):
    """The same weights, bit for bit, and the same records but for their seconds."""
    weights = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    records = [[{k: v for k, v in r.items() if k != "seconds"} for r in run.history] for run in (a, b)]
    return all(torch.equal(p, q) for p, q in weights) and records[0] == records[1]


def trained_through(kills, seed, folder, epochs):
    words = [sys.executable, str(KILLS), str(folder), str(kills), str(seed), str(epochs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return int(done.stdout), Run.load(folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_a_killed_training_ends_as_if_it_had_not_been(kills, tmp_path):
    # Eight batches an epoch, and a start gets through some of them before it is struck: long enough for all kills.
    _, whole = trained_through(0, 0, tmp_path / "whole", max(3, kills))
    struck, parts = trained_through(kills, kills, tmp_path / "parts", max(3, kills))
    assert struck >= kills * 0.8
    assert same_end(whole, parts)


def stopping(data, batches, number):
    """The same data; while that batch is drawn the process gets the signal, as from a scheduler."""
    calls = iter(range(10**6))

    class Stopping(TensorImages):
        def batch(self, indices):
            if next(calls) == batches:
                signal.raise_signal(number)
            return super().batch(indices)

    return replace(data, train=Stopping(data.train.images, data.train.labels))


@pytest.mark.parametrize("more", [{}, {"ema": 0.9}, {"ema": 0.9, "validation": 0.2}], ids=str)
def test_a_request_to_stop_is_answered_by_saving(digits, tmp_path, more):
    settings = {**SHORT, **more}
    before = signal.getsignal(signal.SIGTERM)
    before_it = 7 + ("validation" in more)  # the held-out images are a batch more
    with pytest.raises(StoppedError, match="epoch 2 after batch 3"):
        wb.fit(new_model(), stopping(digits, before_it, signal.SIGTERM), OBJECTIVE, tmp_path / "parts", **settings)
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(RunFolder(tmp_path / "parts").history()) == 1
    parts = wb.fit(new_model(5), digits, OBJECTIVE, tmp_path / "parts", **settings)
    assert same_end(parts, wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "whole", **settings))
    with pytest.raises(StoppedError, match="nothing was saved"):
        wb.fit(new_model(), stopping(digits, 2, signal.SIGTERM), **settings)


def test_batches_read_by_workers_resume_too(digits, tmp_path):
    """Data without a batch method go through a loader, whose own random numbers must not matter."""
    listed = replace(digits, train=[digits.train[i] for i in range(len(digits.train))])
    with pytest.raises(StoppedError):
        wb.fit(new_model(), Interrupting(listed, 400), OBJECTIVE, tmp_path / "parts", **SHORT)
    parts = wb.fit(new_model(), listed, OBJECTIVE, tmp_path / "parts", **SHORT)
    assert same_end(parts, wb.fit(new_model(), listed, OBJECTIVE, tmp_path / "whole", **SHORT))


class Interrupting:
    """Data that ask to stop when so many images have been read."""

    def __init__(self, data, after):
        self.classes, self.num_classes, self.shape, self.name = data.classes, data.num_classes, data.shape, data.name
        self.test, self.train = data.test, self.Images(data.train, after + 257)

    class Images(list):
        def __init__(self, images, after):
            super().__init__(images)
            self.left = after

        def __getitem__(self, index):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGTERM)
            return super().__getitem__(index)


def test_a_torn_state_is_found_out_and_the_one_before_used(digits, tmp_path):
    whole = wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "run", **SHORT)
    file = tmp_path / "run/state.pt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="torn"):
        again = wb.fit(new_model(5), digits, OBJECTIVE, tmp_path / "run", **SHORT)
    assert same_end(whole, again)
    file.write_bytes(b"torn")
    (tmp_path / "run/previous-state.pt").write_bytes(b"torn")
    with pytest.raises(wb.UsageError, match="damaged"):
        wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "run", **SHORT)


def test_a_full_disk_is_said_and_the_last_state_stays(digits, tmp_path, monkeypatch):
    writes = iter(range(10**6))
    real = os.fsync

    def full(number):
        if next(writes) >= 9:  # in the second epoch
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(wb.UsageError, match="No space left"):
        wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "parts", **SHORT)
    monkeypatch.undo()
    parts = wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "parts", **SHORT)
    assert same_end(parts, wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "whole", **SHORT))


def test_room_is_checked_before_the_first_step(digits, tmp_path, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))
    free = [10**9]
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage(10**9, 0, free[0]))
    wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "run", **SHORT)
    free[0] = int(6.5 * sum(t.nbytes for t in new_model().state_dict().values()))  # of 3 x 2, and the weights
    with pytest.raises(wb.UsageError, match=r"needs about .* GB, and .* GB are free; make room"):
        wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "other", **SHORT)
    assert not (tmp_path / "other/metrics.jsonl").exists()
    wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "run", **SHORT)  # which has its states already


def test_two_processes_cannot_write_one_folder(digits, tmp_path):
    class Inner(Exception):
        pass

    class Trying(TensorImages):
        def batch(self, indices):
            with pytest.raises(wb.UsageError, match="another process"):
                wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "run", **SHORT)
            raise Inner

    data = replace(digits, train=Trying(digits.train.images, digits.train.labels))
    model = new_model()
    model.set_normalisation([0.5], [0.5])
    with pytest.raises(Inner):
        wb.fit(model, data, OBJECTIVE, tmp_path / "run", **SHORT)
    wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "run", **SHORT)  # the lock went with the first
