"""Batches that workers load: the same numbers, sent as bytes, by processes that stay alive."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset

import waterbed as wb
from waterbed.data import loading
from waterbed.data.images import OnDevice, to_float
from waterbed.data.loading import Loader, batches


@pytest.fixture
def on_access(folder, monkeypatch):
    """The folder, too large for memory."""
    monkeypatch.setattr("waterbed.data.folders.IN_MEMORY_BYTES", 0)
    return wb.load_dataset(folder, size=8)


def equal(first, second):
    return all(torch.equal(x, x2) and torch.equal(y, y2) for (x, y), (x2, y2) in zip(first, second, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_batches(on_access, workers):
    order = torch.tensor([23, 3, 5, 0, 11])
    for data in (on_access.train, Subset(on_access.train, range(1, 24)), [on_access.train[i] for i in range(24)]):
        kept = order[1:]
        one = [*batches(data, 2, order=kept)]
        assert equal(one, batches(data, 2, order=kept, workers=workers))
        assert equal(one[1:], batches(data, 2, order=kept, skip=1, workers=workers))
    x, y = next(batches(Subset(on_access.train, [3, 1]), 2, workers=workers))
    assert torch.equal(x[0], on_access.train[3][0])
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64


def test_images_travel_as_bytes(on_access, monkeypatch):
    sent = []
    monkeypatch.setattr(loading, "to_float", lambda x: sent.append(x.dtype) or to_float(x))
    list(batches(on_access.train, 8, workers=1))
    assert set(sent) == {torch.uint8}
    assert torch.equal(to_float(torch.arange(256, dtype=torch.uint8)), torch.arange(256) / 255)


class Own(Dataset):
    """Images with random numbers from three generators; the label is the process."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler's, which workers leave to their parent
        return torch.tensor([[[torch.rand(()), np.random.rand(), random.random()]]]), os.getpid()  # noqa: NPY002


def test_workers_stay_alive_until_the_loader_is_closed():
    with Loader(Own(), workers=2) as loader:
        first, second = ({int(y) for _, labels in loader.batches(2) for y in labels} for _ in range(2))
        assert first == second
        assert os.getpid() not in first
        assert len(first) == 2
    assert not first & {child.pid for child in multiprocessing.active_children()}


def test_what_workers_draw_depends_on_seed_and_batch_alone():
    def drawn(workers, seed=3, **which):
        return [x for x, _ in batches(Own(), 2, workers=workers, seed=seed, **which)]

    one, two, later = drawn(1), drawn(2), drawn(2, skip=3)
    assert torch.equal(torch.cat(one), torch.cat(two))
    assert torch.equal(torch.cat(one[3:]), torch.cat(later))
    assert torch.cat(one).unique().numel() == 36
    assert not torch.equal(one[0], drawn(1, seed=4)[0])


def test_an_error_in_a_worker_is_one_line(on_access):
    path, _ = on_access.train.files[3]
    path.write_bytes(b"no image")
    with pytest.raises(wb.UsageError) as error:
        list(batches(on_access.train, 8, workers=1))
    assert str(error.value).startswith("the image '")
    assert "\n" not in str(error.value)


def test_every_door_has_the_same_numbers_with_workers(on_access):
    def numbers(workers):
        model = wb.create_model("resnet10", 2, width=2, in_channels=3, seed=0)
        settings = {"epochs": 2, "batch_size": 8, "watch": 8, "progress": False, "measure_every": 2}
        run = wb.fit(model, on_access, workers=workers, measures=["input_fisher_trace"], **settings)
        score = wb.evaluate(model, on_access.test, [wb.PGD(0.1, steps=1)], batch_size=3, workers=workers)
        measured = wb.measure(model, on_access, 5, quantities=["input_fisher_trace"], workers=workers)
        features, labels = wb.extract_features(model, on_access, workers=workers)
        records = [{k: v for k, v in record.items() if k != "seconds"} for record in run.history]
        return records, score.to_dict(), measured, features.tolist(), labels.tolist()

    assert numbers(0) == numbers(2)
    for call in (wb.evaluate, wb.extract_features, wb.measure, lambda *a, **k: wb.evaluate_standard(*a, eps=1, **k)):
        with pytest.raises(wb.UsageError, match="workers=-1 must be a whole number >= 0"):
            call(torch.nn.Flatten(), on_access.test, workers=-1)


def test_a_program_that_forgets_to_close_a_loader_ends():
    program = """
import torch
from waterbed.data.loading import Loader
loader = Loader([(torch.rand(1, 4, 4), 0)] * 4, workers=1)
print(len(list(loader.batches(2))))
forgotten = iter(loader._loader)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "2\n"


def test_images_kept_on_a_device_are_drawn_there_with_the_same_bits():
    data = wb.load_dataset("digits").train
    order = torch.tensor([7, 3, 900, 7])
    resident = OnDevice(data, torch.device("cpu"))
    assert len(resident) == len(data)
    assert equal(batches(data, 3, order=order), batches(resident, 3, order=order))
    pixels, _ = resident.read_pixels(order)
    assert pixels.dtype == torch.uint8
    assert Loader(data, resident=True).dataset is data, "a CPU has them already"
