"""Files that are not safe, not whole or not checkpoints; convert in the library and on the command line."""

import hashlib
import json
import pathlib
import sys
import types
import zipfile

import pytest
import torch
import tyro
from torch import nn

import waterbed as wb
from waterbed.__main__ import main
from waterbed.cli.convert import Convert
from waterbed.models.conversion import convert


class Settings:
    """What training scripts leave beside the weights."""

    def __init__(self, lr):
        self.lr = lr


class Harmful:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.fixture
def network():
    return wb.create_model("resnet10", 10, width=2, seed=0)


@pytest.fixture
def state(network):
    """The network as ``robustness`` saves it."""
    tensors = {f"module.model.{name}": tensor for name, tensor in network.backbone.state_dict().items()}
    tensors |= {f"module.model.fc.{name}": tensor for name, tensor in network.head.state_dict().items()}
    normaliser = {"module.normalizer.new_mean": torch.full((3, 1, 1), 0.5)}
    return tensors | normaliser | {"module.normalizer.new_std": torch.full((3, 1, 1), 0.25)}


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read_from_beside_objects(tmp_path, network, state, zipped):
    path, out = tmp_path / "old.pt", tmp_path / "new.safetensors"
    torch.save({"args": Settings(0.1), "model": state}, path, _use_new_zipfile_serialization=zipped)
    note = f"only tensors were read; left out: {Settings.__module__}.Settings"
    loaded = wb.load_model(path)
    assert same_weights(loaded, network)
    assert loaded.loading["notes"] == [note]
    assert same_weights(convert(path, out), network)
    loaded = wb.load_model(out)
    assert same_weights(loaded, network)
    assert loaded.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert loaded.architecture == network.architecture
    provenance = json.loads(out.with_suffix(".json").read_text())["provenance"]
    assert provenance == {
        "source": "robustness",
        "normaliser": "checkpoint",
        "notes": [note],
        "file": "old.pt",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "trusted": False,
    }
    assert convert(path, tmp_path / "trusted.safetensors", trust=True).loading["notes"] == []


class Sized(dict):
    """Settings as many scripts save them."""


@pytest.mark.parametrize("zipped", [True, False])
def test_what_needs_more_than_tensors_is_refused_and_converted_when_trusted(tmp_path, network, state, zipped):
    path, out = tmp_path / "old.pt", tmp_path / "new.safetensors"
    torch.save({"model": state, "args": Sized(lr=0.1)}, path, _use_new_zipfile_serialization=zipped)
    for action in (lambda: wb.load_model(path), lambda: convert(path, out)):
        with pytest.raises(wb.UsageError, match=r"holds more than weights: '[\w.]*Sized'") as caught:
            action()
        assert f"waterbed convert {path} --out NAME.safetensors --trust" in str(caught.value)
        assert "can run code" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not out.exists()
    assert same_weights(convert(path, out, trust=True), network)
    assert json.loads(out.with_suffix(".json").read_text())["provenance"]["trusted"] is True


@pytest.mark.parametrize("zipped", [True, False])
def test_code_of_a_file_runs_only_when_trusted(tmp_path, network, state, zipped):
    path, mark = tmp_path / "old.pt", tmp_path / "mark"
    torch.save({"model": state, "x": Harmful(mark)}, path, _use_new_zipfile_serialization=zipped)
    for source in ("auto", "robustness"):
        assert same_weights(wb.load_model(path, source), network)
    convert(path, tmp_path / "new.safetensors")
    assert not mark.exists()
    convert(path, tmp_path / "new.safetensors", trust=True)
    assert mark.exists()


def test_a_class_that_is_not_installed_does_not_stop_a_trusted_file(tmp_path, network, state, monkeypatch):
    gone = types.ModuleType("gone_library")
    kinds = {"Plain": (), "Listed": (list,), "Mapped": (dict,)}
    for name, bases in kinds.items():
        setattr(gone, name, type(name, bases, {"__module__": "gone_library"}))
    monkeypatch.setitem(sys.modules, "gone_library", gone)
    listed, mapped, plain = gone.Listed([1, 2]), gone.Mapped(a=1), gone.Plain()
    plain.lr = 0.1
    torch.save({"state_dict": state, "rest": [listed, mapped, plain]}, tmp_path / "old.pt")
    monkeypatch.delitem(sys.modules, "gone_library")
    with pytest.raises(wb.UsageError, match="gone_library"):
        wb.load_model(tmp_path / "old.pt")
    assert same_weights(convert(tmp_path / "old.pt", tmp_path / "new.safetensors", trust=True), network)


