"""A step never waits for the device."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import waterbed as wb
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
