"""Fixtures shared by all tiers; no test uses the network or leaves the temporary folder."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import waterbed as wb

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def folder(tmp_path):
    """A user's folder of images: two classes, 12 x 12 RGB, bright against dark."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name, level in (("bright", 170), ("dark", 30)):
            place = tmp_path / "pictures" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(level, level + 60, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path / "pictures"


@pytest.fixture
def tiny():
    """An untrained network for 8 x 8 grey images, 10 classes."""
    return wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0).eval()


@pytest.fixture
def digits():
    """A part of the digits."""
    return wb.load_dataset("digits").take(256, 100)


@pytest.fixture
def convnet():
    """conv-BN-ReLU twice and a head, float64, K = 3, with running statistics that are not the initial ones."""
    return make_convnet()


def make_convnet(classes=3):
    backbone = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 3, stride=2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
    )
    model = wb.FeatureClassifier(backbone, nn.Linear(16, classes), mean=[0.3], std=[0.5]).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, 0.2, 0.8)
    return model.eval()


def make_mlp(classes=3):
    """Linear-Tanh, float64."""
    torch.manual_seed(1)
    return wb.FeatureClassifier(nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.Linear(5, classes)).double()
