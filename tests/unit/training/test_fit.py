import copy
import json
import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import waterbed as wb
from waterbed.data.images import TensorImages
from waterbed.models.classifier import weight_norm
from waterbed.training import checkpointing
from waterbed.training.config import TrainConfig
from waterbed.training.fit import fit
from waterbed.training.run_folder import Run, RunFolder


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def new_model(seed=0):
    return wb.create_model("resnet10", 10, width=2, in_channels=1, seed=seed)


SHORT = {"epochs": 3, "batch_size": 64, "watch": 0, "progress": False, "precision": "fp32"}


def test_learns_and_records(digits, tmp_path):
    run = wb.fit(new_model(), digits, out=tmp_path / "run", **{**SHORT, "epochs": 8, "lr": 0.2, "watch": 50})
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    assert float(wb.evaluate(run.model, digits.test).clean) > 40
    assert {"config.toml", "environment.json", "metrics.jsonl", "weights.safetensors", "weights.json"} <= {
        p.name for p in (tmp_path / "run").iterdir()
    }
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 9))
    again = Run.load(tmp_path / "run")
    assert same_weights(again.model, run.model)
    assert again.history == run.history
    assert (tmp_path / "run/config.toml").read_text().startswith("schema = 1\n")
    assert again.config == run.config


def test_normalisation_comes_from_the_training_data_only_where_there_is_none(digits):
    model = new_model()
    wb.fit(model, digits, **{**SHORT, "epochs": 1})
    pixels = torch.stack([x for x, _ in digits.train])
    assert torch.allclose(model.mean.flatten(), pixels.mean((0, 2, 3)))
    assert torch.allclose(model.std.flatten(), pixels.std((0, 2, 3), correction=0), rtol=1e-4)
    model.set_normalisation([0.1], [0.2])
    wb.fit(model, digits, **{**SHORT, "epochs": 1})
    assert model.mean.flatten().tolist() == pytest.approx([0.1])


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator(digits):
    state = torch.get_rng_state()
    objective = wb.AdversarialTraining(wb.PGD(eps=0.3, steps=1))
    a, b, c = (fit(new_model(), digits, objective, **SHORT, seed=s).model for s in (0, 0, 1))
    assert same_weights(a, b)
    assert not same_weights(a, c)
    assert torch.equal(state, torch.get_rng_state())


class Stop(Exception):
    pass


def interrupted_after(batches, data):
    """The same data, whose training images stop the program after so many batches."""
    calls = iter(range(10**6))

    class Stopping(TensorImages):
        def batch(self, indices):
            if next(calls) == batches:
                raise Stop
            return super().batch(indices)

    return replace(data, train=Stopping(data.train.images, data.train.labels))


def test_a_resumed_run_ends_as_if_it_had_not_stopped(digits, tmp_path):
    objective = wb.AdversarialTraining(wb.PGD(eps=0.3, steps=1))
    whole = wb.fit(new_model(), digits, objective, tmp_path / "whole", **SHORT)
    with pytest.raises(Stop):
        wb.fit(new_model(), interrupted_after(7, digits), objective, tmp_path / "parts", **SHORT)
    resumed = wb.fit(new_model(7), digits, objective, tmp_path / "parts", **SHORT)
    assert same_weights(whole.model, resumed.model)
    assert [r["loss"] for r in whole.history] == [r["loss"] for r in resumed.history]


def test_a_finished_run_is_returned_and_another_config_refused(digits, tmp_path):
    first = wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT)
    before = {p: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    again = wb.fit(new_model(5), digits, out=tmp_path / "run", **SHORT)
    assert same_weights(first.model, again.model)
    with pytest.raises(wb.UsageError, match=r"lr=0\.1, not 0\.3"):
        wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, lr=0.3)
    with pytest.raises(wb.UsageError, match="resume='never'"):
        wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, resume="never")
    assert all(p.read_bytes() == content for p, content in before.items() if p.name == "weights.safetensors")


def test_validation_keeps_the_best_epoch_and_never_sees_the_test_set(digits, tmp_path):
    untouchable = SimpleNamespace(
        train=digits.train, test=Forbidden(), classes=digits.classes, num_classes=10, shape=(1, 8, 8), name="d"
    )
    run = wb.fit(new_model(), untouchable, out=tmp_path / "run", validation=0.25, **{**SHORT, "epochs": 5})
    scores = [r["validation_clean"] for r in run.history]
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))[:64]
    held = [digits.train[int(i)] for i in order]
    assert float(wb.evaluate(run.model, held).clean) == max(scores)
    assert same_weights(run.model, wb.load_model(tmp_path / "run"))


