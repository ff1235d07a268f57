"""Checkpoints that try to run code: without trust nothing of them is called, imported or changed."""

import contextlib
import io
import os
import pathlib
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import pytest
import torch
from tests.unit.models.test_foreign import madry, trained

import waterbed as wb
from waterbed.models.pickled import INERT, global_names, unpickle

WEIGHTS = {"fc.weight": torch.ones(2, 3)}


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __call__(self):
        """A function to pickle, if what is called is the result of a call."""

    def __reduce__(self):
        return self.parts


class TakesState:
    """Runs code when its state is set."""

    def __init__(self, mark):
        self.mark = mark

    def __setstate__(self, state):
        pathlib.Path(state["mark"]).touch()


class TakesArguments:
    """Runs code when it is created."""

    def __init__(self, mark):
        self.mark = mark

    def __new__(cls, mark):
        pathlib.Path(mark).touch()
        return object.__new__(cls)

    def __getnewargs__(self):
        return (self.mark,)


class Grows(list):
    """Runs code when it is filled."""

    def extend(self, values):
        pathlib.Path(values[0]).touch()

    append = extend


def attribute_of_attribute(mark):
    """pathlib.Path(mark).touch(), by getattr."""
    return Calls(Calls(getattr, Calls(pathlib.Path, mark), "touch"))


ATTACKS = {
    "os.system": lambda mark: Calls(os.system, f"touch {mark}"),
    "eval": lambda mark: Calls(eval, f"__import__('pathlib').Path({mark!r}).touch()"),
    "exec": lambda mark: Calls(exec, f"open({mark!r}, 'w').close()"),
    "open": lambda mark: Calls(open, mark, "w"),
    "getattr": attribute_of_attribute,
    "__import__": lambda mark: Calls(
        getattr(__builtins__, "__import__", None) or __builtins__["__import__"], "harmful"
    ),
    "a function of torch": lambda mark: Calls(torch.save, 1, mark),
    "torch.load": lambda mark: Calls(torch.load, mark),
    "a state": lambda mark: TakesState(mark),
    "a state of a call": lambda mark: Calls(dict, state=[Calls(pathlib.Path.touch, pathlib.Path(mark))]),
    "new arguments": lambda mark: TakesArguments(mark),
    "items": lambda mark: Grows([mark]),
    "a subclass of tensors": lambda mark: Calls(
        torch._tensor._rebuild_from_type_v2, Calls(eval, f"open({mark!r}, 'w')"), torch.Tensor, (), {"x": 1}
    ),
    "hooks of a parameter": lambda mark: Calls(
        torch._utils._rebuild_parameter, torch.ones(2), True, OrderedDict({0: Calls(open, mark, "w")})
    ),
}


