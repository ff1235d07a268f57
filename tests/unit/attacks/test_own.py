"""A user's own norm, attack, objective and step rule, each without a change to the library."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import waterbed as wb
from waterbed.training.run_folder import RunFolder


def train(data, objective, out=None):
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    return wb.fit(model, data, objective, out, epochs=1, batch_size=64, lr=0.02, watch=20, progress=False)


class Brightness:
    """A norm: the absolute sum of a perturbation over the pixels, which is one common shift of all of them."""

    name = "brightness"

    def project(self, delta, eps):
        shift = delta.mean((1, 2, 3), keepdim=True).clamp(-eps, eps)
        return shift.expand_as(delta)

    def direction(self, gradient):
        return gradient.sum((1, 2, 3), keepdim=True).sign().expand_as(gradient)

    def random_start(self, x, eps):
        return (eps * (2 * torch.rand(len(x), 1, 1, 1) - 1)).expand_as(x)


def test_own_norm(tiny):
    attack = wb.PGD(eps=0.1, norm=Brightness(), steps=3)
    assert attack.name == "pgd-3 brightness eps=0.1"
    assert attack.config()["norm"] == "brightness"
    x, y = 0.2 + 0.6 * torch.rand(8, 1, 8, 8), torch.arange(8)
    shift = (attack(tiny, x, y) - x).flatten(1)
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-6)
    assert 0.05 < float(shift.abs().max()) <= 0.1 + 1e-6
    assert bool((F.cross_entropy(tiny(attack(tiny, x, y)), y) > F.cross_entropy(tiny(x), y)).all())


class Corner:
    """An attack: one gradient step into a corner of the linf ball; it leaves a graph behind and asks for no weights."""

    name = "corner"

    def __init__(self, eps):
        self.eps = eps

    def config(self):
        return {"eps": self.eps, "kind": "corner"}

    def __call__(self, model, x, y):
        assert not model.training
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
        return (x + self.eps * gradient.sign()).clamp(0, 1)


def test_own_attack(digits, tmp_path):
    run = train(digits, wb.AdversarialTraining(Corner(0.1)), tmp_path / "run")
    assert RunFolder(run.path).config()["objective"] == {"name": "adversarial", "eps": 0.1, "kind": "corner"}
    assert run.history[0]["test_robust"] <= run.history[0]["test_clean"]
    score = wb.evaluate(run.model, digits.test, attacks=[Corner(0.1), wb.PGD(0.1, "linf", 1, 0.1, random_start=False)])
    assert score.robust["corner"] == score.robust["pgd-1 linf eps=0.1"] < score.clean


def test_own_attack_that_maximises_a_loss_trains_trades(digits):
    class Noise(Corner):
        def maximise(self, model, x, loss):
            tries = torch.stack([(x + self.eps * torch.randn_like(x)).clamp(0, 1) for _ in range(3)])
            losses = torch.stack([loss(model(images)) for images in tries])
            return tries[losses.argmax(0), torch.arange(len(x))]

    assert train(digits, wb.TRADES(Noise(0.1), beta=1.0)).config["objective"]["kind"] == "corner"
    with pytest.raises(wb.errors.UsageTypeError, match="lacks maximise"):
        wb.TRADES(Corner(0.1))


class Mixup:
    """An objective: cross-entropy on pairs of images mixed half and half."""

    attack = None

    def __call__(self, model, forward, x, y):
        other = torch.randperm(len(x))
        logits = forward((x + x[other]) / 2)
        return (F.cross_entropy(logits, y) + F.cross_entropy(logits, y[other])) / 2, logits

    def config(self):
        return {"name": "mixup"}


def test_own_objective(digits):
    run = train(digits, Mixup())
    assert run.config["objective"] == {"name": "mixup"}
    assert math.isfinite(run.history[0]["loss"])
    assert "test_clean" in run.history[0]
    assert "test_robust" not in run.history[0]


def test_torch_optimiser(tiny):
    x, y = torch.rand(8, 1, 8, 8), torch.arange(8)
    attack = wb.PGD(eps=0.3, steps=10, optimizer=lambda images: torch.optim.Adam(images, lr=0.02, maximize=True))
    assert attack.name == "pgd-10 Adam l2 eps=0.3"
    config = attack.config()
    assert "step_size" not in config
    assert (config["optimizer"]["name"], config["optimizer"]["lr"]) == ("Adam", 0.02)
    x_adv = attack(tiny, x, y)
    assert float((x_adv - x).flatten(1).norm(dim=1).max()) <= 0.3 + 1e-5
    assert bool(F.cross_entropy(tiny(x_adv), y) > F.cross_entropy(tiny(x), y))
    assert not x_adv.requires_grad


class Momentum:
    """A step rule: gradients of unit l1 norm are accumulated, the images follow the sign (MI-FGSM)."""

    def __init__(self, images, step_size):
        (self.images,), self.step_size, self.velocity = images, step_size, 0.0

    @torch.no_grad()
    def step(self):
        gradient = self.images.grad
        self.velocity = self.velocity + gradient / gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-12)
        self.images += self.step_size * self.velocity.sign()


def test_own_step_rule(tiny):
    def make(images):
        return Momentum(images, 0.02)

    x, y = torch.rand(8, 1, 8, 8), torch.arange(8)
    start = {"norm": "linf", "random_start": False}
    # The first step is the sign of the gradient; momentum shows from the second on.
    once, plain = (wb.PGD(0.1, steps=1, **start, **s)(tiny, x, y) for s in ({"optimizer": make}, {"step_size": 0.02}))
    assert torch.allclose(once, plain)
    four, plain = (wb.PGD(0.1, steps=4, **start, **s)(tiny, x, y) for s in ({"optimizer": make}, {"step_size": 0.02}))
    assert not torch.allclose(four, plain)
    assert float((four - x).abs().max()) <= 0.1 + 1e-6


@pytest.mark.parametrize("bf16", [False, True])
def test_default_steps_are_steepest_ascent_written_out(tiny, bf16):
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        check_steepest_ascent(tiny.requires_grad_(False), torch.rand(4, 1, 8, 8), torch.arange(4))


def check_steepest_ascent(tiny, x, y):
    x_adv = x
    for _ in range(3):
        x_adv = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(tiny(x_adv).float(), y, reduction="sum"), x_adv)
        delta = x_adv.detach() + 0.02 * gradient.sign() - x
        x_adv = (x + delta.clamp(-0.05, 0.05)).clamp(0, 1)
    assert torch.equal(wb.PGD(0.05, "linf", 3, 0.02, random_start=False)(tiny, x, y), x_adv)


def returns(change):
    return type("Broken", (Corner,), {"name": "broken", "__call__": lambda self, model, x, y: change(x)})(0.1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x[:, :, :4], r"returned torch.float32 \(\d+, 1, 4, 8\)"),
        (lambda x: x.double(), "returned torch.float64"),
        (lambda x: x + 1, "outside"),
        (lambda x: x * torch.nan, "not finite"),
    ],
)
def test_what_an_attack_returns_is_checked(digits, tiny, change, match):
    with pytest.raises(wb.UsageError, match=rf"'broken' .*{match}"):
        wb.evaluate(tiny, digits.test, [returns(change)])
    with pytest.raises(wb.UsageError, match=rf"'broken' .*{match}"):
        wb.AdversarialTraining(returns(change))(tiny, tiny, torch.rand(4, 1, 8, 8), torch.arange(4))


def test_values_are_checked_in_later_batches_too(digits, tiny):
    calls = []

    def late(x):
        calls.append(len(x))
        return x + 2 if len(calls) == 2 else x

    labels = tiny(wb.stack(digits.test)[0]).argmax(1)
    data = [(x, int(y)) for (x, _), y in zip(digits.test, labels, strict=True)]  # all right, so all attacked
    with pytest.raises(wb.UsageError, match=r"'broken'.*outside"):
        wb.evaluate(tiny, data, [returns(late)], batch_size=20)
    assert calls == [20, 20], "on a CPU the next batch is not attacked"


def test_direct_calls_are_checked_again_after_an_evaluation(digits, tiny):
    wb.evaluate(tiny, digits.test, [wb.PGD(steps=1)], num_samples=20)
    with pytest.raises(wb.UsageError, match="divide 8-bit"):
        wb.PGD()(tiny, 255 * torch.rand(2, 1, 8, 8), torch.arange(2))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: wb.PGD(norm=3), "norm=3 lacks name, project, direction, random_start.*'l2'"),
        (lambda: wb.PGD(norm=Brightness), r"write Brightness\(\)"),
        (lambda: wb.PGD(optimizer="adam"), "optimizer='adam' must make a step rule"),
        (lambda: wb.PGD(optimizer=len), "no step"),
        (lambda: wb.AdversarialTraining(wb.PGD), r"write PGD\(...\)"),
        (lambda: wb.AdversarialTraining(lambda model, x, y: x), "lacks name, config"),
        (lambda: wb.evaluate(nn.Flatten(), [0], attacks=Corner(0.1)), r"write attacks=\[PGD"),
        (lambda: wb.evaluate(nn.Flatten(), [0], attacks=3), r"write attacks=\[PGD"),
        (lambda: wb.evaluate(nn.Flatten(), [0], attacks=[wb.PGD(), 3]), r"attacks\[1\]=3 lacks"),
    ],
)
def test_wrong_objects_are_refused(make, match):
    with pytest.raises(TypeError, match=match):
        make()


def test_optimisers_that_descend_or_ignore_the_step_size_are_refused():
    with pytest.raises(wb.UsageError, match="maximize=True"):
        wb.PGD(optimizer=lambda images: torch.optim.SGD(images, lr=0.1))
    with pytest.raises(wb.UsageError, match=r"step_size=0\.1"):
        wb.PGD(step_size=0.1, optimizer=lambda images: Momentum(images, 0.02))
