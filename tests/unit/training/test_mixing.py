"""Mixed and smoothed labels: what they are, which objectives take them, how accuracies count, and resuming."""

import signal

import pytest
import torch
import torch.nn.functional as F
from tests.unit.training.test_resume import same_end, stopping
from torch import nn
from torchvision.transforms import v2

import waterbed as wb
from waterbed.__main__ import main
from waterbed.data.mixing import mixing
from waterbed.errors import StoppedError
from waterbed.training.config import OF_LABELS, TrainConfig
from waterbed.training.dry_run import dry_run
from waterbed.training.run_folder import Run
from waterbed.training.state import Meter

SHORT = {"epochs": 2, "batch_size": 64, "watch": 0, "progress": False, "precision": "fp32"}
PGD = wb.PGD(eps=0.3, steps=1)
EVERYTHING = {
    "augment": v2.RandomAffine(10),
    "randaugment": 9,
    "color_jitter": 0.2,
    "rotation": 5.0,
    "mixup": 0.4,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
}


def new_model(seed=0):
    return wb.create_model("resnet10", 10, width=2, in_channels=1, seed=seed)


def batch(n=8):
    """Images of one grey each, its label in tenths."""
    y = torch.arange(n) % 10
    return (y / 10).view(n, 1, 1, 1).expand(n, 1, 8, 8).contiguous(), y


def test_mixup_mixes_labels_as_it_mixes_images():
    x, y = batch()
    shares = set()
    for _ in range(20):
        mixed, labels = mixing(TrainConfig(mixup=0.5), 10)(x, y)
        assert labels.shape == (8, 10)
        assert torch.allclose(labels.sum(1), torch.ones(8))
        # A pixel is the mean of the classes' grey, weighed by the label.
        assert torch.allclose(mixed, (labels @ (torch.arange(10) / 10)).view(8, 1, 1, 1).expand_as(mixed), atol=1e-6)
        share = labels[torch.arange(8), y]
        assert torch.allclose(share, share[0].expand(8)), "one share for a batch"
        assert torch.allclose(labels[torch.arange(8), y.roll(1)], 1 - share)
        shares.add(float(share[0]))
    assert len(shares) == 20


def test_cutmix_weighs_labels_by_area():
    x, y = batch()
    partly = 0
    for _ in range(20):
        mixed, labels = mixing(TrainConfig(cutmix=1.0), 10)(x, y)
        own = (mixed == x).flatten(1).double().mean(1)
        assert torch.allclose(labels[torch.arange(8), y].double(), own, atol=1e-6)
        partly += bool(0 < own[0] < 1)
    assert partly > 10


def test_with_both_every_batch_gets_one_of_them():
    x, y = batch()
    tenths = []
    for _ in range(40):
        mixed, _ = mixing(TrainConfig(mixup=1.0, cutmix=1.0), 10)(x, y)
        tenths.append(bool(((10 * mixed).round() - 10 * mixed).abs().max() < 1e-4))  # cutmix makes no new grey
    assert 5 < sum(tenths) < 35


def test_smoothing_spreads_labels_and_is_torchs():
    x, y = batch()
    same, labels = mixing(TrainConfig(label_smoothing=0.3), 10)(x, y)
    assert same is x
    assert torch.allclose(labels.max(1).values, torch.full((8,), 0.73))
    logits = torch.randn(8, 10)
    assert torch.allclose(F.cross_entropy(logits, labels), F.cross_entropy(logits, y, label_smoothing=0.3))
    images, plain = mixing(TrainConfig(), 10)(x, y)
    assert images is x
    assert plain is y


@pytest.mark.parametrize(
    "objective",
    [
        wb.Standard(),
        wb.GaussianNoise(0.3),
        wb.AdversarialTraining(PGD),
        wb.TRADES(PGD),
        wb.AWP(wb.TRADES(PGD)),
        wb.FARE(PGD),
    ],
    ids=lambda o: o.config()["name"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_objectives_that_take_them_train(digits, objective, precision):
    plain, soft = (
        wb.fit(new_model(), digits, objective, **{**SHORT, "precision": precision, "watch": 20}, **settings)
        for settings in ({}, {"mixup": 0.4, "label_smoothing": 0.1})
    )
    assert soft.record["loss"] != plain.record["loss"]
    assert 0 <= soft.record["train_accuracy"] <= 100
    assert {name: soft.config[name] for name in OF_LABELS} == {"mixup": 0.4, "cutmix": 0.0, "label_smoothing": 0.1}


class Own(wb.AdversarialTraining):
    soft_labels = False


@pytest.mark.parametrize("objective", [wb.MART(PGD), wb.AWP(wb.MART(PGD)), Own(PGD)], ids=["mart", "awp", "own"])
def test_objectives_that_do_not_say_so_before_training(digits, tmp_path, objective):
    for settings in ({"mixup": 0.2}, {"cutmix": 1.0}, {"label_smoothing": 0.1}):
        (name,) = settings
        message = f"{name}=.* makes labels probabilities .* objective '{objective.config()['name']}' needs one class"
        with pytest.raises(wb.UsageError, match=message):
            wb.fit(new_model(), digits, objective, tmp_path / "run", **SHORT, **settings)
        with pytest.raises(wb.UsageError, match=message):
            dry_run(new_model(), digits, objective, TrainConfig(**settings))
    assert not (tmp_path / "run").exists()


def test_pgd_ascends_the_loss_of_the_mixed_labels():
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.rand(6, 1, 8, 8), torch.arange(6)
    attack = wb.PGD(eps=0.1, steps=1, random_start=False)
    assert torch.allclose(attack(model, x, F.one_hot(y, 10).float()), attack(model, x, y), atol=1e-6)
    soft = torch.softmax(torch.randn(6, 10), 1)
    x_ = x.clone().requires_grad_()
    F.cross_entropy(model(x_), soft, reduction="sum").backward()
    step = x_.grad / x_.grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(attack(model, x, soft), (x + 0.1 * step).clamp(0, 1), atol=1e-6)
    restarted = wb.PGD(eps=0.1, steps=1, restarts=2)(model, x, soft)
    assert restarted.shape == x.shape
    double = attack(model.double(), x.double(), soft)
    assert double.dtype == torch.float64


def test_an_attack_on_classes_gets_the_one_of_largest_weight(digits):
    seen = []

    def watching(model, x, y):
        seen.append(y)
        return x

    attack = wb.as_attack(watching, name="watching")
    wb.fit(new_model(), digits, wb.AdversarialTraining(attack), **SHORT, mixup=0.2, label_smoothing=0.1)
    wb.fit(new_model(), digits, wb.AdversarialTraining(wb.PGD(0.3, steps=1, loss="margin")), **SHORT, mixup=0.2)
    assert all(y.dtype == torch.int64 and y.ndim == 1 for y in seen)
    with pytest.raises(TypeError, match="y must have integer labels"):
        wb.PGD(0.3, loss="margin")(new_model(), torch.rand(2, 1, 8, 8), torch.rand(2, 10))


def test_accuracy_counts_the_class_of_largest_weight():
    meter = Meter()
    logits = torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0], [3.0, 0.0, 0.0]])
    labels = torch.tensor([[0.7, 0.3, 0.0], [0.6, 0.4, 0.0], [0.0, 0.1, 0.9], [0.0, 0.0, 1.0]])
    meter.add(torch.tensor(1.0), logits, labels)
    assert meter.record() == {"loss": 1.0, "train_accuracy": 50.0}


