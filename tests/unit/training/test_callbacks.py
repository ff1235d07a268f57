"""What is called after each epoch, and measures recorded over training."""

import json

import pytest
import torch

import waterbed as wb
from waterbed.__main__ import main
from waterbed.training.run_folder import Run

SHORT = {"epochs": 4, "batch_size": 64, "watch": 0, "progress": False, "precision": "fp32"}
OBJECTIVE = wb.AdversarialTraining(wb.PGD(eps=0.3, steps=1))


def new_model():
    return wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)


def same_end(a, b):
    """The same weights, and the same records in what the first has, but for the seconds."""
    weights = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    keys = [k for k in a.history[0] if k != "seconds"]
    return all(torch.equal(p, q) for p, q in weights) and all(
        [r[k] for k in keys] == [s[k] for k in keys] for r, s in zip(a.history, b.history, strict=True)
    )


class Noisy:
    """Draws random numbers, puts the network into train mode, and notes what it saw."""

    def __init__(self, stop_after=None):
        self.epochs, self.stop_after = [], stop_after

    def on_epoch_end(self, job):
        torch.rand(3)
        job.result.train()
        self.epochs.append(job.epoch)
        job.history[-1]["mine"] = 2.0 * job.epoch
        if job.epoch == self.stop_after:
            raise KeyError("enough")


def test_callbacks_are_called_after_every_epoch_and_change_nothing(digits, tmp_path):
    plain = wb.fit(new_model(), digits, OBJECTIVE, **SHORT)
    callback = Noisy()
    run = wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "run", **SHORT, callbacks=[callback])
    assert callback.epochs == [1, 2, 3, 4]
    assert same_end(plain, run)
    assert [record["mine"] for record in Run.load(tmp_path / "run").history] == [2.0, 4.0, 6.0, 8.0]
    assert not run.model.training


def test_an_exception_ends_the_training_with_the_state_saved(digits, tmp_path):
    plain = wb.fit(new_model(), digits, OBJECTIVE, **SHORT)
    with pytest.raises(KeyError, match="enough"):
        wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "run", **SHORT, callbacks=[Noisy(stop_after=2)])
    assert len(Run.load(tmp_path / "run").history) == 2
    callback = Noisy()
    run = wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "run", **SHORT, callbacks=[callback])
    assert callback.epochs == [3, 4]
    assert same_end(plain, run)


def test_wrong_callbacks_are_named_before_training(digits, tmp_path):
    for callbacks, message in (
        ([print], r"callbacks\[0\]=<built-in function print> lacks on_epoch_end\(job\)"),
        ([Noisy], r"callbacks\[0\]=Noisy is a class; write Noisy\(\.\.\.\)"),
        (Noisy(), r"callbacks=.* must be a list"),
    ):
        with pytest.raises(TypeError, match=message):
            wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, callbacks=callbacks)
    assert not (tmp_path / "run").exists()


def test_measures_are_recorded_and_change_nothing(digits, tmp_path):
    plain = wb.fit(new_model(), digits, OBJECTIVE, **SHORT)
    few = {"num_samples": 10}
    measures = {"input_fisher_trace": few, "weight_log_variance": {**few, "damping": 1e-4}}
    run = wb.fit(new_model(), digits, OBJECTIVE, tmp_path / "run", **SHORT, measures=measures, measure_every=2)
    assert same_end(plain, run)
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records if "input_fisher_trace" in record] == [2, 4]
    for name, arguments in measures.items():
        estimate = wb.measure(run.model, digits, quantities=[name], **arguments)[name]
        assert records[-1][name] == pytest.approx(estimate.value)
        assert records[-1][f"{name}_stderr"] == pytest.approx(estimate.stderr)


def test_wrong_measures_are_named_before_training(digits, tmp_path):
    for measures, message in (
        ({"input_fisher": {}}, "measures='input_fisher' is unknown"),
        (["banana"], "measures='banana' is unknown"),
        ({"input_fisher_trace": {"samples": 3}}, r"the argument of measures\['input_fisher_trace'\]='samples'"),
        ({"input_fisher_trace": 3}, r"measures\['input_fisher_trace'\]=3 must be a dict"),
        ("input_fisher_trace", r"measures='input_fisher_trace' must be a list"),
    ):
        with pytest.raises((wb.UsageError, TypeError), match=message):
            wb.fit(new_model(), digits, out=tmp_path / "run", **SHORT, measures=measures)
    assert not (tmp_path / "run").exists()
    with pytest.raises(wb.UsageError, match=r"measures=.* cannot be honoured on a cached trunk"):
        wb.finetune(new_model(), digits, "linear", **SHORT, lr=0.1, measures=["input_fisher_trace"])
    with pytest.raises(wb.UsageError, match="the argument of measure='sample' is unknown"):
        wb.measure(new_model(), digits, sample=3)


def test_the_command_line_measures(tmp_path):
    words = ["train", "digits", "--model", "resnet10", "--width", "2", "--epochs", "2", "--watch", "0", "--no-progress"]
    more = [
        "--objective",
        "standard",
        "--batch-size",
        "512",
        "--measures",
        "input_fisher_trace",
        "--measure-every",
        "2",
    ]
    assert main([*words, "--out", str(tmp_path / "run"), *more]) == 0
    assert ["input_fisher_trace" in record for record in Run.load(tmp_path / "run").history] == [False, True]
