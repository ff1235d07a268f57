"""as_attack: the call shapes of other packages, what comes back checked, and what is refused."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import waterbed as wb
from waterbed.training.run_folder import RunFolder


def brighter(model, x, y, by=0.05):
    return (x + by).clamp(0, 1)


class Bound:
    """torchattacks: built for a model, called with (x, y); it may be made of others."""

    def __init__(self, model, parts=()):
        self.model, self.device, self.eps, self.parts, self.attack = (
            model,
            torch.device("cpu"),
            0.1,
            list(parts),
            "FGSM",
        )

    def __call__(self, inputs, labels=None, *args, **kwargs):
        assert all(part.model is self.model for part in self.parts)
        x = inputs.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(self.model(x), labels, reduction="sum"), x)
        return (inputs + self.eps * gradient.sign()).clamp(0, 1)


class Estimated:
    """adversarial-robustness-toolbox: arrays, numpy's generator, a model inside a wrapper inside an estimator."""

    class Estimator:
        def __init__(self, model):
            self._model, self._device = nn.Module(), torch.device("cpu")
            self._model._model = model

    def __init__(self, model):
        self.estimator, self.eps, self.norm = self.Estimator(model), 0.1, np.inf

    def generate(self, x, y):
        assert isinstance(x, np.ndarray)
        self.ran_on = self.estimator._model._model
        return np.clip(x + np.random.uniform(-0.1, 0.1, x.shape), 0, 1)  # noqa: NPY002


class Distance:
    p = math.inf


class ManyEpsilons:
    """foolbox: its own kind of model, a radius when it is called, three results."""

    distance = Distance()

    def __call__(self, model, inputs, criterion, *, epsilons, **kwargs):
        assert (model.bounds.lower, model.bounds.upper) == (0, 1)
        wrapped = model(Raw(inputs))
        assert isinstance(wrapped, Raw)
        assert torch.equal(wrapped.raw, model(inputs))
        raw = inputs + 1
        return raw, (inputs + epsilons).clamp(0, 1), criterion != criterion


class Raw:
    """The tensors of eagerpy."""

    def __init__(self, raw):
        self.raw = raw


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_a_function(tiny, digits, tmp_path):
    attack = wb.as_attack(partial(brighter, by=0.1), eps="0.1", norm="linf")
    assert attack.name == "brighter linf eps=0.1"
    assert attack.config() == {"attack": attack.name, "eps": 0.1, "norm": "linf"}
    assert repr(attack) == "as_attack('brighter linf eps=0.1', eps=0.1, norm='linf')"
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    assert torch.equal(attack(tiny, x, y), (x + 0.1).clamp(0, 1))
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    options = {"epochs": 1, "batch_size": 64, "watch": 20, "progress": False}
    run = wb.fit(model, digits, wb.AdversarialTraining(attack), tmp_path / "run", **options)
    objective = {"name": "adversarial", "attack": attack.name, "eps": 0.1, "norm": "linf"}
    assert RunFolder(run.path).config()["objective"] == objective


def test_an_attack_bound_to_a_network_runs_on_the_one_it_is_given(tiny):
    built_for = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=9)
    parts = [Bound(built_for), Bound(built_for)]
    bound = Bound(built_for, parts)
    attack = wb.as_attack(bound, norm="linf")
    assert (attack.name, attack.eps) == ("FGSM linf eps=0.1", 0.1)
    x, y = 0.2 + 0.6 * torch.rand(8, 1, 8, 8), torch.arange(8)
    expected = wb.PGD(0.1, "linf", 1, 0.1, random_start=False)(tiny, x, y)
    assert torch.allclose(attack(tiny, x, y), expected)
    assert all(part.model is built_for for part in [bound, *parts]), "put back"


def test_an_attack_on_arrays_is_seeded_and_leaves_the_generator(tiny, digits):
    built_for = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=9)
    made = Estimated(built_for)
    attack = wb.as_attack(made)
    assert (attack.name, attack.norm, attack.eps) == ("Estimated linf eps=0.1", "linf", 0.1)
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    torch.manual_seed(3)
    once = attack(tiny, x, y)
    torch.manual_seed(3)
    assert torch.equal(attack(tiny, x, y), once)
    assert not torch.equal(attack(tiny, x, y), once)
    assert made.ran_on is tiny
    assert made.estimator._model._model is built_for
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_an_attack_that_takes_its_radius_when_called(tiny):
    attack = wb.as_attack(ManyEpsilons(), eps="8/255")
    assert attack.name == f"ManyEpsilons linf eps={8 / 255:g}"
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(attack(tiny, x, torch.arange(4)), (x + 8 / 255).clamp(0, 1))


