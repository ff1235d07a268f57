"""Wrong uses: one clear line with the argument, the value and the remedy; exit code 2, nothing overwritten."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.__main__ import main


def snapshot(place: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run on the user's folder, of 8 x 8 images."""
    place = tmp_path_factory.mktemp("trained")
    data = wb.load_dataset("digits").take(64, 20)
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    wb.fit(model, data, out=place / "run", epochs=1, watch=0, progress=False, precision="fp32")
    return place / "run"


@pytest.fixture
def wrong(tmp_path, folder, trained):
    """Everything that the command lines below refer to."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/thesis.txt").write_text("mine")
    (tmp_path / "file.txt").write_text("a file")
    (tmp_path / "one/train/only").mkdir(parents=True)
    (tmp_path / "one/test/only").mkdir(parents=True)
    (tmp_path / "hollow/train/a").mkdir(parents=True)
    (tmp_path / "hollow/train/b").mkdir()
    (tmp_path / "hollow/test/a").mkdir(parents=True)
    (tmp_path / "halfidx").mkdir()
    (tmp_path / "halfidx/train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    corrupt = tmp_path / "corrupt"
    for path in folder.rglob("*.png"):
        target = corrupt / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (corrupt / "train/dark/5.png").write_bytes(b"\x89PNG torn")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.toml").write_text("schema = 99\n")
    (tmp_path / "broken.toml").write_text("lr = = 1")
    (tmp_path / "unknown.toml").write_text("learning = 1")
    (tmp_path / "sizes.toml").write_text('size = "64"')
    (tmp_path / "mistyped.toml").write_text('lr = "fast"')
    return tmp_path


COMMAND_LINES = {
    "no such command": ("trian digits", "command='trian'", "did you mean 'train'"),
    "unknown data set": ("train cifar11 --out {t}/o", "DATA 'cifar11'", "cifar10"),
    "missing folder": ("train {t}/nowhere --out {t}/o", "nowhere' does not exist", "train/<class>/"),
    "empty folder": ("train {t}/empty --out {t}/o", "empty", "train/<class>/*"),
    "a file for a folder": ("train {t}/file.txt --out {t}/o", "file.txt' is a file", "folder"),
    "one class": ("train {t}/one --out {t}/o", "1 class folder", "two or more"),
    "class without images": ("train {t}/hollow --out {t}/o", "hollow/train/a' has no images", "add some"),
    "corrupt image": ("train {t}/corrupt --out {t}/o", "dark/5.png", "remove or replace"),
    "half an idx folder": ("train {t}/halfidx --out {t}/o", "lacks the idx file", "train-labels-idx1-ubyte"),
    "data not fetched": (
        "train mnist --root {t}/empty --out {t}/o",
        "'mnist' is not complete",
        "--download fetches it",
    ),
    "root that is none": ("train mnist --root {t}/nowhere --out {t}/o", "--root '", "create it"),
    "unknown network": ("train digits --model resnet19 --out {t}/o", "'resnet19'", "resnet18"),
    "unknown stem": ("train digits --stem large --out {t}/o", "--stem 'large'", "imagenet"),
    "unknown objective": ("train digits --objective sgd --out {t}/o", "--objective 'sgd'", "standard"),
    "unknown norm": ("train digits --norm l3 --out {t}/o", "--norm 'l3'", "linf"),
    "negative eps": ("train digits --eps -1 --out {t}/o", "eps=-1.0", ">= 0"),
    "no attack steps": ("train digits --attack-steps 0 --out {t}/o", "--attack-steps 0", ">= 1"),
    "no epochs": ("train digits --epochs 0 --out {t}/o", "--epochs 0", ">= 1"),
    "learning rate 0": ("train digits --lr 0 --out {t}/o", "--lr 0.0", "> 0"),
    "all held out": ("train digits --validation 1.5 --out {t}/o", "--validation 1.5", "below 1"),
    "averages of the first weights": ("train digits --ema 1 --out {t}/o", "--ema 1.0", "below 1"),
    "negative decay": ("train digits --ema -0.5 --out {t}/o", "--ema -0.5", ">= 0"),
    "not a number": ("train digits --lr fast --out {t}/o", "--lr", "'fast'"),
    "unknown option": ("train digits --out {t}/o --foo 3", "--foo", "--help"),
    "required option": ("train digits", "--out", "--help"),
    "somebody else's folder": ("train digits --out {t}/notes", "notes' exists and is not a run", "another --out"),
    "folder of another schema": ("train digits --out {t}/foreign", "schema 99", "another"),
    "out below a file": ("train digits --out {t}/file.txt/run", "file.txt/run", "another"),
    "reproduction into a file": ("paper --dry-run --out {t}/file.txt", "file.txt' is a file", "name a folder"),
    "unknown scale": ("paper --scale huge --out {t}/o", "--scale 'huge'", "TOML file of your own"),
    "not a run": ("evaluate {t}/notes", "notes", "run folder"),
    "no run given": ("evaluate", "runs is empty", "name one"),
    "negative radius in evaluate": ("evaluate {run} --eps -0.5", "eps=-0.5", ">= 0"),
    "no samples": ("measure {run} --num-samples 0", "--num-samples 0", ">= 1"),
    "unknown inversion mode": ("invert {run} --mode blurry", "--mode 'blurry'", "effective"),
    "no pictures": ("invert {run} --images {t}/empty --out {t}/o", "has no pictures", "add some"),
    "pictures for a study": ("invert {run} --study convergence --images {t}", "--images", "leave one"),
    "a layer for classes": ("invert {run} --mode class --layer head", "--layer head", "leave one"),
    "one beta for several": ("invert {run} --study beta --beta 1e-3", "--beta 0.001", "leave one"),
    "no inversion steps": ("invert {run} --steps 0 --out {t}/o", "--steps 0", ">= 1"),
    "unknown transfer mode": ("transfer {run} --mode 3", "--mode '3'", "linear"),
    "report of a wrong kind": ("report {run} --out {t}/page.pdf", "page.pdf", ".html"),
    "config that is not TOML": ("train digits --out {t}/o --config {t}/broken.toml", "broken.toml", "TOML"),
    "unknown key in config": ("train digits --out {t}/o --config {t}/unknown.toml", "'learning'", "lr"),
    "wrong type in config": ("train digits --out {t}/o --config {t}/mistyped.toml", "lr='fast'", "float"),
    "wrong type of a size in config": ("train digits --config {t}/sizes.toml --out {t}/o", "size='64'", "int"),
    "batches of one": ("train digits --batch-size 1 --out {t}/o", "--batch-size 1", ">= 2"),
    "huge images": ("train digits --size 100000 --out {t}/o", "--size 100000", "smaller"),
    "missing config": ("train digits --out {t}/o --config {t}/none.toml", "none.toml", "name a TOML file"),
}


@pytest.mark.parametrize("case", COMMAND_LINES)
def test_command_line(case, wrong, trained, capsys):
    line, value, remedy = COMMAND_LINES[case]
    words = [w.format(t=wrong, run=trained) for w in line.split()]
    before = {**snapshot(wrong), **snapshot(trained)}
    code = main(words)
    out, err = capsys.readouterr()
    lines = [x for x in err.splitlines() if x]
    assert code == 2, (out, err)
    assert lines[-1].startswith("waterbed: error: ")
    assert len([x for x in lines if "error" in x]) == 1
    assert "Traceback" not in err
    assert value in lines[-1], lines[-1]
    assert remedy in lines[-1], lines[-1]
    after = {**snapshot(wrong), **snapshot(trained)}
    assert all(after[path] == content for path, content in before.items()), "nothing is overwritten"


def test_there_are_at_least_thirty():
    assert len(COMMAND_LINES) + len(LIBRARY) >= 30


def test_a_model_of_other_classes_is_not_evaluated(trained, folder, capsys):
    assert main(["evaluate", str(trained), "--data", str(folder)]) == 2
    assert "bright, dark" in capsys.readouterr().err
    assert main(["evaluate", str(trained), "--data", "fashion-mini"]) == 2
    assert "T-shirt" in capsys.readouterr().err


def images(*shape):
    return torch.rand(*shape)


def nan_model():
    model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    return model


def data_with(label):
    pairs = [(torch.rand(1, 8, 8), label), (torch.rand(1, 8, 8), 0)]
    return SimpleNamespace(train=pairs, test=pairs, classes=("a", "b"), num_classes=2, shape=(1, 8, 8), name="own")


def small(classes=10):
    return wb.create_model("resnet10", classes, width=2, in_channels=1, seed=0).eval()


def normalised():
    model = wb.create_model("resnet10", 2, width=2, in_channels=3, seed=0).eval()
    model.set_normalisation([0.5] * 3, [0.25] * 3)
    return model


def fisher(**kw):
    return wb.WeightFisher(small(), images(3, 1, 8, 8), **kw)


LIBRARY = {
    "grey images for a network of three channels": (
        lambda: wb.InputFisher(normalised(), torch.rand(2, 1, 8, 8)),
        "1 channels, the model normalises 3",
        "channels=3",
    ),
    "grey images to evaluate on": (
        lambda: wb.evaluate(normalised(), data_with(1).test),
        "dataset images",
        "channels=3",
    ),
    "a folder that does not exist": (
        lambda: wb.load_dataset("photoz"),
        "neither a folder nor a data set",
        "cifar10",
    ),
    "a misspelt data set": (lambda: wb.load_dataset("cifar-10"), "'cifar-10'", "did you mean 'cifar10'"),
    "one quantity as text": (
        lambda: wb.measure(small(), data_with(1), quantities="weight_fisher_trace"),
        "must be a list",
        "write quantities=['weight_fisher_trace']",
    ),
    "labels out of range": (
        lambda: wb.fit(small(2), data_with(5), epochs=1, watch=0, progress=False),
        "0 to 5",
        "renumber",
    ),
    "class count of the model": (lambda: wb.fit(small(3), data_with(1), epochs=1), "2 classes", "num_classes=2"),
    "one class in data": (
        lambda: wb.fit(small(), SimpleNamespace(**{**vars(data_with(0)), "num_classes": 1})),
        "num_classes=1",
        "two or more",
    ),
    "pixels up to 255": (lambda: wb.invert(small(), 255 * images(2, 1, 8, 8)), "pixels lie in [0, 1]", "255"),
    "NaN pixels": (lambda: wb.invert(small(), torch.full((1, 1, 8, 8), float("nan"))), "nan", "remove the NaN"),
    "wrong channels": (lambda: wb.invert(small(), images(2, 3, 8, 8)), "(2, 3, 8, 8)", "shape"),
    "no images": (lambda: wb.invert(small(), images(0, 1, 8, 8)), "(0, 1, 8, 8)", "non-empty"),
    "NaN weights": (lambda: wb.InputFisher(nan_model(), images(2, 1, 8, 8)), "head.weight", "load or train"),
    "NaN weights in evaluate": (lambda: wb.evaluate(nan_model(), data_with(1).test), "head.weight", "load or train"),
    "batch norm without statistics": (
        lambda: wb.InputFisher(
            nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)),
            images(3, 1, 2, 2),
        ),
        "without running statistics",
        "track_running_stats=True",
    ),
    "restarts in TRADES": (lambda: wb.TRADES(wb.PGD(restarts=3)), "restarts=3", "restarts=1"),
    "NaN inputs": (lambda: wb.WeightFisher(small(), torch.full((1, 1, 8, 8), float("inf"))), "inputs", "remove"),
    "inputs of another shape": (lambda: wb.InputFisher(small(), images(2, 5)), "(2, 5)", "shape"),
    "one-dimensional inputs": (lambda: wb.InputFisher(small(), images(5)), "(5,)", "one row for each example"),
    "unknown observation": (lambda: wb.InputFisher(small(), images(2, 1, 8, 8), "pixel"), "'pixel'", "gaussian"),
    "sigma 0": (lambda: wb.InputFisher(small(), images(2, 1, 8, 8), "gaussian", 0.0), "sigma=0.0", "> 0"),
    "unknown labels": (lambda: fisher(labels="true"), "labels='true'", "empirical"),
    "no targets": (lambda: fisher(labels="empirical"), "labels='empirical'", "targets="),
    "targets out of range": (
        lambda: fisher(labels="empirical", targets=torch.tensor([0, 1, 10])),
        "0 to 10",
        "0 .. 9",
    ),
    "no parameter chosen": (lambda: fisher(params=lambda name: False), "chooses no parameter", "backbone"),
    "damping 0": (lambda: fisher().log_variance(0.0), "damping=0.0", "> 0"),
    "dense matrix too large": (lambda: fisher().matrix(), "weights; matrix() stops", "diagonal()"),
    "noise missing": (lambda: wb.invert(small(), images(1, 1, 8, 8), "effective"), "mode='effective'", "noise="),
    "noise too many": (
        lambda: wb.invert(small(), images(1, 1, 8, 8), noise=wb.WeightNoise(fisher(), 1e-6, 1e-3)),
        "mode='plain'",
        "variational",
    ),
    "beta 0": (lambda: wb.WeightNoise(fisher(), 0.0, 1e-3), "beta=0.0", "> 0"),
    "unknown layer mode": (lambda: wb.finetune(small(), data_with(1), "last"), "mode='last'", "linear"),
    "averages on a cached trunk": (lambda: wb.finetune(small(), data_with(1), ema=0.9), "ema=0.9", "cache='never'"),
    "empty data": (lambda: wb.evaluate(small(), []), "dataset is empty", "images"),
    "evaluated on other classes": (lambda: wb.evaluate(small(2), data_with(7).test), "0 to 7", "0 .. 1"),
    "unknown precision": (lambda: wb.fit(small(2), data_with(1), precision="fp8"), "precision='fp8'", "bf16"),
    "negative seed": (lambda: wb.evaluate(small(2), data_with(1).test, seed=-1), "seed=-1", ">= 0"),
    "no targets to transfer to": (lambda: wb.transfer({"a": small()}, []), "targets", "one or more"),
    "model of another kind": (
        lambda: wb.finetune(nn.Linear(2, 2), data_with(1)),
        "model=Linear",
        "FeatureClassifier(backbone, head)",
    ),
    "std 0": (lambda: wb.FeatureClassifier(nn.Flatten(), nn.Linear(4, 2), [0.5], [0.0]), "std=[0.0]", "std > 0"),
    "weights that are not there": (lambda: wb.load_model("no/such.safetensors"), "no/such.safetensors", "run folder"),
    "features that differ": (
        lambda: wb.class_emd(images(4, 3), torch.zeros(4), images(4, 5), torch.zeros(4)),
        "3 features",
        "one extractor",
    ),
}


@pytest.mark.parametrize("case", LIBRARY)
def test_library(case):
    action, value, remedy = LIBRARY[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        action()
    message = str(caught.value)
    assert isinstance(caught.value, wb.UsageError)
    assert value in message, message
    assert remedy in message, message
    assert "\n" not in message


TYPES = {
    "images of bytes": (lambda: wb.invert(small(), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)), "uint8"),
    "images of numpy": (lambda: wb.InputFisher(small(), np.zeros((1, 1, 8, 8))), "ndarray"),
    "eps of a list": (lambda: wb.PGD(eps=[1]), "eps=[1]"),
    "steps of 2.5": (lambda: wb.PGD(steps=2.5), "steps=2.5"),
    "attack of another kind": (lambda: wb.AdversarialTraining(3), "attack=3"),
    "head that is none": (lambda: wb.FeatureClassifier(nn.Flatten(), torch.relu), "builtin_function"),
    "data of another kind": (lambda: wb.fit(small(), 3), "load_dataset"),
    "a pair of another kind": (lambda: wb.fit(small(), [1, 2]), "data[0]=int"),
    "one data set to train and test on": (
        lambda: wb.fit(small(), wb.load_dataset("digits").train),
        "pass (train, test)",
    ),
    "callback that is none": (lambda: wb.fit(small(), data_with(1), callbacks=[print]), "on_epoch_end(job)"),
    "class of an objective": (lambda: wb.fit(small(), data_with(1), wb.TRADES), "write TRADES(...)"),
    "attacks that are one": (lambda: wb.evaluate(small(), data_with(1).test, attacks=wb.PGD()), "attacks=[PGD"),
    "data for a data set": (lambda: wb.evaluate(small(), wb.load_dataset("digits")), "data.test"),
    "nothing to load": (lambda: wb.load_dataset(None), "name_or_folder=None"),
}


@pytest.mark.parametrize("case", TYPES)
def test_types(case):
    action, value = TYPES[case]
    with pytest.raises(TypeError) as caught:
        action()
    assert value in str(caught.value)


def test_no_right_to_write(tmp_path, capsys, monkeypatch):
    def refuse(self, *args, **settings):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["train", "digits", "--out", str(tmp_path / "run")]) == 2
    assert "Permission denied); choose another" in capsys.readouterr().err


def test_a_full_disk_leaves_what_was_there(trained, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    before = snapshot(trained)
    monkeypatch.setattr("os.fsync", full)
    target = trained / "weights.safetensors"
    with pytest.raises(wb.UsageError, match=r"No space left.*make room"):
        wb.save_model(small(), target)
    assert snapshot(trained) == before


def test_exit_code_and_stream_of_the_installed_program():
    done = subprocess.run(
        [sys.executable, "-m", "waterbed", "train", "digits", "--eps", "-1", "--out", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_config_file_gives_defaults_and_the_command_line_wins(tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text('data = "digits"\nout = "o"\nlr = 1\neps = 0.25\n')
    assert main(["train", "--config", str(file), "--eps", "0.75", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "lr = 1.0" in printed
    assert "eps = 0.75" in printed
    file.write_text(printed)
    assert main(["train", f"--config={file}", "--print-config"]) == 0
    assert capsys.readouterr().out == printed


def test_json_results_are_json(trained, tmp_path, capsys):
    assert main(["evaluate", str(trained), "--out", str(tmp_path / "e.json"), "--num-samples", "20"]) == 0
    assert json.loads((tmp_path / "e.json").read_text())["run"]["clean"]["n"] == 20
