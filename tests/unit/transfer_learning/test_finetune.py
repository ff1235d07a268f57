"""finetune: what each mode trains, with which recipe, at which learning rate."""

import copy
import importlib
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.data.images import TensorImages
from waterbed.errors import DivergenceError
from waterbed.transfer_learning.finetune import _held_out_accuracies
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk
from waterbed.transfer_learning.modes import trained_modules, with_new_head
from waterbed.transfer_learning.protocols import FIXED
from waterbed.transfer_learning.search import DIVERGED, GRIDS, WHOLE_NETWORK_GRIDS, one_by_one
from waterbed.transfer_learning.settings import FINETUNING

SHORT = {"epochs": 2, "batch_size": 64, "lr": 0.1}


def moved(model, run):
    before, after = model.state_dict(), run.model.state_dict()
    return {k for k in after if not k.startswith("head.") and not torch.equal(after[k], before[k])}


LAST = {f"backbone.layer4.1.bn2.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


@pytest.mark.parametrize("mode", ["linear", 0, 1, 2])
def test_what_a_mode_does_not_train_does_not_move(source, digits, mode):
    before = copy.deepcopy(source.state_dict())
    run = wb.finetune(source, digits, mode, **SHORT)
    assert all(torch.equal(v, before[k]) for k, v in source.state_dict().items())
    assert run.model.head.weight.shape == (10, 32)
    assert torch.equal(run.model.mean, source.mean)
    assert all(p.requires_grad for p in run.model.parameters())
    norms = {
        f"{name}.{key}"
        for name, module in source.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key in module.state_dict()
    }
    everything = {k for k in before if k.startswith("backbone.")}
    assert moved(source, run) == {"linear": set(), 0: LAST, 1: norms, 2: everything}[mode]
    assert not torch.equal(run.model.head.weight, source.head.weight)


def test_mode_0_names_the_batch_norm_before_the_classifier(source):
    assert trained_modules(source, 0, (1, 8, 8)) == ["backbone.layer4.1.bn2", "head"]
    small = wb.create_model("resnet10", 10, width=2, in_channels=1)  # its last block has a shortcut with a BN
    assert trained_modules(small, 0, (1, 8, 8)) == ["backbone.layer4.0.bn2", "head"]
    deep = wb.create_model("resnet50", 10, width=2, in_channels=1)
    assert trained_modules(deep, 0, (1, 8, 8)) == ["backbone.layer4.2.bn3", "head"]


def test_only_what_is_trained_requires_gradients(source, digits):
    tuned = with_new_head(source, digits, ["backbone.layer4.1.bn2", "head"], seed=0)
    names = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    assert names == {f"{layer}.{n}" for layer in ("backbone.layer4.1.bn2", "head") for n in ("weight", "bias")}


def test_without_batch_norm_the_other_norms_are_trained_and_named(digits):
    backbone = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.LayerNorm(8)
    )
    model = wb.FeatureClassifier(backbone, nn.Linear(8, 5))
    run = wb.finetune(model, digits, 0, **SHORT)
    assert run.config["finetune"]["trained"] == ["backbone.5", "head"]
    bare = wb.FeatureClassifier(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(wb.UsageError, match="has none"):
        wb.finetune(bare, digits, 0, **SHORT)
    assert wb.finetune(bare, digits, "linear", **SHORT).model.head.out_features == 10


def test_a_finetuned_run_is_read_back(source, digits, tmp_path):
    run = wb.finetune(source, digits, 0, tmp_path / "run", **SHORT)
    again = wb.load_model(tmp_path / "run")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again(x), run.model(x))


def test_a_source_without_normalisation_stays_without(digits):
    source = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    assert wb.finetune(source, digits, "linear", **SHORT).model.mean is None


def test_another_source_in_the_same_folder_is_refused(source, digits, tmp_path):
    wb.finetune(source, digits, "linear", tmp_path / "run", **SHORT)
    other = wb.create_model("resnet18", 10, width=4, in_channels=1, seed=9)
    with pytest.raises(wb.UsageError, match=r"finetune\.source"):
        wb.finetune(other, digits, "linear", tmp_path / "run", **SHORT)


