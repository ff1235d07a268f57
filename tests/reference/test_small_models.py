"""The experiments on small models: their losses in closed form, and dw/dD against training again, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from waterbed.errors import UsageError
from waterbed.information.influence import dataset_influence
from waterbed_paper.graph import Place
from waterbed_paper.small_models import (
    Margins,
    _at_minimum,
    _two_classes,
    anisotropy,
    dataset_fisher,
    example_3_3,
    robust_loss,
)


def test_the_robust_loss_is_that_of_the_worst_perturbation():
    x, y = _two_classes(20, seed=0)
    model = Margins(64, 0, eps=0.3).double().requires_grad_(False)
    w = model.body[0].weight
    worst = model.body(x - 0.3 * y[:, None] * w / w.norm()).squeeze(1)
    assert float(robust_loss(model(x), y)) == pytest.approx(float(F.softplus(-y * worst).mean()), rel=1e-9)
    other = model.body(x + 0.3 * F.normalize(torch.randn(x.shape, dtype=x.dtype), dim=1)).squeeze(1)
    assert float(F.softplus(-y * other).mean()) < float(robust_loss(model(x), y))


@pytest.mark.parametrize(("hidden", "eps"), [(0, 0.5), (2, 0.0), (2, 0.1)])
def test_influence_at_the_minimum_matches_training_again(hidden, eps):
    decay, step = 1e-2, 1e-4
    x, y = _two_classes(40, seed=1)
    x = x.unflatten(1, (8, 8))[:, ::2, ::2].flatten(1)
    model = _at_minimum(Margins(16, hidden, eps), x, y, decay, seed=0)
    moved, _ = dataset_influence(model, x, y, [3], weight_decay=decay, loss=robust_loss)
    ends = []
    for sign in (1, -1):
        shifted = x.clone()
        shifted[3, 5] += sign * step
        again = _at_minimum(Margins(16, hidden, eps), shifted, y, decay, seed=0)
        ends.append(torch.cat([p.detach().flatten() for p in again.parameters()]))
    numeric = (ends[0] - ends[1]) / (2 * step)
    assert float((moved[:, 5] - numeric).norm()) < 0.02 * float(numeric.norm())


def test_a_saddle_is_refused():
    x, y = _two_classes(30, seed=0)
    with pytest.raises(UsageError, match="no minimum was found"):
        _at_minimum(Margins(64, 2, 3.0), x, y, weight_decay=1e-3, seed=1)


def test_dataset_fisher_has_a_value_a_seed():
    config = {"seeds": 2, "train": 30, "eps": 0.5, "hidden": 0, "weight_decay": 1e-2, "examples": 3}
    found = dataset_fisher(Place(None), config)
    assert {len(found["standard"]), len(found["robust"])} == {2}
    assert min(found["standard"] + found["robust"]) > 0


def test_anisotropy_is_between_one_direction_and_all(tmp_path):
    config = {"data": "digits", "size": 8, "train": 100, "test": 40, "model": "resnet10", "width": 2, "epochs": 1}
    config |= {"batch_size": 50, "lr": 0.1, "augment": "none", "images": 20, "seed": 0}
    found = anisotropy(Place(tmp_path), config)
    assert found["pixels"] == 64
    assert math.log(64 / 9) < found["log_anisotropy"]["value"] < math.log(64), "the trace has at most 9 directions"


def test_example_3_3_holds():
    assert example_3_3(Place(None), {"size": 5, "images": 20, "seed": 0})["relative_difference"] < 1e-12
