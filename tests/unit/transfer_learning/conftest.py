"""A source network for 8 x 8 grey images."""

import pytest

import waterbed as wb


@pytest.fixture
def source():
    """An untrained ResNet-18 of width 4, normalised."""
    model = wb.create_model("resnet18", 10, width=4, in_channels=1, seed=0)
    model.set_normalisation([0.3], [0.4])
    return model.eval()