@pytest.mark.parametrize("zipped", [True, False])
def test_dill(tmp_path, network, state, zipped, monkeypatch):
    dill = pytest.importorskip("dill")
    path, out = tmp_path / "old.pt", tmp_path / "new.safetensors"
    content = {"model": state, "schedule": lambda epoch: 0.1**epoch}
    torch.save(content, path, pickle_module=dill, _use_new_zipfile_serialization=zipped)
    assert same_weights(wb.load_model(path), network)
    assert same_weights(convert(path, out, trust=True), network)
    monkeypatch.setitem(sys.modules, "dill", None)
    assert same_weights(wb.load_model(path), network), "dill is not needed"
    with pytest.raises(wb.UsageError, match="pip install dill"):
        convert(path, out, trust=True)


def test_weights_alone_saved_with_dill_need_no_trust(tmp_path, network, state):
    dill = pytest.importorskip("dill")
    torch.save({"model": state, "epoch": 3}, tmp_path / "old.pt", pickle_module=dill)
    assert same_weights(wb.load_model(tmp_path / "old.pt"), network)


def test_a_whole_network_is_read_when_trusted(tmp_path, network):
    torch.save(network, tmp_path / "old.pt")
    with pytest.raises(wb.UsageError, match="FeatureClassifier"):
        wb.load_model(tmp_path / "old.pt")
    assert same_weights(convert(tmp_path / "old.pt", tmp_path / "new.safetensors", trust=True), network)


def text(path, state):
    path.write_text("these are no weights")


def empty(path, state):
    path.write_bytes(b"")


def archive(path, state):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes/readme.txt", "hello")


def torn_zip(path, state):
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:2000])


def torn_old(path, state):
    torch.save(state, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-2000])


def flipped(path, state):
    torch.save(state, path)
    with zipfile.ZipFile(path) as file:
        record = next(name for name in file.namelist() if name.endswith("data.pkl"))
        content = file.read(record)
    path.write_bytes(path.read_bytes().replace(content[100:140], bytes(40)))


def pickled_text(path, state):
    path.write_bytes(b"\x80\x04\x8c\x05hello\x94.")


def no_tensors(path, state):
    torch.save({"epoch": 3, "lr": 0.1}, path)


def a_list(path, state):
    torch.save([1, 2], path)


def nan(path, state):
    state = {name: tensor.clone() for name, tensor in state.items()}
    state["module.model.conv1.weight"][0] = float("nan")
    torch.save({"model": state}, path)


def sparse(path, state):
    torch.save({**state, "module.model.conv1.weight": torch.ones(2, 2).to_sparse()}, path)


def script(path, state):
    path.write_bytes(b"")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/constants.pkl", b"")
        file.writestr("net/data.pkl", b"")


