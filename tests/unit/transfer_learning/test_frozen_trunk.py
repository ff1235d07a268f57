"""Training on a cached trunk is the training itself, only faster."""

import importlib
from dataclasses import replace

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.transfer_learning.activation_cache import CachePlan, fill
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk
from waterbed.transfer_learning.modes import trained_modules
from waterbed.transfer_learning.splitting import UntraceableError, same_cut, split

SHORT = {"epochs": 2, "batch_size": 64, "lr": 0.1}
frozen_trunk = importlib.import_module("waterbed.transfer_learning.frozen_trunk")
activation_cache = importlib.import_module("waterbed.transfer_learning.activation_cache")


class Branching(nn.Module):
    """torch.fx cannot follow it."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)

    def forward(self, x):
        x = x.flatten(1)
        return self.norm(x if float(x.mean()) > 0 else -x)


@pytest.fixture
def untraceable():
    return wb.FeatureClassifier(Branching(), nn.Linear(64, 3))


def count_calls(monkeypatch, name):
    """How often the trunk's module calls its function ``name``, one entry per call."""
    calls, original = [], getattr(frozen_trunk, name)
    monkeypatch.setattr(frozen_trunk, name, lambda *args, **more: calls.append(name) or original(*args, **more))
    return calls


@pytest.mark.parametrize("mode", ["linear", 0])
def test_trunk_and_tail_are_the_network(source, mode):
    trunk, tail = split(source, trained_modules(source, mode, (1, 8, 8)))
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(tail(*trunk(x)), source(x))
    assert not any(isinstance(m, nn.Conv2d) for m in tail.modules())
    weights = {id(p) for p in source.parameters()}
    assert all(id(p) in weights for part in (trunk, tail) for p in part.parameters()), "shared, not copied"
    other = wb.create_model("resnet18", 10, width=4, in_channels=1, seed=5).eval()
    theirs = same_cut(tail, other)
    assert {id(p) for p in theirs.parameters()} <= {id(p) for p in other.parameters()}
    assert torch.equal(tail(*trunk(x)), source(x)), "the first tail is still that of its own network"


@pytest.mark.parametrize("mode", ["linear", 0])
def test_cached_training_is_the_training_itself(source, digits, mode):
    """The same batches: the same weights, but for rounding."""
    settings = {**SHORT, "epochs": 3}
    cached = wb.finetune(source, digits, mode, **settings)
    plain = wb.finetune(source, digits, mode, **settings, cache="never", precision="fp32")
    assert cached.config["finetune"]["cache"] == "memory, float32, 1 view"
    assert plain.config["finetune"]["cache"] == "none"
    assert_close(cached.model, plain.model)
    a, b = (wb.evaluate(run.model, digits.test).clean for run in (cached, plain))
    assert abs(a - b) <= 1


def assert_close(model, other):
    for name, tensor in other.state_dict().items():
        assert torch.allclose(model.state_dict()[name], tensor, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize(
    "setting",
    [
        {"momentum": 0.5},
        {"nesterov": False},
        {"weight_decay": 0.05},
        {"schedule": "constant"},
        {"schedule": "step", "milestones": (1,)},
        {"batch_size": 32},
        {"epochs": 3},
        {"lr": 0.02},
        {"seed": 4},
    ],
    ids=lambda setting: "-".join(setting),
)
def test_a_recipe_is_honoured_on_the_cache(source, digits, setting):
    trunk = FrozenTrunk(source, digits, 0)
    usual = wb.finetune(source, digits, 0, trunk=trunk, **SHORT)
    changed = wb.finetune(source, digits, 0, trunk=trunk, **{**SHORT, **setting})
    assert not torch.equal(changed.model.head.weight, usual.model.head.weight)
    plain = wb.finetune(source, digits, 0, cache="never", precision="fp32", **{**SHORT, **setting})
    assert_close(changed.model, plain.model)
    for name, value in setting.items():
        assert changed.config[name] == (list(value) if isinstance(value, tuple) else value)


class Tracker:
    """A user's own."""

    def __init__(self):
        self.records = []

    def log(self, values, step):
        self.records.append(step)

    def finish(self):
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ema", 0.9),
        ("precision", "bf16"),
        ("threads", 1),
        ("compile", True),
        ("sync_batchnorm", True),
        ("checkpoint_minutes", 1.0),
        ("trackers", (Tracker(),)),
    ],
)
@pytest.mark.parametrize("mode", ["linear", 0])
def test_a_setting_that_a_cache_cannot_honour_is_refused(source, digits, monkeypatch, mode, name, value):
    fills = count_calls(monkeypatch, "fill")
    with pytest.raises(wb.UsageError) as caught:
        wb.finetune(source, digits, mode, **SHORT, **{name: value})
    assert str(caught.value).startswith(f"{name}={value!r} cannot be honoured")
    assert "cache='never', or mode=1 or 2" in str(caught.value)
    assert not fills, "refused before the trunk is run"
    with pytest.raises(wb.UsageError, match=name):
        FrozenTrunk(source, digits, mode).fit(**SHORT, **{name: value})


