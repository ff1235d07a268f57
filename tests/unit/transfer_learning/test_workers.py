"""Images that workers decode: the same numbers, decoded elsewhere."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

import waterbed as wb
from waterbed.__main__ import main
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk

PLAIN = {"epochs": 1, "lr": 0.1, "batch_size": 16}


class Decoded(torch.utils.data.Dataset):
    """Images that are made when they are read, by a process that leaves its number."""

    def __init__(self, images, labels, log):
        self.images, self.labels, self.log = images, labels, log

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()}\n")
        return self.images[i], int(self.labels[i])


@pytest.fixture
def task(digits, tmp_path):
    parts = [Decoded(*wb.stack(part, 60), tmp_path / "log") for part in (digits.train, digits.test)]
    return wb.as_task(tuple(parts))


def readers(task):
    """Processes that have read since this was last asked."""
    found = set(map(int, task.train.log.read_text().split()))
    task.train.log.write_text("")
    return found - {os.getpid()}


CALLS = {
    "choose": lambda source, task, workers: wb.choose({"a": source}, task, workers=workers).to_frame().to_csv(),
    "distance": lambda source, task, workers: wb.dataset_distance(
        task, task, source, num_resamples=20, workers=workers
    ),
    "logistic": lambda source, task, workers: wb.finetune(source, task, "linear", workers=workers).history,
    "views": lambda source, task, workers: (
        wb.finetune(source, task, 0, augment="crop", views=2, workers=workers, **PLAIN).history
    ),
    "transfer": lambda source, task, workers: (
        wb.transfer(
            {"a": source}, [task], 0, seeds=[0], workers=workers, attacks=[wb.PGD(0.1, steps=1)], num_bounded=4, **PLAIN
        ).rows
    ),
    "whole": lambda source, task, workers: (
        wb.transfer({"a": source}, [task], 2, seeds=[0], workers=workers, epochs=1, lr=(0.1, 0.2), search_epochs=1).rows
    ),
}


def without_times(found):
    """History and rows without their seconds."""
    if isinstance(found, list):
        return [without_times(one) for one in found]
    return {k: without_times(v) for k, v in found.items() if k != "seconds"} if isinstance(found, dict) else found


@pytest.mark.parametrize("call", CALLS)
def test_workers_change_no_number(source, task, call):
    alone = CALLS[call](source, task, 0)
    assert not readers(task)
    assert without_times(CALLS[call](source, task, 1)) == without_times(alone)
    assert readers(task), "a worker has read"


def test_the_trunk_has_the_workers(source, task):
    trunk = FrozenTrunk(source, task, "linear", workers=1)
    assert wb.finetune(source, task, "linear", trunk=trunk, workers=1).history
    assert readers(task)
    with pytest.raises(wb.UsageError, match="workers=2, but the trunk has 1; pass it to the trunk"):
        wb.finetune(source, task, "linear", trunk=trunk, workers=2)
    with pytest.raises(wb.UsageError, match="workers=-1 must be a whole number >= 0"):
        FrozenTrunk(source, task, "linear", workers=-1)


def test_the_command_line_has_them(tmp_path, source, monkeypatch):
    """On a folder too large for memory."""
    monkeypatch.setattr("waterbed.data.folders.IN_MEMORY_BYTES", 0)
    rng = np.random.default_rng(0)
    for split, name in ((s, n) for s in ("train", "test") for n in ("a", "b")):
        (tmp_path / "data" / split / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
    wb.save_model(source, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    for words in (
        "choose --target data --backbones model.safetensors --out choice.csv",
        "distance data digits --extractor model.safetensors --num-samples 20 --out distance.json",
        "transfer model.safetensors --targets data --mode linear --seeds 0 --out rows.csv",
    ):
        files = []
        for more in ("", "--workers 1"):
            assert main([*words.split(), *more.split(), "--force"]) == 0, words
            files.append((tmp_path / words.split()[-1]).read_text())
            for rows in tmp_path.glob("rows.*"):
                rows.unlink()
        assert files[0] == files[1]
