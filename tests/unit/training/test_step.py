"""A step never waits for the device."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import waterbed as wb
from waterbed.data.augment import augmentation
from waterbed.data.images import OnDevice, to_float
from waterbed.data.mixing import mixing
from waterbed.distributed import Engine
from waterbed.training import checkpointing
from waterbed.training.config import TrainConfig
from waterbed.training.fit import attacked_network, step
from waterbed.training.state import Job, Meter

# What .item(), float(), bool() and tolist() of a tensor end in.
READS = "aten::_local_scalar_dense"
ATTACK = wb.PGD(eps=0.5, steps=2)


class Reading(wb.Standard):
    """Reads its loss, as an objective should not."""

    def __call__(self, model, forward, x, y):
        loss, logits = super().__call__(model, forward, x, y)
        return loss * float(loss > 0), logits


def reads_in_a_step(objective, data):
    model = wb.create_model("resnet10", 10, width=4, in_channels=1)
    engine = Engine("fp32")
    job = Job(model, None, TrainConfig(), steps=10)
    attacked = attacked_network(model, objective, data, engine)
    x, y = wb.stack(data.train, 8)
    job.train_mode()
    step(job, objective, attacked(), model, x, y, engine)  # the first one makes the optimiser's state
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step(job, objective, attacked(), model, x, y, engine)
    return {event.key: event.count for event in profiler.key_averages()}.get(READS, 0)


@pytest.mark.parametrize(
    "objective",
    [wb.Standard(), wb.AdversarialTraining(ATTACK), wb.TRADES(ATTACK), wb.MART(ATTACK), wb.GaussianNoise(0.5)],
    ids=str,
)
def test_a_step_reads_nothing_back(objective, digits):
    assert reads_in_a_step(objective, digits) == 0


class Reads(TorchDispatchMode):
    """Counts the operations that wait for a device: of values, and of shapes that depend on values."""

    WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::unique_dim")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count += function.name().split(".")[0] in self.WAITING
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("more", [{}, {"clip_norm": 1.0}, {"color_jitter": 0.2}, {"rotation": 9.0}], ids=str)
def test_nothing_is_read_from_the_draw_of_a_batch_to_the_end_of_its_step(digits, more):
    config = TrainConfig(augment="crop-flip", **more)
    data, engine, objective = (
        OnDevice(digits.train, torch.device("cpu")),
        Engine("fp32"),
        wb.AdversarialTraining(ATTACK),
    )
    model = wb.create_model("resnet10", 10, width=4, in_channels=1)
    job = Job(model, None, config, steps=10)
    attacked = attacked_network(model, objective, digits, engine)
    augmented, mixed = augmentation(config, digits), mixing(config, 10)
    job.train_mode()

    def draw_and_step():
        x, y = data.read_pixels(torch.arange(8))
        x, y = mixed(augmented(to_float(x)), y)
        step(job, objective, attacked(), model, engine.place(x, model), y, engine)

    draw_and_step()
    # An attack's images are checked on a CPU at every batch, elsewhere now and then.
    object.__setattr__(objective._attack, "check_values", lambda: None)
    with Reads() as reads:
        draw_and_step()
    assert reads.count == 0
    with Reads() as reads:
        float(torch.ones(1))
        torch.ones(2).nonzero()
    assert reads.count == 2


def test_a_read_would_be_counted(digits):
    assert reads_in_a_step(Reading(), digits) == 1


def test_the_meter_names_the_first_loss_that_is_not_finite():
    logits, y = torch.eye(4), torch.tensor([0, 1, 2, 0])
    meter = Meter()
    for loss in (2.0, 4.0):
        meter.add(torch.tensor(loss), logits, y)
    assert meter.read() is None
    assert meter.record() == {"loss": 3.0, "train_accuracy": 75.0}
    assert str(meter) == "loss 3.000, accuracy 75.0 %"
    for loss in (math.nan, 1.0, math.inf):
        meter.add(torch.tensor(loss), logits, y)
    assert meter.read() == 3


def test_a_meter_goes_on_from_its_state():
    logits, y = torch.eye(2), torch.tensor([0, 0])
    meter = Meter()
    meter.add(torch.tensor(1.5), logits, y)
    again = Meter(**meter.state())
    for each in (meter, again):
        each.add(torch.tensor(0.1), logits, y)
    assert again.record() == meter.record()
    assert again.batches == 2


def test_processes_save_only_what_none_of_them_found_diverged(monkeypatch):
    """A loss that is not finite in another process is in the weights of this one: they are not saved."""
    saved = []
    folder = SimpleNamespace(save_state=lambda state, name="state.pt": saved.append(name))
    asked = torch.zeros(())
    engine = SimpleNamespace(is_main=True, processes=2, device=torch.device("cuda"), sum=lambda value: value + asked)
    job = SimpleNamespace(meter=Meter(), epoch=0, snapshot=dict)
    logits, y = torch.eye(2), torch.tensor([0, 1])
    monitor = checkpointing.Checkpointing(folder, engine, minutes=0)
    for _ in range(checkpointing.BATCHES_BETWEEN_READS_ELSEWHERE - 1):
        job.meter.add(torch.tensor(1.0), logits, y)
        monitor.after_batch(job)
    assert saved == []  # between the looks nobody knows what the others have found
    job.meter.add(torch.tensor(1.0), logits, y)
    monkeypatch.setattr(monitor, "_asked", False)
    asked += 1  # of the other process: its loss
    with pytest.raises(wb.DivergenceError, match="epoch 1, batch 50"):
        monitor.after_batch(job)
    assert saved == ["diverged.pt"]