def test_what_a_cache_cannot_honour_the_whole_network_does(source, digits):
    tracker = Tracker()
    once = {**SHORT, "epochs": 1}
    more = {"ema": 0.9, "precision": "bf16", "checkpoint_minutes": 1.0, "trackers": [tracker]}
    run = wb.finetune(source, digits, "linear", cache="never", **once, **more)
    assert (run.config["ema"], run.config["precision"], tracker.records) == (0.9, "bf16", [1])
    run = wb.finetune(source, digits, 1, **once, ema=0.9)
    assert run.config["ema"] == 0.9
    run = wb.finetune(source, digits, 0, **once, precision="fp32", workers=0, ema=0.0, trackers=())
    assert run.config["precision"] == "fp32", "what a cache does anyway may be asked for"


def test_an_epoch_is_chosen_on_held_out_images_only_without_a_cache(source, digits):
    config = wb.TrainConfig(epochs=2, lr=0.1, augment="none", watch=0, validation=0.25, progress=False)
    with pytest.raises(wb.UsageError, match=r"validation=0\.25 cannot be honoured"):
        wb.finetune(source, digits, 0, config=config)
    run = wb.finetune(source, digits, 1, config=config)
    assert all("validation_clean" in record for record in run.history)


def test_the_network_is_split_and_run_once(source, digits, monkeypatch):
    splits, fills = count_calls(monkeypatch, "split"), count_calls(monkeypatch, "fill")
    wb.finetune(source, digits, 0, epochs=1, lr=(0.01, 0.1), search_epochs=1)
    assert (len(splits), len(fills)) == (1, 1), "test images are not needed"
    wb.finetune(source, digits, 0, epochs=2, lr=0.1, watch=1)
    assert (len(splits), len(fills)) == (2, 3)
    trunk = FrozenTrunk(source, digits, 0)
    assert len(fills) == 3, "nothing is run before it is needed"
    runs = [trunk.fit(epochs=1, lr=0.1, seed=seed) for seed in (0, 1)]
    scores = [trunk.score(run.model) for run in runs]
    assert (len(splits), len(fills)) == (3, 5)
    assert scores == [wb.evaluate(run.model, digits.test) for run in runs]


def test_the_score_counts_as_evaluate_does(source, digits):
    trunk = FrozenTrunk(source, digits, 0)
    run = wb.finetune(source, digits, 0, trunk=trunk, **SHORT)
    assert trunk.score(run.model) == wb.evaluate(run.model, digits.test)
    indices = torch.arange(0, 200, 3)
    subset = torch.utils.data.Subset(digits.train, indices.tolist())
    assert trunk.accuracy(run.model, indices) == pytest.approx(float(wb.evaluate(run.model, subset).clean))
    with torch.no_grad():
        run.model.head.bias.fill_(torch.nan)
    assert trunk.score(run.model).clean == 0, "NaN is never right"


def test_a_trunk_is_for_one_model_task_and_mode(source, digits):
    trunk = FrozenTrunk(source, digits, "linear", augment="crop", views=2)
    other = wb.create_model("resnet18", 10, width=4, in_channels=1, seed=1)
    wrong = {
        "another model": (other, digits, "linear", {}),
        "another data": (source, replace(digits, name="others"), "linear", {}),
        "mode=0": (source, digits, 0, {}),
        "augment='none'": (source, digits, "linear", {"augment": "none"}),
        "views=3": (source, digits, "linear", {"views": 3}),
        "cache='never'": (source, digits, "linear", {"cache": "never"}),
    }
    for message, (model, data, mode, settings) in wrong.items():
        with pytest.raises(wb.UsageError, match=message):
            wb.finetune(model, data, mode, trunk=trunk, **{"augment": "crop", **SHORT, **settings})
    for views in (1, 2):
        run = wb.finetune(source, digits, "linear", trunk=trunk, augment="crop", views=views, **SHORT)
        assert run.config["finetune"]["cache"] == "memory, float32, 2 views"
    with pytest.raises(wb.UsageError, match="mode=1"):
        FrozenTrunk(source, digits, 1)


