"""FARE: the distance to the pretrained network's features, the head beside it, and resuming."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import waterbed as wb
from waterbed.__main__ import main
from waterbed.training.feature_matching import _Features
from waterbed.training.run_folder import Run

ATTACK = wb.PGD(eps=0.3, steps=2)
SHORT = {"epochs": 1, "batch_size": 64, "watch": 0, "progress": False, "precision": "fp32", "lr": 0.01}


def new_model(seed=0):
    return wb.create_model("resnet10", 10, width=2, in_channels=1, seed=seed)


class Brighter(wb.PGD):
    """An attack without chance."""

    def maximise(self, model, x, loss):
        assert loss(model(x)).shape == (len(x),)
        return (x + 0.2).clamp(0, 1)


def test_it_is_its_formula():
    torch.manual_seed(0)
    pretrained = new_model().double()
    objective = wb.FARE(Brighter(0.3)).started_from(pretrained)
    model = new_model(seed=1).double().eval()
    x, y = torch.rand(5, 1, 8, 8, dtype=torch.float64), torch.randint(10, (5,))
    loss, logits = objective(model, model, x, y)
    moved = (x + 0.2).clamp(0, 1)
    expected = 0.0
    for i in range(5):
        target = pretrained.eval().features(x[i : i + 1])
        expected += ((model.features(moved[i : i + 1]) - target) ** 2).sum() / 5
        expected += F.cross_entropy(model(moved[i : i + 1]), y[i : i + 1]) / 5
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, model(moved))


def test_labels_reach_the_head_alone():
    objective, model = wb.FARE(Brighter(0.3)).started_from(new_model()), new_model(seed=1).eval()
    x, y = torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.long)
    gradients = []
    for labels in (y, y + 1):
        model.zero_grad()
        objective(model, model, x, labels)[0].backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name in gradients[0]:
        assert torch.equal(gradients[0][name], gradients[1][name]) == (not name.startswith("head.")), name
    model.head.requires_grad_(False)
    losses = [float(objective(model, model, x, labels)[0].detach()) for labels in (y, y + 1)]
    assert losses[0] == losses[1]


def test_the_attack_ascends_the_distance_also_on_the_fast_copy(digits):
    attacked = []

    class Watching(wb.PGD):
        def maximise(self, model, x, loss):
            attacked.append(model.network)
            x_adv = super().maximise(model, x, loss)
            assert float(loss(model(x_adv)).sum()) > float(loss(model(x)).sum())
            return x_adv

    wb.fit(new_model(), digits, wb.FARE(Watching(eps=0.3, steps=3)), **SHORT)
    assert attacked
    assert all(isinstance(model, fx.GraphModule) for model in attacked)
    attacked.clear()
    model = new_model()
    model.head = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 10))  # torch.fx looks inside it
    wb.fit(model, digits, wb.FARE(Watching(eps=0.3, steps=3)), **SHORT)
    assert all(network is model for network in attacked)


def test_features_of_a_copy_are_those_of_the_network():
    model, x = new_model().eval(), torch.rand(3, 1, 8, 8)
    assert torch.equal(_Features(model)(x), model.features(x))


def test_a_kept_head_stays_and_attacked_features_come_closer(digits):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16))
    settings = {**SHORT, "augment": "none", "epochs": 5}
    pretrained = wb.fit(
        wb.FeatureClassifier(backbone, nn.Linear(16, 10)), digits, **{**settings, "epochs": 10, "lr": 0.1}
    ).model
    pretrained.head.requires_grad_(False)
    before = copy.deepcopy(pretrained)
    settings |= {"optimizer": "adamw", "lr": 0.003, "epochs": 15}
    run = wb.fit(pretrained, digits, wb.FARE(wb.PGD(eps=0.5, steps=3)), **settings)
    assert torch.equal(run.model.head.weight, before.head.weight)
    assert not torch.equal(run.model.backbone[1].weight, before.backbone[1].weight)
    objective, (x, y) = wb.FARE(wb.PGD(eps=0.5, steps=5)).started_from(before), wb.stack(digits.test, 50)
    torch.manual_seed(0)
    losses = [float(objective(m.eval(), m, x, y)[0].detach()) for m in (before, run.model)]
    assert losses[1] < 0.98 * losses[0], losses


def test_a_run_resumes_from_the_same_network_only(digits, tmp_path):
    settings = {**SHORT, "epochs": 2}
    whole = wb.fit(new_model(), digits, wb.FARE(ATTACK), **settings)

    class Stop:
        def on_epoch_end(self, job):
            if job.epoch == 1:
                raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        wb.fit(new_model(), digits, wb.FARE(ATTACK), out, callbacks=[Stop()], **settings)
    with pytest.raises(wb.UsageError, match=r"objective\.original="):
        wb.fit(new_model(seed=1), digits, wb.FARE(ATTACK), out, **settings)
    run = wb.fit(new_model(), digits, wb.FARE(ATTACK), out, **settings)
    assert all(torch.equal(t, run.model.state_dict()[name]) for name, t in whole.model.state_dict().items())
    assert run.config["objective"]["name"] == "feature"
    assert len(run.config["objective"]["original"]) == 16


@pytest.mark.parametrize("mode", [1, 2])
def test_fine_tuning_gives_a_new_head_its_labels(digits, tmp_path, mode):
    run = wb.finetune(new_model(), digits, mode, tmp_path / "run", objective=wb.FARE(ATTACK), **SHORT)
    assert Run.load(tmp_path / "run").config["objective"]["name"] == "feature"
    again = wb.finetune(new_model(), digits, mode, tmp_path / "run", objective=wb.FARE(ATTACK), **SHORT)
    assert again.history == run.history


def test_what_it_needs_is_said(digits):
    with pytest.raises(wb.UsageError, match="leaves FARE at a point of zero gradient"):
        wb.FARE(wb.PGD(random_start=False))
    with pytest.raises(wb.UsageError, match="FARE ascends the distance of features"):
        wb.FARE(wb.PGD(loss="margin"))
    with pytest.raises(TypeError, match=r"lacks .*maximise"):
        wb.FARE(lambda model, x, y: x)
    with pytest.raises(TypeError, match=r"Sequential has no features and head.*wb\.wrap\(model\)"):
        wb.fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits, wb.FARE(ATTACK), **SHORT)
    with pytest.raises(wb.UsageError, match=r"no weight of the backbone requires a gradient.*mode=1 or 2"):
        wb.finetune(new_model(), digits, "linear", cache="never", objective=wb.FARE(ATTACK), **SHORT)
    with pytest.raises(wb.UsageError, match="started_from"):
        wb.FARE(ATTACK)(new_model(), new_model(), *wb.stack(digits.test, 2))


def test_the_command_line_asks_for_a_pretrained_network(capsys):
    assert main(["train", "digits", "--out", "nowhere", "--objective", "feature"]) != 0
    assert "--objective feature needs a pretrained network" in capsys.readouterr().err