def test_a_stopped_training_draws_on_where_it_was(digits, tmp_path):
    """In the middle of an epoch; images are changed one by one, and batches mixed, by torch's saved generators."""
    objective = wb.AdversarialTraining(PGD)
    with pytest.raises(StoppedError, match="epoch 2 after batch"):
        wb.fit(new_model(), stopping(digits, 6, signal.SIGTERM), objective, tmp_path / "parts", **SHORT, **EVERYTHING)
    parts = wb.fit(new_model(5), digits, objective, tmp_path / "parts", **SHORT, **EVERYTHING)
    whole = wb.fit(new_model(), digits, objective, tmp_path / "whole", **SHORT, **EVERYTHING)
    assert same_end(parts, whole)
    assert parts.config["augment"].startswith("RandomAffine(degrees=[-10.0, 10.0]")
    other = {**EVERYTHING, "augment": v2.RandomAffine(20)}
    with pytest.raises(wb.UsageError, match=r"augment='RandomAffine.*\[-10.*', not 'RandomAffine.*\[-20"):
        wb.fit(new_model(), digits, objective, tmp_path / "parts", **SHORT, **other)


def test_earlier_runs_had_none_of_it(digits, tmp_path):
    run = wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT)
    file = tmp_path / "run/config.toml"
    younger = ("randaugment", "color_jitter", "rotation", "lighting", *OF_LABELS)
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith(younger)))
    assert wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT).history == run.history
    with pytest.raises(wb.UsageError, match=r"mixup=0\.0, not 0\.2"):
        wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, mixup=0.2)


def test_the_command_line_has_them(tmp_path, capsys):
    words = "train digits --model resnet10 --width 2 --epochs 1 --watch 0 --no-progress --batch-size 512 --eps 0.3"
    out = str(tmp_path / "run")
    more = "--attack-steps 1 --augment flip --color-jitter 0.2 --rotation 3 --mixup 0.2 --label-smoothing 0.1"
    assert main([*words.split(), "--out", out, *more.split()]) == 0
    config = Run.load(out).config
    assert (config["augment"], config["color_jitter"], config["rotation"], config["mixup"]) == ("flip", 0.2, 3.0, 0.2)
    table = tmp_path / "rows.csv"
    words = f"transfer {out} --targets digits --mode 2 --epochs 1 --lr 0.1 --seeds 0 --num-train 100 --out {table}"
    assert main([*words.split(), "--mixup", "0.2"]) == 0
    rows = (tmp_path / "rows.rows.jsonl").read_text()
    assert '"mixup": 0.2' in rows
    assert "cutmix" not in rows


def test_fine_tuning_on_a_cache_changes_images_and_smooths_labels(digits):
    short = {"epochs": 2, "lr": 0.1, "views": 2}
    source = new_model()
    runs = [
        wb.finetune(source, digits, "linear", **short, augment="crop", **settings)
        for settings in ({}, {"rotation": 20.0}, {"label_smoothing": 0.2})
    ]
    losses = [run.record["loss"] for run in runs]
    assert len(set(losses)) == 3
    assert runs[1].config["rotation"] == 20.0
    with pytest.raises(wb.UsageError, match=r"mixup=0\.2 cannot be honoured on a cached trunk"):
        wb.finetune(source, digits, "linear", epochs=1, lr=0.1, mixup=0.2)
    assert wb.finetune(source, digits, "linear", epochs=1, lr=0.1, mixup=0.2, cache="never").config["mixup"] == 0.2
    with pytest.raises(wb.UsageError, match=r"views=2 of images that are not augmented"):
        wb.finetune(source, digits, "linear", epochs=1, lr=0.1, views=2)
