"""The optimiser of a training, its groups, clipping and accumulation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

import waterbed as wb
from waterbed.__main__ import main
from waterbed.training.config import TrainConfig
from waterbed.training.optimizers import make_optimizer
from waterbed.training.run_folder import Run
from waterbed.training.state import Job
from waterbed.transfer_learning.search import GRIDS, WHOLE_NETWORK_GRIDS

SHORT = {"epochs": 2, "batch_size": 64, "watch": 0, "progress": False, "precision": "fp32", "augment": "none"}


def new_model():
    return wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def adam(parameters):
    return torch.optim.Adam(parameters, lr=2e-3)


def test_adamw_has_its_own_default_rate(digits):
    run = wb.fit(new_model(), digits, **SHORT, optimizer="adamw", schedule="constant")
    assert (run.config["optimizer"], run.config["lr"], run.history[-1]["lr"]) == ("adamw", 1e-3, 1e-3)
    assert TrainConfig().learning_rate == TrainConfig().record()["lr"] == 0.1
    assert TrainConfig.of(TrainConfig(), {"optimizer": "adamw"}).learning_rate == 1e-3
    assert not same_weights(run.model, wb.fit(new_model(), digits, **SHORT, lr=1e-3, schedule="constant").model)


@pytest.mark.parametrize("lr", [0.1, 1e-3, 0.02])
def test_a_rate_that_is_given_is_obeyed(digits, lr):
    """Also one that is the default of the other optimiser."""
    for optimizer in ("sgd", "adamw"):
        config = TrainConfig(**{**SHORT, "epochs": 1}, optimizer=optimizer, lr=lr, schedule="constant")
        run = wb.fit(new_model(), digits, config=config)
        assert (run.config["lr"], run.history[-1]["lr"]) == (lr, lr)
        assert make_optimizer(list(new_model().parameters()), config).defaults["lr"] == lr


def test_print_config_prints_the_rate_in_force(capsys):
    for words, rate in (
        ([], "0.1"),
        (["--optimizer", "adamw"], "0.001"),
        (["--optimizer", "adamw", "--lr", "0.1"], "0.1"),
    ):
        assert main(["train", "digits", "--out", "o", "--print-config", *words]) == 0
        assert f"\nlr = {rate}\n" in capsys.readouterr().out


def test_a_factory_makes_the_optimiser_and_is_recorded_by_its_name(digits, tmp_path):
    run = wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, optimizer=adam)
    assert run.config["optimizer"] == f"{__name__}.adam"
    assert max(record["lr"] for record in run.history) <= 2e-3
    assert "lr" not in run.config
    assert Run.load(tmp_path / "run").config == run.config
    again = wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, optimizer=adam)
    assert again.history == run.history
    with pytest.raises(wb.UsageError, match=r"optimizer='.*adam', not 'sgd'"):
        wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT)


def test_wrong_optimisers_are_named(digits):
    with pytest.raises(wb.UsageError, match=r"optimizer='adam' is unknown.*'adamw'"):
        TrainConfig(optimizer="adam")
    with pytest.raises(TypeError, match=r"<lambda> returned list; it must return a torch\.optim\.Optimizer"):
        wb.fit(new_model(), digits, **SHORT, optimizer=lambda parameters: parameters)
    for setting in ({"lr": 0.3}, {"weight_decay": 0.0}, {"decay_norms": False}):
        with pytest.raises(wb.UsageError, match=f"{next(iter(setting))}=.* does not reach optimizer="):
            TrainConfig(optimizer=adam, **setting)


def test_norms_and_biases_without_decay():
    model = new_model()
    everything = make_optimizer(list(model.parameters()), TrainConfig())
    assert [group["weight_decay"] for group in everything.param_groups] == [5e-4]
    for name in ("sgd", "adamw"):
        decayed, free = make_optimizer(
            list(model.parameters()), TrainConfig(optimizer=name, decay_norms=False)
        ).param_groups
        assert (decayed["weight_decay"], free["weight_decay"]) == (5e-4, 0.0)
        norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
        assert {id(p) for p in free["params"]} == norms | {id(model.head.bias)}


def step(job, x, y):
    logits = job.model(x)
    job.step(torch.Tensor.backward, F.cross_entropy(logits, y), logits, y)


def stepped(batches, of=None, **settings):
    model = nn.Linear(4, 3)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    config = TrainConfig(epochs=1, schedule="constant", momentum=0.0, weight_decay=0.0, **settings)
    job = Job(model, None, config, steps=of or len(batches))
    for batch in batches:
        step(job, *batch)
    return model, job


def test_accumulated_batches_are_one_larger_batch():
    x, y = torch.rand(10, 4), torch.randint(3, (10,))
    parts = list(zip(x.split(2), y.split(2), strict=True))
    groups = [(x[:4], y[:4]), (x[4:8], y[4:8]), (x[8:], y[8:])]  # the last of an epoch is smaller
    small, job = stepped(parts, accumulate=2)
    large, _ = stepped(groups)
    assert torch.allclose(small.weight, large.weight, atol=1e-6)
    assert job.scheduler.last_epoch == 3
    assert not torch.allclose(small.weight, stepped(parts)[0].weight, atol=1e-6)


def test_a_state_within_accumulated_batches_has_their_gradient():
    x, y = torch.rand(8, 4), torch.randint(3, (8,))
    parts = list(zip(x.split(2), y.split(2), strict=True))
    whole, _ = stepped(parts, accumulate=4)
    _, stopped = stepped(parts[:2], of=4, accumulate=4)
    again, job = stepped([], of=4, accumulate=4)
    job.restore(stopped.snapshot())
    for part in parts[2:]:
        step(job, *part)
    assert torch.equal(again.weight, whole.weight)
    assert not torch.equal(again.weight, stopped.model.weight)


def test_clipping_bounds_the_step_and_reads_nothing():
    x, y = 100 * torch.rand(4, 4), torch.randint(3, (4,))
    clipped, job = stepped([(x, y)], clip_norm=0.5, lr=1.0)
    moved = torch.cat([(clipped.weight - 1).flatten(), clipped.bias]).norm().detach()
    assert float(moved) == pytest.approx(0.5, abs=1e-4)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step(job, x, y)
    assert "aten::_local_scalar_dense" not in {event.key for event in profiler.key_averages()}


def test_earlier_runs_had_the_defaults(digits, tmp_path):
    run = wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT)
    file = tmp_path / "run/config.toml"
    younger = ("optimizer", "decay_norms", "clip_norm", "accumulate")
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith(younger)))
    assert "optimizer" not in Run.load(tmp_path / "run").config
    assert wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT).history == run.history
    with pytest.raises(wb.UsageError, match=r"accumulate=1, not 2"):
        wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, accumulate=2)


def test_fine_tuning_takes_them_on_a_cache_and_without(digits):
    short = {**SHORT, "epochs": 1}
    for mode, grids in (("linear", GRIDS), (2, WHOLE_NETWORK_GRIDS)):
        run = wb.finetune(new_model(), digits.take(60, 10), mode, **short, optimizer="adamw")
        assert run.config["finetune"]["search"]["rates"] == list(grids["adamw"].rates)
        own = wb.finetune(new_model(), digits, mode, **short, optimizer=adam, clip_norm=1.0, accumulate=2)
        assert own.config["optimizer"] == f"{__name__}.adam"
        assert "search" not in own.config["finetune"]
    with pytest.raises(wb.UsageError, match=r"lr=0\.3 does not reach"):
        wb.finetune(new_model(), digits, 2, **short, optimizer=adam, lr=0.3)
    table = wb.transfer({"a": new_model()}, [digits], "linear", seeds=[0, 1], **short, optimizer=adam)
    assert [row["lr"] for row in table.rows] == [None, None]


def test_the_command_line_trains_with_adamw(tmp_path, capsys):
    words = ["train", "digits", "--model", "resnet10", "--width", "2", "--epochs", "1", "--watch", "0", "--no-progress"]
    out = str(tmp_path / "run")
    more = ["--objective", "standard", "--optimizer", "adamw", "--no-decay-norms", "--batch-size", "512"]
    assert main([*words, "--out", out, *more]) == 0
    config = Run.load(out).config
    assert (config["optimizer"], config["lr"], config["decay_norms"]) == ("adamw", 1e-3, False)