WRONG = {
    text: "no checkpoint (it starts with b'th'); name a PyTorch checkpoint",
    empty: "is empty; name a PyTorch checkpoint",
    archive: "a zip archive without a checkpoint",
    torn_zip: "copy or download it again",
    torn_old: "copy or download it again",
    flipped: "copy or download it again",
    pickled_text: "copy or download it again",
    no_tensors: "holds a dict with 'epoch', 'lr', no tensors by name; name a state dict",
    a_list: "holds a list, no tensors by name",
    nan: "a value in 'module.model.conv1.weight' that is not finite; find an earlier one",
    sparse: "sparse or quantised tensor 'module.model.conv1.weight'; save it dense",
    script: "is a TorchScript archive; save the state_dict()",
}


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
@pytest.mark.parametrize("trust", [False, True])
def test_wrong_files(tmp_path, state, make, trust):
    path = tmp_path / "net.pt"
    make(path, state)
    with pytest.raises(wb.UsageError) as caught:
        convert(path, tmp_path / "new.safetensors", trust=True) if trust else wb.load_model(path)
    assert WRONG[make] in str(caught.value)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_arguments(tmp_path, network, state):
    path = tmp_path / "net.pt"
    torch.save(state, path)
    wb.save_model(network, tmp_path / "ours.safetensors")
    (tmp_path / "theirs.safetensors").write_bytes(b"precious")
    cases = {
        "source='robust'": lambda: wb.load_model(path, "robust"),
        "not a .safetensors file": lambda: wb.load_model(path, "safetensors"),
        "is no run folder": lambda: wb.load_model(path, "run"),
        "has no config.toml": lambda: wb.load_model(tmp_path, "robustness"),
        "name a run folder or a file of weights": lambda: wb.load_model(tmp_path / "none.pt"),
        "none.pt' does not exist": lambda: wb.load_model("no/none.pt"),
        "cannot be read": lambda: wb.load_model(tmp_path / "theirs.safetensors"),
        "is no file": lambda: convert(tmp_path, tmp_path / "new.safetensors"),
        "in this format already": lambda: convert(tmp_path / "ours.safetensors", tmp_path / "new.safetensors"),
        "must end in .safetensors": lambda: convert(path, tmp_path / "new.pt"),
        "was not written by this command": lambda: convert(path, tmp_path / "theirs.safetensors"),
        "source='run'": lambda: convert(path, tmp_path / "new.safetensors", source="run"),
        "cannot be": lambda: convert(path, path / "new.safetensors"),  # a file is no folder
    }
    for said, action in cases.items():
        with pytest.raises(wb.UsageError) as caught:
            action()
        assert said in str(caught.value)
    assert (tmp_path / "theirs.safetensors").read_bytes() == b"precious"


def command(*words):
    return tyro.cli(Convert, args=[str(word) for word in words])


def test_convert_command(tmp_path, network, state, capsys):
    path, out = tmp_path / "net.pt", tmp_path / "made" / "net.safetensors"
    torch.save({"model": state, "args": Sized(lr=0.1)}, path)
    with pytest.raises(wb.UsageError, match="--trust"):
        command(path, "--out", out)()
    command(path, "--out", out, "--trust")()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{out} written: resnet10, cifar stem, width 2, 10 classes, images 3 x 32 x 32; source: robustness; "
        "normaliser: checkpoint (mean 0.5 0.5 0.5, std 0.25 0.25 0.25)"
    ]
    assert same_weights(wb.load_model(out), network)
    plain = {name: tensor for name, tensor in state.items() if "normalizer" not in name}
    torch.save(plain, path)
    normaliser = ["--mean", 0.1, 0.2, 0.3, "--std", 0.4, 0.5, 0.6]
    command(path, "--out", out, "--source", "robustness", *normaliser)()
    assert "normaliser: given (mean 0.1 0.2 0.3, std 0.4 0.5 0.6)" in capsys.readouterr().out
    assert wb.load_model(out).std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])


def test_convert_command_exports_a_run(tmp_path, capsys):
    data = wb.load_dataset("digits").take(64, 20)
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    run = wb.fit(model, data, out=tmp_path / "run", epochs=1, watch=0, progress=False, precision="fp32")
    out = tmp_path / "net.safetensors"
    command(run.path, "--out", out)()
    said = capsys.readouterr().out
    assert "written: resnet10, cifar stem, width 2, 10 classes, images 1 x 8 x 8; source: run; normaliser" in said
    assert wb.Run.load(out).history == run.history
    with pytest.raises(wb.UsageError, match="--trust is for files of other projects"):
        command(run.path, "--out", out, "--trust")()
    assert main(["convert", str(tmp_path / "none.pt"), "--out", str(out)]) == 2
    assert "is no file" in capsys.readouterr().err


def test_a_users_module_is_converted_into_features_and_head(tmp_path):
    mine = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    torch.save(mine.state_dict(), tmp_path / "net.pt")
    convert(tmp_path / "net.pt", tmp_path / "net.safetensors", model=mine, mean=0.5, std=0.5)
    with pytest.raises(wb.UsageError, match="pass model="):
        wb.load_model(tmp_path / "net.safetensors")
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity())
    loaded = wb.load_model(tmp_path / "net.safetensors", model=wb.FeatureClassifier(backbone, nn.Linear(4, 2)))
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(loaded(images), mine((images - 0.5) / 0.5), atol=1e-6)
