"""torch.compile of a training changes nothing but rounding."""

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.training import compiling

ATTACK = wb.PGD(0.3, steps=1)
SHORT = {"epochs": 1, "batch_size": 32, "watch": 0, "progress": False, "precision": "fp32", "augment": "none"}


def network():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(1, 16, 3, 2, padding=1, bias=False), nn.BatchNorm2d(16)
    return nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))


def trained(data, objective, **settings):
    run = wb.fit(network(), data, objective, **{**SHORT, **settings})
    return run, torch.cat([p.flatten() for p in run.model.parameters()]).detach()


@pytest.fixture(scope="module")
def data():
    return wb.load_dataset("digits").take(64, 8)


@pytest.mark.slow
@pytest.mark.skipif(not compiling.has_compiler(), reason="no C++ compiler")
def test_a_compiled_training_is_the_eager_one_up_to_rounding(data):
    objective = wb.AdversarialTraining(ATTACK)
    eager, weights = trained(data, objective)
    start = torch.cat([p.flatten() for p in network().parameters()]).detach()
    fast, compiled = trained(data, objective, compile=True)
    assert fast.config["compile"] is True
    assert fast.history[0]["loss"] == pytest.approx(eager.history[0]["loss"], rel=1e-5)
    moved = (weights - start).norm()
    assert float((compiled - weights).norm() / moved) < 1e-4
    assert torch.equal(fast.model(torch.zeros(1, 1, 8, 8)), fast.model.eval()(torch.zeros(1, 1, 8, 8)))


@pytest.mark.parametrize(
    "objective",
    [wb.Standard(), wb.AdversarialTraining(ATTACK), wb.TRADES(ATTACK), wb.MART(ATTACK), wb.GaussianNoise(0.3)],
    ids=str,
)
def test_network_and_attacked_copy_are_what_is_compiled(data, objective, monkeypatch):
    """With a stand-in for the compiler, which counts the calls of what it was given."""
    given, calls = [], []

    class StandIn(nn.Module):
        def __init__(self, inside):
            super().__init__()
            given.append(inside)
            self.inside = inside

        def forward(self, x):
            calls.append(self.inside)
            return self.inside(x)

    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    monkeypatch.setattr(torch, "compile", StandIn)
    run, weights = trained(data, objective, compile=True)
    assert run.model in given
    assert calls.count(run.model) >= 2
    if objective.attack is not None:
        copies = [module for module in given if module is not run.model]
        assert len(copies) == 1
        assert calls.count(copies[0]) >= 2
    monkeypatch.undo()
    assert torch.equal(trained(data, objective)[1], weights)


def test_what_cannot_be_compiled_is_refused(data, monkeypatch):
    with pytest.raises(wb.UsageError, match="compile=True cannot be honoured with objective='awp'"):
        trained(data, wb.AWP(wb.AdversarialTraining(ATTACK)), compile=True)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    with pytest.raises(wb.UsageError, match=r"compile=True needs a C\+\+ compiler"):
        trained(data, wb.Standard(), compile=True)
