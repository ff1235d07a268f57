import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import waterbed as wb
from waterbed.training.objective_config import OBJECTIVES, ObjectiveConfig
from waterbed.training.objectives import make_objective


@pytest.fixture
def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


@pytest.fixture
def batch():
    return torch.rand(8, 1, 2, 2), torch.randint(3, (8,))


def test_adversarial_training_is_cross_entropy_on_attacked_images(model, batch):
    attack = wb.PGD(eps=0.3, random_start=False)
    loss, logits = wb.AdversarialTraining(attack)(model, model, *batch)
    expected = model(attack(model, *batch))
    assert torch.equal(logits, expected)
    assert torch.equal(loss, F.cross_entropy(expected, batch[1]))


@pytest.mark.parametrize("make", [wb.AdversarialTraining, wb.TRADES, wb.MART])
def test_a_step_reads_nothing_from_the_device(model, batch, make):
    objective = make(wb.PGD(eps=0.3, steps=2))
    objective(model, model, *batch)  # the first batch's values are checked at once
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        objective(model, model, *batch)
    operations = {event.key for event in profile.key_averages()}
    assert "aten::linear" in operations
    assert "aten::_local_scalar_dense" not in operations


@pytest.mark.parametrize("direction", ["clean-adversarial", "adversarial-clean"])
def test_trades_kl_in_both_directions(direction):
    objective = wb.TRADES(wb.PGD(), direction=direction)
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.2, 0.5, 0.3]])
    a, b = (p, q) if direction == "clean-adversarial" else (q, p)
    assert torch.allclose(objective.kl(p.log(), q.log()), (a * (a / b).log()).sum(1))


def test_trades_without_a_ball_is_standard_training(model, batch):
    loss, _ = wb.TRADES(wb.PGD(eps=0.0), beta=6.0)(model, model, *batch)
    assert torch.allclose(loss, F.cross_entropy(model(batch[0]), batch[1]))


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_trades_weighs_the_kl_by_beta(model, batch, beta):
    x, y = batch
    attack = wb.PGD(eps=0.3, steps=3)
    objective = wb.TRADES(attack, beta=beta)
    torch.manual_seed(1)
    loss, logits = objective(model, model, x, y)
    torch.manual_seed(1)
    clean = F.log_softmax(model(x), 1)
    x_adv = attack.maximise(model, x, lambda logits: objective.kl(clean.detach(), F.log_softmax(logits, 1)))
    kl = objective.kl(clean, F.log_softmax(model(x_adv), 1)).mean()
    assert float(kl.detach()) > 1e-3
    assert torch.allclose(logits, model(x))
    assert torch.allclose(loss, F.cross_entropy(model(x), y) + beta * kl, rtol=1e-6)


class Recorder:
    """An attack that moves nothing, and records the mode of the network and the loss at the images themselves."""

    name, eps, random_start = "recorder", 0.1, True

    def config(self):
        return {"attack": self.name}

    def __call__(self, model, x, y):
        return self.maximise(model, x, lambda logits: F.cross_entropy(logits, y, reduction="none"))

    def maximise(self, model, x, loss):
        self.modes = {module.training for module in model.modules()}
        self.losses = loss(model(x))
        return x