@pytest.mark.parametrize("mode", ["linear", 2])
def test_the_recipe_is_fine_tuning_s_own_or_the_config_s(digits, mode):
    source = wb.FeatureClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), nn.Linear(8, 4))
    run = wb.finetune(source, digits.take(64, 10), mode, lr=0.1, precision="fp32")
    assert {k: run.config[k] for k in FINETUNING.record()} == FINETUNING.record()
    config = wb.TrainConfig(epochs=1, lr=0.05, momentum=0.5, augment="none", watch=0, progress=False)
    run = wb.finetune(source, digits, mode, config=config, batch_size=32)
    assert {k: run.config[k] for k in config.record()} == {**config.record(), "batch_size": 32}
    assert "search" not in run.config["finetune"], "the config has a rate"
    run = wb.finetune(source, digits, mode, config=config, lr=(0.01, 0.1))
    assert run.config["finetune"]["search"]["rates"] == [0.01, 0.1]


def test_a_default_that_deviates_is_declared_once():
    """Neither finetune nor transfer has a recipe's setting in its signature but lr and
    weight_decay, whose None means a search."""
    import inspect

    names = {field.name for field in fields(wb.TrainConfig)}
    for function in (wb.finetune, wb.transfer):
        assert names & set(inspect.signature(function).parameters) <= {"lr", "weight_decay", "validation", "progress"}


def test_misspelt_settings_are_refused(source, digits):
    with pytest.raises(wb.UsageError, match=r"epohcs.*did you mean 'epochs'"):
        wb.transfer({"a": source}, [digits], epohcs=2)
    with pytest.raises(wb.UsageError, match="banana"):
        wb.finetune(source, digits, 1, banana=1)
    with pytest.raises(wb.UsageError, match="did you mean 'views'"):
        wb.finetune(source, digits, 0, vews=2)
    with pytest.raises(wb.UsageError, match=r"momentum=1\.5"):
        wb.transfer({"a": source}, ["no such data"], momentum=1.5)


def test_the_learning_rate_is_chosen_on_held_out_training_images(source, digits):
    # Labels of the test set that are all wrong: they must not matter.
    wrong = TensorImages(digits.test.images, (digits.test.labels + 1) % 10)
    runs = [
        wb.finetune(source, data, "linear", **{**SHORT, "epochs": 5, "lr": (1e-6, 0.3)})
        for data in (digits, replace(digits, test=wrong))
    ]
    assert [run.config["lr"] for run in runs] == [0.3, 0.3]
    assert torch.equal(runs[0].model.head.weight, runs[1].model.head.weight)
    slow = wb.finetune(source, digits, 1, **{**SHORT, "epochs": 1, "lr": (1e-6, 0.1)})
    assert slow.config["lr"] == 0.1
    with pytest.raises(wb.UsageError, match="lr is empty"):
        wb.finetune(source, digits, "linear", lr=())


def test_the_rate_of_a_whole_network_is_searched_briefly_and_once(source, digits, tmp_path, monkeypatch):
    module = importlib.import_module("waterbed.transfer_learning.whole_network")
    trainings, fit = [], module.fit

    def counted(*args, config, **more):
        trainings.append((config.lr, config.epochs))
        return fit(*args, config=config, **more)

    monkeypatch.setattr(module, "fit", counted)
    settings = {**SHORT, "epochs": 8, "lr": (1e-6, 0.1, 1e6)}
    run = wb.finetune(source, digits, 2, tmp_path / "run", **settings)
    assert trainings == [(1e-6, 2), (0.1, 2), (1e6, 2), (0.1, 8)]
    assert run.config["lr"] == 0.1, "a rate that diverges loses"
    assert run.config["finetune"]["search"] == {
        "rates": [1e-6, 0.1, 1e6],
        "weight_decays": [5e-4],
        "epochs": 2,
    }
    again = wb.finetune(source, digits, 2, tmp_path / "run", **settings)
    assert len(trainings) == 5, "not searched again"
    assert again.history == run.history
    with pytest.raises(wb.UsageError, match="another out="):
        wb.finetune(source, digits, 2, tmp_path / "run", **settings, search_epochs=1)