class Forbidden:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise AssertionError("the test set was read")


def test_any_object_with_tensor_labels_will_do():
    class Mine:
        train = [(torch.rand(1, 6, 6), torch.tensor(i % 2)) for i in range(10)]  # noqa: RUF012
        test = train
        classes = ("a", "b")
        num_classes = 2
        shape = (1, 6, 6)
        name = "mine"

    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    run = wb.fit(model, Mine, epochs=1, batch_size=4, progress=False)
    assert len(run.history) == 1


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_only_the_named_modules_train(digits, ema):
    model = new_model()
    before = copy.deepcopy(model.state_dict())
    fit(model, digits, trained=[model.head], ema=ema, **SHORT)
    moved = {k for k, v in model.state_dict().items() if k in before and not torch.equal(v, before[k])}
    assert moved == {"head.weight", "head.bias"}


class Watched(wb.Standard):
    """Keeps the weights that every step starts from."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def __call__(self, model, forward, x, y):
        self.weights.append(copy.deepcopy(model.state_dict()))
        return super().__call__(model, forward, x, y)


def test_averaged_weights_are_watched_and_kept(digits, tmp_path):
    model, objective = new_model(), Watched()
    model.register_buffer("index", torch.tensor([7, 11]))
    run = wb.fit(model, digits, objective, tmp_path / "run", ema=0.7, **{**SHORT, "epochs": 10, "watch": 100})
    state = RunFolder(tmp_path / "run").state()
    after = [*objective.weights[1:], state["model"]]
    assert len(after) == 40
    for name, kept in run.model.state_dict().items():
        if not kept.is_floating_point():
            assert torch.equal(kept, state["model"][name]), name
            continue
        mean = after[0][name].double()
        for t, weights in enumerate(after[1:], 1):
            decay = min(0.7, (1 + t) / (10 + t))
            mean = decay * mean + (1 - decay) * weights[name].double()
        assert torch.allclose(kept.double(), mean, rtol=1e-5, atol=1e-6), name
    assert run.model.index.tolist() == [7, 11]
    assert not same_weights(run.model, SimpleNamespace(state_dict=lambda: state["model"]))
    last = run.history[-1]
    assert float(wb.evaluate(run.model, digits.test, num_samples=100).clean) == last["test_clean"]
    assert weight_norm(run.model) == pytest.approx(last["weight_norm"], rel=1e-12)
    tensors = load_file(tmp_path / "run/weights.safetensors")
    assert all(torch.equal(tensors[name], kept) for name, kept in run.model.state_dict().items())


def test_a_run_from_before_there_were_averages_goes_on_without(digits, tmp_path):
    whole = wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT)
    file = tmp_path / "run/config.toml"
    file.write_text("".join(line for line in file.read_text().splitlines(True) if not line.startswith("ema")))
    assert same_weights(whole.model, wb.fit(new_model(5), digits, out=tmp_path / "run", **SHORT).model)
    with pytest.raises(wb.UsageError, match=r"ema=0\.0, not 0\.9"):
        wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, ema=0.9)


def test_schedules():
    def factors(schedule):
        s = TrainConfig(schedule=schedule)
        return [s.rate(t / 30) for t in range(30)]

    rise = factors("one-cycle")
    assert max(rise) == pytest.approx(1)
    assert rise.index(max(rise)) == 9
    assert rise[0] == pytest.approx(0.04)
    assert factors("step") == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.01] * 10)
    assert factors("cosine")[15] == pytest.approx(0.5)
    assert set(factors("constant")) == {1.0}


def test_every_image_is_seen_and_batches_are_of_one_size(digits):
    seen = []

    class Counting(wb.Standard):
        def __call__(self, model, forward, x, y):
            seen.append(len(x))
            return super().__call__(model, forward, x, y)

    wb.fit(new_model(), digits, Counting(), **{**SHORT, "epochs": 1, "batch_size": 100})
    assert seen == [86, 85, 85]


def test_a_start_that_failed_can_be_repeated_with_other_settings(digits, tmp_path):
    with pytest.raises(wb.DivergenceError):
        wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, lr=1e30)
    assert wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, lr=0.1).config["lr"] == 0.1


def test_weights_without_their_state_are_not_overwritten(digits, tmp_path):
    wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT)
    for name in ("state.pt", "previous-state.pt"):
        (tmp_path / "run" / name).unlink()
    before = (tmp_path / "run/weights.safetensors").read_bytes()
    with pytest.raises(wb.UsageError, match="no state"):
        wb.fit(new_model(3), digits, out=tmp_path / "run", **SHORT)
    assert (tmp_path / "run/weights.safetensors").read_bytes() == before


def test_another_module_in_the_same_folder_is_refused(digits, tmp_path):
    def own(width):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))

    wb.fit(own(8), digits, out=tmp_path / "run", **SHORT)
    with pytest.raises(wb.UsageError, match=r"model\.weights="):
        wb.fit(own(9), digits, out=tmp_path / "run", **SHORT)


def test_config_that_toml_cannot_hold_leaves_no_folder(digits, tmp_path):
    with pytest.raises(wb.UsageError, match="TOML"):
        wb.fit(new_model(), digits, out=tmp_path / "run", notes={"author": None}, **SHORT)
    assert not (tmp_path / "run").exists()


def test_tied_weights_are_saved(digits, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 10))
    model[3].weight = model[1].weight
    wb.fit(model, digits, out=tmp_path / "run", **SHORT)
    assert (tmp_path / "run/weights.safetensors").is_file()


def test_objective_of_a_wrong_kind(digits):
    for wrong in ("adversarial", wb.Standard):
        with pytest.raises(TypeError, match=r"must be an objective|is a class; write Standard"):
            wb.fit(new_model(), digits, wrong, **SHORT)
    frozen = new_model().requires_grad_(False)
    with pytest.raises(wb.UsageError, match="requires a gradient"):
        wb.fit(frozen, digits, **SHORT)


def test_divergence_names_epoch_and_batch(digits, tmp_path):
    with pytest.raises(wb.DivergenceError, match="epoch 1, batch"):
        wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, lr=1e30)
    assert (tmp_path / "run/diverged.pt").is_file()


def test_bf16_trains_too(digits):
    run = wb.fit(new_model(), digits, wb.TRADES(wb.PGD(eps=0.2, steps=1)), **{**SHORT, "precision": "bf16"})
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert run.config["precision"] == "bf16"


def test_an_exported_run_is_one_file_with_its_card(digits, tmp_path):
    notes = {"source": {"name_or_folder": "/home/someone/digits"}}
    run = wb.fit(new_model(), digits, out=tmp_path / "run", **{**SHORT, "epochs": 1}, notes=notes)
    run.export(tmp_path / "kept.safetensors", {"remark": "for the tests"})
    again = Run.load(tmp_path / "kept.safetensors")
    assert same_weights(again.model, run.model)
    assert again.history == run.history
    assert again.config == {k: v for k, v in run.config.items() if k != "source"}
    card = (tmp_path / "kept.json").read_text()
    assert "someone" not in card
    assert "for the tests" in card
    wb.save_model(run.model, tmp_path / "bare.safetensors")
    bare = Run.load(tmp_path / "bare.safetensors")
    assert same_weights(bare.model, run.model)
    assert (bare.history, bare.config) == ([], {}), "its training is not recorded"


def test_narrow_networks_keep_the_usual_memory_order():
    from waterbed.devices import memory_format

    assert memory_format(wb.create_model("resnet10", 10, width=8)) is torch.contiguous_format
    assert memory_format(wb.create_model("resnet10", 10, width=16)) is torch.channels_last


def test_training_a_narrow_network_on_two_threads_ends_well(tmp_path):
    """In channels-last order the process died of damaged memory on some processors."""
    script = """
