"""Corruptions of images, and the evidence on shifts of the distribution from results that are made up."""

import pytest
import torch
from torch import nn

from waterbed_paper.experiments_shift import CORRUPTIONS, accuracy_on


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_grade_changes_an_image_more_than_the_one_before(name, channels):
    corrupt, grades = CORRUPTIONS[name]
    torch.manual_seed(0)
    noise = torch.rand(4, channels, 8, 8)
    images = nn.functional.interpolate(noise, size=32, mode="bilinear")
    before = images.clone()
    changed = [float((corrupt(images, grade).clamp(0, 1) - images).square().mean()) for grade in grades]
    assert corrupt(images, grades[0]).shape == images.shape
    assert changed == sorted(changed)
    assert changed[0] > 0
    assert images.equal(before)


def test_accuracy_in_percent_over_batches():
    images = torch.zeros(300, 1, 2, 2)
    images[::3] = 1.0
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[-1.0] * 4, [1.0] * 4])
    assert accuracy_on(model, images, (images.flatten(1)[:, 0] > 0.5).long()) == 100.0
    assert accuracy_on(model, images, torch.ones(300, dtype=torch.long)) == pytest.approx(100 / 3)


def test_what_is_kept_decides_and_the_accuracy_itself_stands_beside(made_up):
    """The robust network is less accurate on corrupted images, too, but keeps more of what it has."""
    for seed in range(3):
        for kind, clean, corrupted in (("standard", 80.0, 40.0), ("eps-1", 50.0, 35.0)):
            result = {"clean": clean, "corrupted": {"blur": [corrupted + seed], "jpeg": [corrupted]}, "n": 1000}
            made_up.put(f"shift/cifar10/{kind}/seed-{seed}", result)
    all_of_them, points, blur, jpeg = made_up.evidence("shift")
    assert all_of_them.value == pytest.approx(100 * (35.5 / 50 - 40.5 / 80))
    assert points.value == pytest.approx(-5)
    assert jpeg.value == pytest.approx(20)
    assert [e.beside for e in (all_of_them, points, blur, jpeg)] == [False, True, True, True]