@pytest.fixture
def harmful(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported."""
    (tmp_path / "harmful.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\nclass Args: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "imported"
    sys.modules.pop("harmful", None)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_of_a_file_is_executed(tmp_path, harmful, attack, zipped):
    path, mark = tmp_path / "net.pt", tmp_path / "mark"
    settings = {"_use_new_zipfile_serialization": zipped}
    torch.save({**WEIGHTS, "attack": ATTACKS[attack](str(mark))}, path, **settings)
    mark.unlink(missing_ok=True)  # of what runs when it is pickled
    torch.save({"attack": ATTACKS[attack](str(mark)), "model": WEIGHTS}, tmp_path / "first.pt", **settings)
    mark.unlink(missing_ok=True)
    for file in (path, tmp_path / "first.pt"):
        with contextlib.suppress(wb.UsageError):
            content = unpickle(file)
            assert torch.equal(content.get("model", content)["fc.weight"], WEIGHTS["fc.weight"])
        assert not mark.exists(), "executed"
    assert not harmful.exists(), "imported"


def saved(path, program):
    """A checkpoint whose pickle is this program."""
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, program if name.endswith("data.pkl") else old.read(name))
    return path


def name(module, function):
    return b"c" + module.encode() + b"\n" + function.encode() + b"\n"


def text(word):
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


# What unpickling does to an object that is on the stack: BUILD with attributes, and with slots.
ATTRIBUTES = b"}" + text("shape") + text("nothing") + b"sb"
SLOTS = b"N}" + text("shape") + text("nothing") + b"s\x86b"


@pytest.mark.parametrize("state", [ATTRIBUTES, SLOTS], ids=["attributes", "slots"])
@pytest.mark.parametrize(
    "target",
    [("torch._utils", "_rebuild_tensor_v2"), ("torch", "Tensor"), ("json", "dumps"), ("argparse", "Namespace")],
)
def test_no_class_or_function_of_the_process_is_changed(tmp_path, target, state):
    before = torch.Tensor.shape
    program = b"\x80\x02" + name(*target) + state + b"."
    with contextlib.suppress(wb.UsageError):
        assert unpickle(saved(tmp_path / "net.pt", program)) is INERT
    assert torch.Tensor.shape is before
    assert not hasattr(torch._utils._rebuild_tensor_v2, "shape")
    assert not hasattr(sys.modules["json"].dumps, "shape")
    assert not hasattr(sys.modules["argparse"].Namespace, "shape")
    assert not hasattr(INERT, "shape")


def test_what_is_called_and_called_again_stays_inert(tmp_path):
    """getattr(importlib.import_module("harmful"), "f")(1)(2), created anew, given a state, in a dict."""
    program = b"\x80\x02}" + text("x") + name("builtins", "getattr") + name("importlib", "import_module")
    program += text("harmful") + b"\x85R" + text("f") + b"\x86RK\x01\x85RK\x02\x85R)\x81" + ATTRIBUTES + b"s."
    assert unpickle(saved(tmp_path / "net.pt", program)) == {"x": INERT}


@pytest.mark.parametrize("program", [name("os", "system"), name("posix", "system"), name("sys", "modules")])
def test_a_file_that_names_the_system_is_refused(tmp_path, program):
    with pytest.raises(wb.UsageError, match="holds more than weights"):
        unpickle(saved(tmp_path / "net.pt", b"\x80\x02}" + text("x") + program + b"s."))


def test_names_are_known_to_torch_only_while_the_file_is_read(tmp_path):
    torch.save({**WEIGHTS, "x": pathlib.PurePosixPath("a")}, tmp_path / "net.pt")
    before = set(torch.serialization.get_safe_globals())
    assert unpickle(tmp_path / "net.pt")["x"] is INERT
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "net.pt", weights_only=True)


@pytest.mark.parametrize("zipped", [True, False])
def test_robust_imagenet_networks_as_they_were_saved(tmp_path, harmful, zipped, monkeypatch):
    """By dill, with cox's Parameters beside the weights; neither is needed, nor imported."""
    dill = pytest.importorskip("dill")
    torchvision = pytest.importorskip("torchvision")
    cox = types.ModuleType("harmful")
    exec("class Args:\n    def __init__(self, params):\n        self.params = params\n", vars(cox))
    monkeypatch.setitem(sys.modules, "harmful", cox)
    network = trained(torchvision.models.resnet18(weights=None, num_classes=20)).float()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.1**epoch)
    content = {
        "model": {k: v.float() if v.is_floating_point() else v for k, v in madry(network).items()},
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "rate": lambda epoch: 0.1**epoch,
        "epoch": 90,
        "args": cox.Args({"eps": 1.0, "constraint": "2"}),
    }
    path = tmp_path / "resnet18_l2_eps1.ckpt"
    torch.save(content, path, pickle_module=dill, _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, "harmful")
    monkeypatch.setitem(sys.modules, "dill", None)
    loaded = wb.load_model(path)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = network((x - loaded.mean) / loaded.std)
        torch.testing.assert_close(loaded(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert (loaded.architecture["name"], loaded.loading["source"]) == ("resnet18", "robustness")
    assert any("left out: dill._dill._create_function" in note for note in loaded.loading["notes"])
    assert not harmful.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_newer_protocol_is_refused_by_its_name(tmp_path, zipped):
    path = tmp_path / "net.pt"
    content = {**WEIGHTS, "x": pathlib.PurePosixPath("a"), "y": pathlib.PurePosixPath("b")}
    torch.save(content, path, pickle_protocol=4, _use_new_zipfile_serialization=zipped)
    assert {name for name in global_names(path) if "torch" not in name} <= {
        "pathlib.PurePosixPath",
        "collections.OrderedDict",
    }, "each name whole, also where its parts are taken from the memo"
    with pytest.raises(
        wb.UsageError, match=r"saved with a pickle protocol above 2, which is restored only by.*--trust"
    ):
        unpickle(path)
    assert torch.equal(unpickle(path, trust=True)["fc.weight"], WEIGHTS["fc.weight"])