import torch, waterbed as wb
torch.set_num_threads(2)
data = wb.load_dataset("fashion-mini", size=16).take(1000, 20)
model = wb.create_model("resnet10", 10, width=8, in_channels=1, seed=0)
wb.fit(model, data, wb.Standard(), epochs=1, lr=0.2, augment="none", watch=0, progress=False)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]


def test_a_divergence_between_reads_is_not_saved_over_a_good_state(digits, tmp_path, monkeypatch):
    """As on a GPU, where the losses are not read after every batch."""
    monkeypatch.setitem(checkpointing.BATCHES_BETWEEN_READS, "cpu", 50)
    settings = {**SHORT, "epochs": 2}

    class DivergingLater(wb.Standard):
        calls = 0

        def __call__(self, model, forward, x, y):
            loss, logits = super().__call__(model, forward, x, y)
            self.__class__.calls += 1
            return loss * (math.nan if self.calls > steps + 1 else 1.0), logits

    steps = math.ceil(len(digits.train) / settings["batch_size"])
    with pytest.raises(wb.DivergenceError, match="epoch 2, batch 2"):
        wb.fit(new_model(), digits, DivergingLater(), out=tmp_path / "run", **settings)
    folder = RunFolder(tmp_path / "run")
    assert (tmp_path / "run/diverged.pt").is_file()
    assert len(folder.state()["history"]) == 1
    assert all(bool(torch.isfinite(t).all()) for t in folder.state()["model"].values())
