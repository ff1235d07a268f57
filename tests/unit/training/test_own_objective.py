"""A user's own objective: checked before training, and its attack runs on the fast copy."""

import pytest
import torch
import torch.nn.functional as F
from torch import fx

import waterbed as wb
from waterbed.training.objective import check_loss

SHORT = {"epochs": 1, "batch_size": 64, "watch": 20, "progress": False, "precision": "fp32"}


def new_model():
    return wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)


class Mixed:
    """Half the images attacked, half as they are: an objective in twenty lines."""

    def __init__(self, attack, share=0.5, returns=None):
        self.attack, self.share, self.returns, self.attacked = attack, share, returns, []

    def __call__(self, model, forward, x, y):
        self.attacked.append(model)
        half = int(self.share * len(x))
        logits = forward(torch.cat([self.attack(model, x[:half], y[:half]), x[half:]]))
        loss = F.cross_entropy(logits, y)
        return (loss, logits) if self.returns is None else self.returns(model, x, loss, logits)

    def config(self):
        return {"name": "mixed", "share": self.share, **{f"attack_{k}": v for k, v in self.attack.config().items()}}


class OnTheNetwork(Mixed):
    attacks_copy = False


class Subclass(wb.AdversarialTraining):
    pass


ATTACK = wb.PGD(eps=0.3, steps=1)


def test_it_trains_is_recorded_and_watched(digits, tmp_path):
    objective = Mixed(ATTACK)
    run = wb.fit(new_model(), digits, objective, tmp_path / "run", **SHORT)
    assert run.config["objective"]["name"] == "mixed"
    assert "test_robust" in run.history[0]
    assert all(isinstance(model, fx.GraphModule) for model in objective.attacked)


def test_it_may_ask_for_the_network_itself(digits):
    objective, model = OnTheNetwork(ATTACK), new_model()
    wb.fit(model, digits, objective, **SHORT)
    assert all(attacked is model for attacked in objective.attacked)


def test_a_subclass_trains_as_its_class_does(digits):
    ours, own = (
        wb.fit(new_model(), digits, make(ATTACK), **SHORT).model for make in (wb.AdversarialTraining, Subclass)
    )
    for p, q in zip(ours.state_dict().values(), own.state_dict().values(), strict=True):
        assert torch.equal(p, q)


def test_without_an_attribute_attack_accuracies_are_clean(digits):
    class Plain:
        def __call__(self, model, forward, x, y):
            logits = forward(x)
            return F.cross_entropy(logits, y, label_smoothing=0.1), logits

        def config(self):
            return {"name": "smoothed"}

    record = wb.fit(new_model(), digits, Plain(), **SHORT).history[0]
    assert "test_clean" in record
    assert "test_robust" not in record


class NoConfig:
    def __call__(self, model, forward, x, y):
        return forward(x).sum(), forward(x)


class Nameless(NoConfig):
    def config(self):
        return {}


class WrongAttack(NoConfig):
    attack = 0.5

    def config(self):
        return {"name": "wrong"}


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (wb.Standard, r"objective=Standard is a class; write Standard\(\.\.\.\)"),
        (F.cross_entropy, "objective=<function cross_entropy.*lacks config; it must be an objective"),
        (NoConfig(), "lacks config"),
        (Nameless(), r"objective\.config\(\) returned {}; return a dict with its name"),
        (WrongAttack(), r"objective\.attack=0\.5 lacks name, config, __call__"),
    ],
)
def test_what_is_no_objective_is_refused_before_training(digits, tmp_path, objective, message):
    with pytest.raises(TypeError, match=message):
        wb.fit(new_model(), digits, objective, tmp_path / "run", **SHORT)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (lambda model, x, loss, logits: loss, r"returned Tensor; return \(loss, logits\)"),
        (lambda model, x, loss, logits: (logits[:, 0], logits), r"shapes \(64,\) and \(64, 10\) for 64 images"),
        (lambda model, x, loss, logits: (model(x).mean(), logits), r"no gradient; compute it from forward\(x\)"),
    ],
)
def test_what_it_returns_is_checked(digits, returns, message):
    with pytest.raises((wb.UsageError, TypeError), match=message):
        wb.fit(new_model(), digits, Mixed(ATTACK, returns=returns), **SHORT)


def test_a_loss_and_logits_pass():
    loss, logits = torch.ones((), requires_grad=True), torch.zeros(3, 2)
    assert check_loss((loss, logits), torch.zeros(3)) == (loss, logits)
