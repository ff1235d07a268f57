"""Bad input at every door of the library: one line that names what was given, and what to write instead."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import waterbed as wb
from waterbed.training.fit import _check_fits
from waterbed.training.run_folder import Run

X, Y = torch.rand(12, 3, 8, 8), torch.arange(12) % 3
TASK = (TensorDataset(X, Y), TensorDataset(X, Y))
PGD = wb.PGD(0.1, steps=1)
FIT = {"epochs": 1, "watch": 0, "progress": False}

DOORS = {
    "fit": lambda model: wb.fit(model, TASK, **FIT),
    "evaluate": lambda model: wb.evaluate(model, TASK[1]),
    "evaluate_standard": lambda model: wb.evaluate_standard(model, TASK[1], 0.1),
    "wrap": wb.wrap,
    "measure": lambda model: wb.measure(model, TASK),
    "InputFisher": lambda model: wb.InputFisher(model, X),
    "WeightFisher": lambda model: wb.WeightFisher(model, X),
    "invert": lambda model: wb.invert(model, X, steps=1),
    "finetune": lambda model: wb.finetune(model, TASK),
    "transfer": lambda model: wb.transfer({"a": model}, [TASK]),
    "choose": lambda model: wb.choose({"a": model}, TASK),
    "dataset_distance": lambda model: wb.dataset_distance(TASK, TASK, model),
    "extract_features": lambda model: wb.extract_features(model, TASK),
    "PGD": lambda model: PGD(model, X, Y),
    "save_model": lambda model: wb.save_model(model, "model.safetensors"),
}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet10", r"model='resnet10' is a name; write create_model\('resnet10', num_classes\) or load_model"),
        (nn.Linear, r"model=Linear is a class; write Linear\(\.\.\.\)"),
        (None, "model=NoneType must be an nn.Module"),
        (Run(nn.Linear(2, 2)), r"model=Run must be an nn.Module.*; pass its \.model"),
    ],
)
@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_network(door, model, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(wb.UsageTypeError, match=message):
        DOORS[door](model)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("door", [door for door in DOORS if door not in ("wrap", "save_model")])
def test_images_of_another_number_of_channels(door):
    grey = wb.create_model("resnet10", 3, width=2, in_channels=1)
    with pytest.raises(wb.UsageError, match=r"images|x|inputs") as caught:
        DOORS[door](grey)
    assert "to have 1 channels, but got 3 channels" in str(caught.value)
    assert "pass images of the shape and type it was built for" in str(caught.value)
    assert "\n" not in str(caught.value)


NETWORK = wb.create_model("resnet10", 3, width=2)
OTHERS = {
    "normalised": (
        lambda: wb.fit(NETWORK, (TensorDataset(X - 0.5, Y), TASK[1]), **FIT),
        r"values from -0\.\d+ to 0\.\d+; pixels lie in \[0, 1\]: leave normalisation to the model",
    ),
    "bytes": (
        lambda: wb.fit(NETWORK, (TensorDataset((255 * X).byte(), Y), TASK[1]), **FIT),
        r"not torch\.uint8; divide it by 255",
    ),
    "name for a task": (lambda: wb.finetune(NETWORK, "digits"), r"data='digits' is a name; write load_dataset"),
    "name for a set": (lambda: wb.evaluate(NETWORK, "digits"), r"dataset='digits' is a name; take train or test of"),
    "names of sets": (lambda: wb.dataset_distance("digits", "digits", NETWORK), "data='digits' is a name"),
    "one seed": (lambda: wb.transfer({"a": NETWORK}, [TASK], seeds=0), r"seeds=0 must be a list; write seeds=\[0\]"),
    "negative seed": (lambda: wb.transfer({"a": NETWORK}, [TASK], seeds=[-1]), "seeds=-1 must be a whole number >= 0"),
    "no images": (
        lambda: wb.dataset_distance(TASK, TASK, NETWORK, num_samples=0),
        "num_samples=0 must be a whole number >= 1",
    ),
    "number to load": (lambda: wb.load_model(3), "path_or_name=int must be a name or a path"),
    "made optimizer": (
        lambda: wb.fit(NETWORK, TASK, optimizer=torch.optim.SGD(NETWORK.parameters(), 0.1), **FIT),
        r"optimizer is of type SGD; pass a function, or one of \('sgd', 'adamw', ",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_one_line_says_what_to_write(case):
    call, message = OTHERS[case]
    with pytest.raises((wb.UsageError, wb.UsageTypeError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_dict_is_as_good_as_a_pair():
    task = wb.as_task({"test": TASK[1], "train": TASK[0]})
    assert (task.train, task.test) == TASK


def test_arrays_are_data():
    arrays = (X.numpy(), Y.numpy())
    runs = [
        wb.fit(wb.create_model("resnet10", 3, width=2, seed=0), data, **FIT)
        for data in (TASK, (arrays, (X, Y.tolist())))
    ]
    assert runs[0].record["loss"] == runs[1].record["loss"]
    assert wb.evaluate(runs[0].model, arrays).to_dict() == wb.evaluate(runs[0].model, TASK[1]).to_dict()
    with pytest.raises(wb.UsageError, match="dataset has 12 images and 11 labels"):
        wb.evaluate(runs[0].model, (X, Y[1:]))
    with pytest.raises(wb.UsageTypeError, match=r"write TensorDataset\(images, labels\)"):
        wb.fit(NETWORK, (X, Y), **FIT)


def test_named_targets_come_in_the_channels_that_a_network_was_built_for():
    """Also to one that has not been trained, and so has no image shape yet."""
    table = wb.transfer({"a": NETWORK}, ["digits"], "linear", seeds=[0])
    assert table.rows[0]["n"] == 360
    assert wb.choose({"a": NETWORK}, "digits", num_samples=60).best == "a"


class Pair(nn.Module):
    """Logits and what led to them; in train mode alone, if asked."""

    def __init__(self, in_train_mode_alone):
        super().__init__()
        self.net, self.alone = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), in_train_mode_alone

    def forward(self, x):
        logits = self.net(x)
        return logits if self.alone and not self.training else (logits, x)


@pytest.mark.parametrize("door", [door for door in DOORS if door not in ("save_model", "PGD")])
def test_outputs_that_are_no_logits(door):
    with pytest.raises(wb.UsageTypeError, match=r"model=Pair gives tuple.*logits \(.*, K\)"):
        DOORS[door](Pair(False))


def test_auxiliary_outputs_in_train_mode():
    assert wb.evaluate(Pair(True), TASK[1]).n == 12
    model = Pair(True)
    with pytest.raises(
        wb.UsageTypeError, match="model=Pair gives tuple in train mode, not one tensor; build it without"
    ):
        wb.fit(model, TASK, **FIT)
    backbone = wb.FeatureClassifier(nn.Sequential(Pair(True)), nn.Linear(3, 3))
    with pytest.raises(wb.UsageTypeError, match="model=Sequential gives tuple in train mode"):
        wb.fit(backbone, TASK, **FIT)
    assert model.training


@pytest.mark.parametrize("door", DOORS)
def test_layers_without_a_size(door):
    with pytest.raises(wb.UsageError, match="model has layers without a size yet; run it once"):
        DOORS[door](nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript():
    with pytest.raises(wb.UsageTypeError, match="model is a TorchScript module, which is closed"):
        wb.evaluate(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(192, 3))), TASK[1])


def test_the_check_of_train_mode_changes_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    state, drawn = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    _check_fits(model, wb.as_task(TASK))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert model.training


def test_unused_weights_have_no_fisher_information():
    """As those of auxiliary heads, which eval mode does not run."""
    model = Pair(True).eval()
    f = wb.WeightFisher(model, X)
    model.net.append(nn.Identity())
    model.unused = nn.Linear(2, 2)
    g = wb.WeightFisher(model, X)
    assert float(g.trace()) == pytest.approx(float(f.trace()), rel=1e-5)
    assert float(g.diagonal()[-6:].abs().max()) == 0


def test_a_head_without_bias_is_trained_by_steps():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 3, bias=False))
    run = wb.finetune(model, TASK, "linear")
    assert run.config["finetune"]["solver"] == "sgd"
    assert run.model.head.bias is None
    assert wb.transfer({"a": model}, [TASK], "linear", seeds=[0], epochs=1, lr=0.1).rows[0]["solver"] == "sgd"
    with pytest.raises(wb.UsageError, match="solver='logistic' has an intercept, and the head has no bias"):
        wb.finetune(model, TASK, "linear", solver="logistic")


def test_operations_that_torch_batches_slowly_warn_nobody():
    convnext = pytest.importorskip("torchvision.models.convnext")
    stages = [convnext.CNBlockConfig(4, 8, 1), convnext.CNBlockConfig(8, None, 1)]
    model = convnext.ConvNeXt(stages, num_classes=3).eval()
    assert float(wb.WeightFisher(model, X).trace()) > 0
