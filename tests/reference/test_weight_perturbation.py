"""AWP against the step written out in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import waterbed as wb
from waterbed.training.objective_config import ObjectiveConfig

GAMMA = 0.05


class Shift(wb.PGD):
    """An attack without chance whose images depend on the network."""

    def __call__(self, model, x, y):
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
        return (x + 0.1 * gradient.sign()).clamp(0, 1).detach()

    def maximise(self, model, x, loss):
        return (x + 0.1 * (x > 0.5)).clamp(0, 1)


def new_model():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
    return nn.Sequential(*layers).double()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 1, 4, 4, dtype=torch.float64), torch.randint(3, (6,))


def robust_loss(kind, model, x, x_adv, y):
    """The loss of each objective, written out."""
    if kind == "adversarial":
        return F.cross_entropy(model(x_adv), y)
    clean, adversarial = model(torch.cat([x, x_adv])).chunk(2)
    p, q = clean.softmax(1), adversarial.softmax(1)
    return F.cross_entropy(clean, y) + 2.0 * (p * (p / q).log()).sum(1).mean()


def written_out(kind, model, x, y):
    """Gradients that train: the weights are moved to w + v, and moved back afterwards."""
    attack = Shift(0.1)
    with torch.no_grad():
        model.eval()
    x_adv = attack(model, x, y) if kind == "adversarial" else attack.maximise(model, x, None)
    model.train()
    proxy = copy.deepcopy(model)
    gradients = torch.autograd.grad(robust_loss(kind, proxy, x, x_adv, y), list(proxy.parameters()))
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        if parameter.ndim > 1:
            v = GAMMA * parameter.detach().square().sum().sqrt() * gradient / gradient.square().sum().sqrt()
            parameter.data += v
    loss = robust_loss(kind, model, x, x_adv, y)
    return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("kind", ["adversarial", "trades"])
def test_the_step_is_the_written_out_one_and_the_weights_never_move(batch, kind):
    inner = wb.AdversarialTraining(Shift(0.1)) if kind == "adversarial" else wb.TRADES(Shift(0.1), beta=2.0)
    expected, reference = written_out(kind, reference_model := new_model(), *batch)
    model = new_model().train()
    before = {name: t.clone() for name, t in model.named_parameters()}
    loss, logits = wb.AWP(inner, GAMMA)(model, model, *batch)
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected)
    torch.testing.assert_close([p.grad for p in model.parameters()], list(reference))
    assert logits.shape == (6, 3)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):  # of the perturbed pass alone
        torch.testing.assert_close(model.state_dict()[name], reference_model.state_dict()[name])


def test_the_perturbation_has_the_size_of_its_layer_and_raises_the_loss(batch):
    model, (x, y) = new_model(), batch
    awp = wb.AWP(wb.AdversarialTraining(wb.PGD(0.3)), GAMMA)
    shift = awp.perturbation(model, lambda run: F.cross_entropy(run(x), y))
    assert [tuple(w.shape) for w in shift] == [(3, 1, 3, 3), (3, 12)], "norms and biases stay"
    for weight, v in shift.items():
        assert float(v.norm() / weight.detach().norm()) == pytest.approx(GAMMA)
    before = F.cross_entropy(model(x), y)
    for weight, v in shift.items():
        weight.data += v
    assert bool(F.cross_entropy(model(x), y) > before)


def test_frozen_and_dead_weights_stay(batch):
    model, (x, y) = new_model(), batch
    model[0].requires_grad_(False)
    awp = wb.AWP(wb.AdversarialTraining(wb.PGD(0.3)), GAMMA)
    assert list(awp.perturbation(model, lambda run: F.cross_entropy(run(x), y))) == [model[4].weight]
    (v,) = awp.perturbation(model, lambda run: 0 * run(x).sum()).values()
    assert torch.equal(v, torch.zeros_like(v))


@pytest.mark.parametrize("kind", ["adversarial", "trades"])
def test_without_size_it_is_the_objective_itself(batch, kind):
    inner = wb.AdversarialTraining(Shift(0.1)) if kind == "adversarial" else wb.TRADES(Shift(0.1))
    losses = []
    for objective in (inner, wb.AWP(inner, 0.0)):
        model = new_model().train()
        loss, _ = objective(model, model, *batch)
        loss.backward()
        losses.append([loss.detach(), *(p.grad for p in model.parameters()), *model.buffers()])
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_it_trains_and_is_recorded(digits, tmp_path):
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    objective = wb.AWP(wb.TRADES(wb.PGD(0.3, steps=1), beta=3.0))
    run = wb.fit(model, digits, objective, tmp_path / "run", epochs=1, batch_size=64, watch=20, progress=False)
    recorded = wb.Run.load(tmp_path / "run").config["objective"]
    assert (recorded["name"], recorded["objective"], recorded["beta"]) == ("awp", "trades", 3.0)
    assert recorded["gamma"] == ObjectiveConfig.gamma
    assert recorded["eps"] == 0.3
    assert "test_robust" in run.history[0]


def test_it_takes_what_it_can_take_apart():
    with pytest.raises(wb.UsageError, match="gamma=-1"):
        wb.AWP(wb.AdversarialTraining(wb.PGD()), -1)
    for other, match in ((wb.Standard(), "lacks adversarial, loss"), (wb.PGD(), r"config\(\) returned")):
        with pytest.raises(TypeError, match=match):
            wb.AWP(other)