def test_what_an_own_attack_records_stays():
    attack = wb.as_attack(wb.PGD(0.2, "linf", steps=3))
    assert (attack.name, attack.eps) == ("pgd-3 linf eps=0.2", 0.2)
    assert attack.config()["steps"] == 3


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_images_outside_the_ball(tiny, digits, norm):
    """Every second image goes twice as far; the network is wrong wherever the sum of an image has changed."""
    images, _ = wb.stack(digits.test)
    labels = tiny(images).argmax(1)
    data = [(x, int(y)) for x, y in zip(images, labels, strict=True)]
    radius = {"l1": 1.0, "l2": 0.5, "linf": 0.25}[norm]

    def step(x):
        one = torch.zeros_like(x)
        pixel = x.flatten(1).amin(1)
        one.flatten(1)[torch.arange(len(x)), x.flatten(1).argmin(1)] = 1
        assert float(pixel.max()) == 0
        return one

    def inside(model, x, y):
        return x + radius * step(x)

    def too_far(model, x, y):
        return x + min(radius, 0.5) * (1 + torch.arange(len(x)) % 2)[:, None, None, None] * step(x)

    class Wrong(nn.Module):
        def forward(self, x):
            known = (x.flatten(1)[:, None] == images.flatten(1)).all(2)
            return (
                F.one_hot(torch.where(known.any(1), labels[known.float().argmax(1)], 9 - labels[0]), 10) + 0 * x.sum()
            )

    eps = min(radius, 0.5)
    right = wb.as_attack(inside, norm=norm, eps=radius)
    assert wb.evaluate(Wrong(), data, [right]).outside == {}
    attack = wb.as_attack(too_far, "far", norm=norm, eps=eps)
    with pytest.warns(wb.errors.UsageWarning, match=rf"'far' returned 50 of 100 .*\({norm}, eps={eps}\).* not broken"):
        score = wb.evaluate(Wrong(), data, [attack], batch_size=20)
    assert score.outside == {"far": 50}
    assert score.to_dict()["outside"] == {"far": 50}
    assert 50 <= score.robust["far"] < 70, "only those inside are broken"
    with pytest.raises(wb.UsageError, match=rf"'far' returned images outside its ball \({norm}, eps={eps}\)"):
        attack(tiny, images[:4], labels[:4])


def test_an_image_outside_the_ball_stops_training_in_any_batch(tiny):
    calls = []

    def late(model, x, y):
        calls.append(1)
        return (x + (0.05 if len(calls) < 3 else 0.2)).clamp(0, 1)

    objective = wb.AdversarialTraining(wb.as_attack(late, eps=0.1, norm="linf"))
    x, y = torch.full((4, 1, 8, 8), 0.5), torch.arange(4)
    for _ in range(2):
        objective(tiny, tiny, x, y)
    with pytest.raises(wb.UsageError, match=r"'late.*outside its ball"):
        objective(tiny, tiny, x, y)


def test_rounding_is_not_outside(tiny):
    eps, x, y = 8 / 255, torch.rand(16, 1, 8, 8), torch.zeros(16, dtype=torch.long)
    for norm in ("l1", "l2", "linf"):
        wb.as_attack(wb.PGD(eps, norm), "again")(tiny, x, y)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: wb.as_attack(Bound), r"write as_attack\(Bound\(...\)\)"),
        (lambda: wb.as_attack(3), "attack=3 is no function"),
        (lambda: wb.as_attack(lambda x: x, name="a"), r"takes \(x\), not \(model, x, y\); write as_attack\(lambda"),
        (lambda: wb.as_attack(lambda model, x, y: x), "pass name='mine'"),
        (lambda: wb.as_attack(brighter, name=3), "name=3 must be text"),
        (lambda: wb.as_attack(brighter, eps=0.5), "eps=0.5 needs the norm"),
        (lambda: wb.as_attack(brighter, eps=0.5, norm="l3"), "norm='l3' is unknown"),
        (lambda: wb.as_attack(brighter, eps="8:255", norm="l2"), "write 0.5 or a fraction"),
        (lambda: wb.as_attack(ManyEpsilons()), "eps=None, but this attack takes its radius"),
        (lambda: wb.as_attack(Bound(nn.Flatten()), eps=0.2, norm="linf"), "was made with eps=0.1"),
        (lambda: wb.AdversarialTraining(brighter), r"as_attack\(it, name='mine'\)"),
        (lambda: wb.TRADES(wb.as_attack(brighter)), "lacks maximise"),
    ],
)
def test_wrong_attacks_are_refused(make, match):
    with pytest.raises((wb.UsageError, wb.errors.UsageTypeError), match=match):
        make()