def test_an_epoch_on_the_cache_is_much_faster(digits):
    source = wb.create_model("resnet18", 10, width=16, in_channels=1, seed=0)
    trunk = FrozenTrunk(source, digits, "linear")

    def seconds(epochs, **settings):
        history = wb.finetune(source, digits, "linear", **{**SHORT, "epochs": epochs}, **settings).history
        return min(record["seconds"] for record in history)

    # Epochs of milliseconds: of many the fastest is one that a busy machine left alone.
    assert seconds(4, cache="never", precision="fp32") > 5 * seconds(40, trunk=trunk)


def test_views_are_augmented_copies(source, digits):
    trunk = FrozenTrunk(source, digits, "linear", augment="crop", views=3)
    first, second, third = trunk.train.values[0]
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert trunk.test.views == 1
    one_view = FrozenTrunk(source, digits, "linear", augment="crop")
    for epochs, same in ((1, True), (2, False)):
        a, b = (t.fit(epochs=epochs, lr=0.1).model.head.weight for t in (one_view, trunk))
        assert torch.equal(a, b) == same, "the second epoch takes the second view"
    run = wb.finetune(source, digits, "linear", augment="crop", views=3, **SHORT)
    assert "3 views" in run.config["finetune"]["cache"]
    for mode in ("linear", 1):
        with pytest.raises(wb.UsageError, match="views=2 of images that are not augmented"):
            wb.finetune(source, digits, mode, views=2, **SHORT)


@pytest.mark.parametrize(("mode", "settings"), [(1, {}), (2, {}), ("linear", {"cache": "never"})])
def test_views_without_a_cache_are_refused(source, digits, mode, settings):
    with pytest.raises(wb.UsageError, match=r"views=3 .* leave views out"):
        wb.finetune(source, digits, mode, augment="crop", views=3, **settings, **SHORT)


def test_a_cache_too_large_for_memory_is_a_file_and_beyond_the_budget_refused(source, digits):
    exact = FrozenTrunk(source, digits, "linear")
    mapped = FrozenTrunk(source, digits, "linear", memory_bytes=100)
    assert str(mapped) == "file, bfloat16, 1 view"
    assert mapped.train.values[0].dtype == torch.bfloat16
    assert torch.allclose(mapped.train.values[0].float(), exact.train.values[0], rtol=1e-2, atol=1e-2)
    with pytest.raises(wb.UsageError, match="budget"):
        FrozenTrunk(source, digits, "linear", memory_bytes=100, disk_bytes=100)


def test_a_plan_of_several_outputs(digits):
    class Pair(nn.Module):
        def forward(self, x):
            return x.flatten(1), x.mean((2, 3))

    plan = CachePlan.of(Pair()(torch.zeros(1, 1, 8, 8)), views=1, total=len(digits.test))
    cache = fill(plan, Pair(), digits.test, digits.num_classes)
    assert [v.shape for v in cache.values] == [(1, 100, 64), (1, 100, 1)]
    x, y = digits.test[7]
    (pixels, mean), labels = cache.batch(torch.tensor([7]), 0, torch.device("cpu"))
    assert torch.equal(pixels[0], x.flatten())
    assert float(mean) == pytest.approx(float(x.mean()))
    assert labels.tolist() == [y]


def test_a_network_that_cannot_be_cut_is_trained_as_a_whole(untraceable, digits):
    with pytest.raises(UntraceableError):
        split(untraceable, ["head"])
    with pytest.raises(UntraceableError):
        FrozenTrunk(untraceable, digits, "linear")
    run = wb.finetune(untraceable, digits, "linear", **SHORT, ema=0.5)
    assert run.config["finetune"]["cache"] == "none"
    assert run.config["ema"] == 0.5
    with pytest.raises(wb.UsageError, match="logistic"):
        wb.finetune(untraceable, digits, "linear", solver="logistic")