@pytest.mark.parametrize("make", [wb.AdversarialTraining, wb.TRADES, wb.MART])
def test_the_attack_meets_the_network_in_eval_mode_and_training_goes_on(make):
    """In eval mode the KL between an image and itself is 0; dropout and statistics of the batch would make it more."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 3)).train()
    before = model[2].running_mean.clone()
    attack = Recorder()
    make(attack)(model, model, torch.rand(8, 1, 2, 2), torch.randint(3, (8,)))
    assert attack.modes == {False}
    if make is wb.TRADES:
        assert float(attack.losses.detach().abs().max()) < 1e-6
    assert all(module.training for module in model.modules())
    assert not torch.equal(model[2].running_mean, before), "the loss itself is of the training mode"


def test_trades_raises_the_kl_itself(model, batch):
    torch.manual_seed(0)
    objective = wb.TRADES(wb.PGD(eps=0.3, steps=10), beta=1.0)
    loss, _ = objective(model, model, *batch)
    clean = F.log_softmax(model(batch[0]), 1)
    noise = F.normalize(torch.randn(8, 4), dim=1).view(8, 1, 2, 2) * 0.3
    random_kl = objective.kl(clean, F.log_softmax(model((batch[0] + noise).clamp(0, 1)), 1)).mean()
    assert bool(loss > F.cross_entropy(model(batch[0]), batch[1]) + random_kl)


@pytest.mark.parametrize("direction", ["clean-adversarial", "adversarial-clean"])
def test_trades_gradient_is_finite_when_the_softmax_saturates(model, batch, direction):
    with torch.no_grad():
        model[1].weight *= 1e4
    loss, _ = wb.TRADES(wb.PGD(eps=0.5), direction=direction)(model, model, *batch)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert bool(torch.isfinite(model[1].weight.grad).all())


def test_trades_needs_a_random_start():
    with pytest.raises(wb.UsageError, match="random_start"):
        wb.TRADES(wb.PGD(random_start=False))


def test_mart_is_its_formula(model, batch):
    model, (x, y) = model.double(), (batch[0].double(), batch[1])
    attack = wb.PGD(eps=0.3, random_start=False)
    loss, logits = wb.MART(attack, beta=3.0)(model, model, x, y)
    assert torch.equal(logits, model(x))
    p, q = model(x).softmax(1), model(attack(model, x, y)).softmax(1)
    expected = 0.0
    for i, label in enumerate(y.tolist()):
        wrong = max(float(q[i, k].detach()) for k in range(3) if k != label)
        kl = (p[i] * (p[i] / q[i]).log()).sum()
        expected += -q[i, label].log() - math.log(1.0001 - wrong) + 3.0 * (1 - p[i, label]) * kl
    assert torch.allclose(loss, expected / len(y))


def test_mart_is_finite_when_the_softmax_saturates(model, batch):
    with torch.no_grad():
        model[1].weight *= 1e4
    loss, _ = wb.MART(wb.PGD(eps=0.5))(model, model, *batch)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert bool(torch.isfinite(model[1].weight.grad).all())


def test_gaussian_noise_has_expected_length_eps():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x), 2, requires_grad=True)

    x = torch.zeros(500, 3, 8, 8)
    wb.GaussianNoise(2.0)(Spy(), Spy(), x, torch.zeros(500, dtype=torch.long))
    assert float(seen[0].flatten(1).norm(dim=1).square().mean()) == pytest.approx(4.0, rel=0.02)


def test_an_objective_by_its_name():
    made = [make_objective(ObjectiveConfig(name, eps=0.25, attack_steps=3, beta=2.0, gamma=0.1)) for name in OBJECTIVES]
    attack = wb.PGD(0.25, "l2", 3)
    expected = [wb.Standard(), wb.AdversarialTraining(attack), wb.TRADES(attack, 2.0), wb.MART(attack, 2.0)]
    expected += [wb.AWP(expected[1], 0.1), wb.AWP(expected[2], 0.1), wb.FARE(attack)]
    watched = wb.PGD(0.25, "l2", 10)
    expected += [wb.NFGSM(watched), wb.ATTA(watched, 3), wb.FreeTraining(watched, 3), wb.GaussianNoise(0.25)]
    assert [o.config() for o in made] == [o.config() for o in expected]
    assert [o.config()["name"] for o in made] == [{"trades-awp": "awp"}.get(name, name) for name in OBJECTIVES]
    assert made[5].config()["objective"] == "trades"
    with pytest.raises(wb.UsageError, match=r"objective='trade' is unknown.*did you mean 'trades'"):
        make_objective(ObjectiveConfig("trade"))


def test_the_defaults_of_a_recipe_are_those_of_the_library():
    assert wb.TRADES(wb.PGD()).beta == ObjectiveConfig().beta
    assert wb.AWP(wb.TRADES(wb.PGD())).gamma == ObjectiveConfig().gamma
    assert (wb.PGD().norm, wb.PGD().steps) == (ObjectiveConfig().norm, ObjectiveConfig().attack_steps)
