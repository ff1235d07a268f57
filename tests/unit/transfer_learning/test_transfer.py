import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.transfer_learning.modes import trained_modules

SHORT = {"epochs": 2, "batch_size": 64, "progress": False, "lr": 0.1}


def moved(model, run):
    before, after = model.state_dict(), run.model.state_dict()
    return {k for k in after if not k.startswith("head.") and not torch.equal(after[k], before[k])}


@pytest.fixture
def source():
    model = wb.create_model("resnet18", 10, width=2, in_channels=1, seed=0)
    model.set_normalisation([0.3], [0.4])
    return model.eval()


LAST = {f"backbone.layer4.1.bn2.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


@pytest.mark.parametrize("mode", ["linear", 0, 1, 2])
def test_what_a_mode_does_not_train_does_not_move(source, digits, mode):
    before = copy.deepcopy(source.state_dict())
    run = wb.finetune(source, digits, mode, **SHORT)
    assert all(torch.equal(v, before[k]) for k, v in source.state_dict().items())
    assert run.model.head.weight.shape == (10, 16)
    assert torch.equal(run.model.mean, source.mean)
    assert all(p.requires_grad for p in run.model.parameters())
    got = moved(source, run)
    norms = {
        f"{name}.{key}"
        for name, module in source.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key in module.state_dict()
    }
    if mode == "linear":
        assert got == set()
    elif mode == 0:
        assert got == LAST
    elif mode == 1:
        assert got == norms
    else:
        assert got == {k for k in before if k.startswith("backbone.")}
    assert not torch.equal(run.model.head.weight, source.head.weight)


def test_mode_0_names_the_batch_norm_before_the_classifier(source):
    assert trained_modules(source, 0, (1, 8, 8)) == ["backbone.layer4.1.bn2", "head"]
    small = wb.create_model("resnet10", 10, width=2, in_channels=1)  # its last block has a shortcut with a BN
    assert trained_modules(small, 0, (1, 8, 8)) == ["backbone.layer4.0.bn2", "head"]
    deep = wb.create_model("resnet50", 10, width=2, in_channels=1)
    assert trained_modules(deep, 0, (1, 8, 8)) == ["backbone.layer4.2.bn3", "head"]


def test_without_batch_norm_the_other_norms_are_trained_and_it_is_said(digits):
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


def test_finetuned_run_is_read_back(source, digits, tmp_path):
    run = wb.finetune(source, digits, 0, tmp_path / "run", **SHORT)
    again = wb.load_model(tmp_path / "run")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again(x), run.model(x))


def test_a_source_without_normalisation_stays_without(digits):
    source = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    assert wb.finetune(source, digits, "linear", **SHORT).model.mean is None


def test_another_source_in_the_same_folder_is_refused(source, digits, tmp_path):
    wb.finetune(source, digits, "linear", tmp_path / "run", **SHORT)
    other = wb.create_model("resnet18", 10, width=2, in_channels=1, seed=9)
    with pytest.raises(wb.UsageError, match=r"finetune\.source"):
        wb.finetune(other, digits, "linear", tmp_path / "run", **SHORT)


def test_wrong_kinds(source, digits):
    for models, targets in (([source], [digits]), ({"a": source}, "digits")):
        with pytest.raises(TypeError, match="models must be a dict"):
            wb.transfer(models, targets)


def test_table(source, digits):
    source.input_shape = (1, 12, 12)
    table = wb.transfer(
        {"a": source, "b": source}, ["digits", replace(digits, name="few digits")], "linear", seeds=[0, 1], **SHORT
    )
    frame = table.to_frame()
    assert len(frame) == 8
    assert set(frame.columns) == {
        "model",
        "target",
        "mode",
        "seed",
        "accuracy",
        "low",
        "high",
        "mean_per_class",
        "metric",
        "n",
        "lr",
    }
    assert sorted(set(frame["n"])) == [100, 360]
    summary = table.summary()
    row = summary.iloc[0]
    values = frame["accuracy"][:2]
    assert row["accuracy"] == pytest.approx(values.mean())
    # Two values: the t interval with one degree of freedom, 12.706 * |a - b| / 2.
    assert row["half_width"] == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2, rel=1e-4)
    assert "digits" in str(table)


def test_features_of_either_split(source, digits):
    x, y = wb.extract_features(source, digits, "test", batch_size=32)
    assert x.shape == (100, 16)
    assert y.tolist() == [digits.test[i][1] for i in range(100)]
    assert torch.allclose(x[:5], source.features(torch.stack([digits.test[i][0] for i in range(5)])), atol=1e-5)