def test_a_cached_run_has_its_folder_and_is_not_repeated(source, digits, tmp_path, monkeypatch):
    first = wb.finetune(source, digits, 0, tmp_path / "run", watch=1, **SHORT)
    assert [set(r) >= {"epoch", "loss", "test_clean"} for r in first.history] == [True, True]
    fills = count_calls(monkeypatch, "fill")
    again = wb.finetune(source, digits, 0, tmp_path / "run", watch=1, **SHORT)
    assert again.history == first.history
    assert not fills, "a finished run needs no cache"
    loaded = wb.load_model(tmp_path / "run")
    assert all(torch.equal(v, first.model.state_dict()[k]) for k, v in loaded.state_dict().items())
    with pytest.raises(wb.UsageError, match="another out="):
        wb.finetune(source, digits, 0, tmp_path / "run", watch=1, **{**SHORT, "lr": 0.2})
    with pytest.raises(wb.UsageError, match="resume='never'"):
        wb.finetune(source, digits, 0, tmp_path / "run", watch=1, resume="never", **SHORT)


def test_a_trunk_by_itself(source, digits, tmp_path):
    trunk = FrozenTrunk(source, digits, "linear", augment="crop")
    run = trunk.fit(epochs=1, lr=0.1, out=tmp_path / "run", notes={"by": "hand"})
    assert (run.config["augment"], run.config["by"]) == ("crop", "hand")
    assert trunk.fit(wb.TrainConfig(augment="crop"), epochs=1, lr=0.1).config["epochs"] == 1
    with pytest.raises(wb.UsageError, match="augment='none', but the trunk caches images of augment='crop'"):
        trunk.fit(augment="none", epochs=1)
    with pytest.raises(wb.UsageError, match="did you mean 'epochs'"):
        trunk.fit(epoch=1)
    assert trunk.fit_logistic().history[0]["strength"] > 0
    with pytest.raises(wb.UsageError, match="mode='linear', not 0"):
        FrozenTrunk(source, digits, 0).fit_logistic()


def test_the_cache_is_on_a_device_that_has_room(source, digits, monkeypatch):
    outputs, gpu = [torch.zeros(1, 256)], torch.device("cuda", 1)  # 1 KiB an image
    free = {}
    monkeypatch.setattr(activation_cache, "free_bytes", lambda device: free.get(device, 0))
    for room, memory, place in (
        (4 * 2**20, 0, "memory of cuda:1, float32, 1 view"),
        (4 * 2**20 - 1, 2**20, "memory, float32, 1 view"),
        (4 * 2**20 - 1, 2**20 - 1, "file, bfloat16, 1 view"),
    ):
        free[gpu] = room
        plan = CachePlan.of(outputs, 1, 1024, memory, device=gpu)
        assert str(plan) == place
        assert plan.record == place.replace(" of cuda:1", ""), "another day the same device may have no room"
    monkeypatch.undo()
    assert FrozenTrunk(source, digits, "linear", device="cpu").device == torch.device("cpu")


def test_a_trunk_runs_as_a_copy_where_it_is_asked_to(source, digits):
    here, before = FrozenTrunk(source, digits, "linear"), list(source.parameters())
    there = fill(here._plans[0], here._trunk, digits.train, 10, device=torch.device("cpu", 0))
    assert torch.equal(there.values[0], here.train.values[0])
    assert all(p is q for p, q in zip(source.parameters(), before, strict=True))


def test_devices_that_are_not_there_or_not_the_trunks_are_refused(source, digits):
    run = wb.finetune(source, digits, "linear", device="cpu")
    assert run.config["finetune"]["cache"] == "memory, float32, 1 view"
    assert run.config["finetune"]["solver"] == "logistic", "a device speaks of no steps"
    with pytest.raises(wb.UsageError, match="device='gpu' is not there; write 'cpu', or leave it out"):
        wb.finetune(source, digits, "linear", device="gpu")
    with pytest.raises(wb.UsageError, match="device='cpu' is that of a cache"):
        wb.finetune(source, digits, 2, device="cpu", **SHORT)
    trunk = FrozenTrunk(source, digits, "linear")
    with pytest.raises(wb.UsageError, match="device='meta', but trunk= is on 'cpu'"):
        wb.finetune(source, digits, "linear", trunk=trunk, device="meta")