def test_every_mode_chooses_rate_and_decay(source, digits):
    for mode, grid, epochs in ((1, WHOLE_NETWORK_GRIDS["sgd"], 1), (0, GRIDS["sgd"], 2), ("linear", GRIDS["sgd"], 2)):
        run = wb.finetune(source, digits.take(60, 10), mode, epochs=2, batch_size=32)
        record = run.config["finetune"]
        assert record["search"] == {
            "rates": list(grid.rates),
            "weight_decays": list(grid.decays),
            "epochs": epochs,
        }
        assert (record["protocol"], record["solver"]) == ("tuned", "sgd")
        assert run.config["lr"] in grid.rates or mode != 1
    kept = wb.finetune(source, digits, 0, **SHORT)
    assert (kept.config["lr"], kept.config["weight_decay"]) == (0.1, 5e-4)
    assert "search" not in kept.config["finetune"], "a rate that is given leaves the decay as it is"
    several = wb.finetune(source, digits, 0, **SHORT, weight_decay=(1e3, 0.0))
    assert several.config["weight_decay"] == 0
    assert several.config["finetune"]["edge"] == ""


def test_the_linear_mode_is_logistic_by_default(source, digits):
    run = wb.finetune(source, digits, "linear")
    assert (run.config["finetune"]["solver"], run.config["finetune"]["protocol"]) == ("logistic", "tuned")
    for how in ({"epochs": 2}, {"lr": 0.1}, {"weight_decay": 0.0}, {"config": replace(FINETUNING, epochs=1)}):
        run = wb.finetune(source, digits.take(60, 10), "linear", **how)
        assert run.config["finetune"]["solver"] == "sgd", how
    with pytest.raises(wb.UsageError, match="solver='svm' is unknown"):
        wb.finetune(source, digits, "linear", solver="svm")


@pytest.mark.parametrize("mode", ["linear", 0, 1])
def test_the_paper_s_protocol_is_its_settings(source, digits, mode):
    data = digits.take(20, 10)
    run = wb.finetune(source, data, mode, protocol="paper", seed=2)
    recipe = replace(FIXED["paper"], seed=2)
    assert {name: run.config[name] for name in recipe.record()} == recipe.record()
    assert (run.config["finetune"]["protocol"], run.config["finetune"]["solver"]) == ("paper", "sgd")
    assert "search" not in run.config["finetune"]
    assert len(run.history) == 120
    for how in ({"epochs": 5}, {"lr": 0.1}, {"weight_decay": 0.0}, {"config": recipe}, {"solver": "logistic"}):
        with pytest.raises(wb.UsageError, match="contradicts protocol='paper'"):
            wb.finetune(source, data, mode, protocol="paper", **how)


def test_the_search_trains_on_none_of_its_held_out_images(source, digits, monkeypatch):
    seen = []

    class Network:
        data = digits

        def fit(self, config, *, indices):
            if config.lr > 1:
                raise DivergenceError("the loss is not finite")
            seen.append(("fit", config.lr, config.weight_decay, config.epochs, config.watch, indices))
            return SimpleNamespace(model=None)

        def accuracy(self, model, indices):
            seen.append(("accuracy", indices))
            return 50.0

        def held_out_accuracies(self, *args):
            return one_by_one(self, *args)

    recipe, pairs = replace(FINETUNING, watch=1), [(0.1, 0.0), (9.0, 0.0), (0.1, 1e-3)]
    assert _held_out_accuracies(Network(), recipe, 0.1, pairs, 3) == [50.0, DIVERGED, 50.0]
    assert [s[1:5] for s in seen if s[0] == "fit"] == [(0.1, 0.0, 3, 0), (0.1, 1e-3, 3, 0)]
    trained, held = seen[0][-1], seen[1][-1]
    assert len(held) == round(0.1 * len(digits.train))
    assert sorted([*trained.tolist(), *held.tolist()]) == list(range(len(digits.train)))
    kept = []
    for name in ("fit", "accuracy"):
        usual = getattr(FrozenTrunk, name)
        monkeypatch.setattr(
            FrozenTrunk, name, lambda *args, usual=usual, **more: kept.append((args, more)) or usual(*args, **more)
        )
    wb.finetune(source, digits, 0, epochs=1, lr=(0.1, 0.3))
    indices = [more.get("indices", args[-1]) for args, more in kept]
    assert [len(part) for part in indices[:4]] == [len(trained), len(held)] * 2
    assert not set(indices[0].tolist()) & set(indices[1].tolist())
