"""Resized crops of image files: of the whole picture, as it is decoded."""

import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.unit.training.test_resume import same_end
from torch.utils.data import Subset

import waterbed as wb
from waterbed.data.augment import augmentation
from waterbed.data.loading import batches
from waterbed.errors import StoppedError
from waterbed.training.config import TrainConfig
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk

CONFIG = TrainConfig(augment="resized-crop-flip")


@pytest.fixture
def wide(tmp_path, monkeypatch):
    """Pictures three times as wide as high; only their outer parts, which a centre crop leaves out, are bright."""
    monkeypatch.setattr("waterbed.data.folders.IN_MEMORY_BYTES", 0)
    pixels = np.zeros((16, 48, 3), dtype=np.uint8)
    pixels[:, :14] = pixels[:, 34:] = 255
    for part, count in (("train", 12), ("test", 3)):
        for name in ("a", "b"):
            folder = tmp_path / "wide" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return wb.load_dataset(str(tmp_path / "wide"), size=16)


def bright(dataset, **loading):
    torch.manual_seed(0)
    return torch.cat([x.amax((1, 2, 3)) > 0.5 for x, _ in batches(dataset, 8, **loading)])


def test_a_crop_sees_what_a_centre_crop_leaves_out(wide):
    augmented = augmentation(CONFIG, wide)
    assert not bright(wide.train).any()
    assert bright(augmented.images).any()
    assert augmented(torch.zeros(2, 3, 16, 16)).shape == (2, 3, 16, 16)
    assert len(augmented.changes) == 1, "no second crop"
    part = augmentation(CONFIG, wb.ImageData("part", Subset(wide.train, [3, 5]), wide.test, wide.classes))
    assert len(part.images) == 2
    assert part.images[0][0].shape == (3, 16, 16)
    for name in ("crop-flip", "none"):
        assert augmentation(TrainConfig(augment=name), wide).images is wide.train


def test_crops_differ_between_pictures_and_are_drawn_by_workers_too(wide):
    images = augmentation(CONFIG, wide).images
    for workers in (0, 1):
        torch.manual_seed(0)
        (x, _), *_ = batches(images, 24, workers=workers)
        assert len(x.flatten(1).unique(dim=0)) > 12


class Stopping:
    """Cross-entropy that asks to stop at one of its calls."""

    attack = None

    def __init__(self, call=None):
        self.call = call

    def __call__(self, model, forward, x, y):
        if self.call is not None:
            self.call -= 1
            if self.call == 0:
                signal.raise_signal(signal.SIGTERM)
        logits = forward(x)
        return F.cross_entropy(logits, y), logits

    def config(self):
        return {"name": "stopping"}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stopped_training_draws_the_same_crops(wide, tmp_path, workers):
    def train(folder, call=None):
        model = wb.create_model("resnet10", 2, width=2, seed=0)
        settings = {"epochs": 2, "batch_size": 8, "lr": 0.01, "watch": 0, "precision": "fp32", "progress": False}
        return wb.fit(model, wide, Stopping(call), tmp_path / folder, config=CONFIG, workers=workers, **settings)

    with pytest.raises(StoppedError, match="epoch 2 after batch 2"):
        train("parts", call=5)
    assert same_end(train("parts"), train("whole"))


def test_statistics_and_tests_are_of_images_as_they_are(wide):
    settings = {"epochs": 1, "batch_size": 12, "lr": 0.01, "progress": False, "precision": "fp32"}
    models = [
        wb.fit(wb.create_model("resnet10", 2, width=2, seed=0), wide, augment=augment, **settings).model
        for augment in ("none", "resized-crop-flip")
    ]
    assert torch.equal(models[0].mean, models[1].mean)
    assert not torch.equal(models[0].head.weight, models[1].head.weight)


def test_a_cache_of_crops(wide):
    model = wb.create_model("resnet10", 2, width=2, seed=0).eval()
    model.set_normalisation([0.5] * 3, [0.5] * 3)
    plain = FrozenTrunk(model, wide, "linear").train.values[0]
    views = FrozenTrunk(model, wide, "linear", augment="resized-crop-flip", views=2).train.values[0]
    assert not torch.equal(views[0], views[1])
    assert len(plain[0].unique(dim=0)) == 1
    assert len(views[0].unique(dim=0)) > 12
