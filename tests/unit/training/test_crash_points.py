"""A training that stops before any write, fsync or rename of its files ends as if it had not been stopped."""

import json
import shutil
from io import BytesIO

import pytest
import torch
from tests.crash_points import stopped_everywhere
from torch import nn

import waterbed as wb
from waterbed.cli.output import add_to_json
from waterbed.data.images import TensorImages
from waterbed.data.task import as_task
from waterbed.evaluation.records import EvaluationFile
from waterbed.files import digest
from waterbed.information.estimate import Estimate
from waterbed.training.run_folder import Run, RunFolder
from waterbed.training.sweep import sweep
from waterbed.transfer_learning.records import RowsFile


def few():
    images = torch.randint(0, 256, (24, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24) % 2
    return TensorImages(images[:16], labels[:16]), TensorImages(images[16:], labels[16:])


def train(out, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    return wb.fit(model, few(), out=out, **{"epochs": 2, "batch_size": 8, "watch": 0, "progress": False, **settings})


def files(folder):
    """What the run folder holds of the run, by name: weights, and records without their seconds."""
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in RunFolder(folder).history()]
    return (folder / "weights.safetensors").read_bytes(), records, sorted(f.name for f in folder.iterdir())


@pytest.mark.parametrize("more", [{}, {"validation": 0.25, "checkpoint_minutes": 0}], ids=["plain", "within epochs"])
def test_a_training_stopped_before_any_write_goes_on_to_the_same_end(tmp_path, monkeypatch, more):
    for number in stopped_everywhere(monkeypatch, lambda number: train(tmp_path / f"run-{number}", **more)):
        assert files(tmp_path / f"run-{number}") == files(tmp_path / "run-0"), f"stopped at {number}"
        shutil.rmtree(tmp_path / f"run-{number}")
    assert number > 20


def test_a_finished_run_without_its_weights_is_restored_from_its_state(tmp_path):
    train(tmp_path / "run", validation=0.25)
    before = files(tmp_path / "run")
    for damage in ("weights.safetensors", "weights.json", "metrics.jsonl"):
        (tmp_path / "run" / damage).unlink()
        train(tmp_path / "run", validation=0.25)
        assert files(tmp_path / "run") == before
    whole = before[0]
    (tmp_path / "run/weights.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    train(tmp_path / "run", validation=0.25)
    assert files(tmp_path / "run") == before


def test_one_flipped_bit_is_found_when_weights_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    run = wb.fit(
        wb.create_model("resnet10", 10, width=2, in_channels=1), wb.load_dataset("digits").take(32, 8),
        out=tmp_path / "run", epochs=1, watch=0, progress=False,
    )  # fmt: skip
    run.export(tmp_path / "exported.safetensors")
    for file, name in ((tmp_path / "run/weights.safetensors", "run"), (tmp_path / "exported.safetensors", None)):
        whole = bytearray(file.read_bytes())
        whole[-5] ^= 4
        file.write_bytes(whole)
        with pytest.raises(wb.UsageError, match="checksum in their card"):
            Run.load(file if name is None else tmp_path / name)
    card = tmp_path / "exported.json"  # one of version 0.1 has no checksum
    card.write_text(card.read_text().replace('"sha256"', '"other"'))
    assert Run.load(tmp_path / "exported.safetensors").history


def written(content):
    """The bytes of a state file whose checksum is right."""
    buffer = BytesIO()
    torch.save(content, buffer)
    return digest([buffer.getvalue()]).encode() + b"\n" + buffer.getvalue()


NO_STATES = {
    "empty": lambda state: b"",
    "a line": lambda state: b"\n",
    "a list": lambda state: written([1, 2]),
    "a network": lambda state: written({"model": state["model"], "history": state["history"]}),
    "another history": lambda state: written({**state, "history": "none"}),
    "no random state": lambda state: written({**state, "rng": None}),
}


@pytest.mark.parametrize("kind", NO_STATES)
def test_a_file_that_is_no_state_is_named_and_the_one_before_used(tmp_path, kind):
    train(tmp_path / "run")
    before, file = files(tmp_path / "run"), tmp_path / "run/state.pt"
    file.write_bytes(NO_STATES[kind](RunFolder(tmp_path / "run").state()))
    with pytest.warns(UserWarning, match=r"run/state.pt' is torn or no state; going on from the state before it"):
        train(tmp_path / "run")
    assert files(tmp_path / "run") == before


def test_a_foreign_folder_is_still_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").write_text("mine")
    with pytest.raises(wb.UsageError, match="not a run folder"):
        train(tmp_path / "theirs")
    assert [f.name for f in (tmp_path / "theirs").iterdir()] == ["thesis.txt"]


def test_rows_of_a_transfer_and_results_by_run_survive_a_stop_anywhere(tmp_path, monkeypatch):
    def work(number):
        for seed in range(3):
            rows = RowsFile(tmp_path / f"{number}.rows.jsonl")
            if rows.find({"seed": seed}) is None:
                rows.add({"seed": seed}, {"accuracy": 90.0 + seed})
            add_to_json(tmp_path / f"{number}.json", {str(seed): seed})

    for number in stopped_everywhere(monkeypatch, work):
        for end in (".rows.jsonl", ".json"):
            assert (tmp_path / f"{number}{end}").read_text() == (tmp_path / f"0{end}").read_text()


def test_the_file_of_an_evaluation_survives_a_stop_anywhere(tmp_path, monkeypatch):
    images, labels = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])

    def work(number):
        with EvaluationFile(tmp_path / f"{number}.json", {"eps": 0.1}, None) as file:
            for batch in range(2):
                record = file.batch(batch, torch.arange(2), images, labels)
                for stage in ("clean", "pgd"):
                    if stage not in record.done:
                        record.done.append(stage)
                        file.exchange(batch)
            file.save({"n": 4})

    for number in stopped_everywhere(monkeypatch, work):
        assert (tmp_path / f"{number}.json").read_bytes() == (tmp_path / "0.json").read_bytes()


def test_a_sweep_stopped_anywhere_ends_the_same(tmp_path, monkeypatch):
    def measured(model, data, num_samples, seed):
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        one = Estimate(float(weights.norm()), 0.1, "1", 1, "norm", seed)
        names = ("weight_log_variance", "weight_rescaling_invariant_trace", "input_fisher_trace")
        return dict.fromkeys(names, one)

    monkeypatch.setattr("waterbed.training.sweep.measure", measured)
    monkeypatch.setattr("waterbed.training.sweep.save_figure", lambda figure, path: None)

    def work(number):
        def model(seed):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

        settings = {"epochs": 1, "batch_size": 8, "watch": 0, "precision": "fp32"}
        place, data = tmp_path / str(number), as_task(few())
        sweep(data, model, lambda eps: wb.Standard(), [0.0], [0], place, progress=False, **settings)

    for number in stopped_everywhere(monkeypatch, work):
        ends = [json.loads((tmp_path / place / "sweep.json").read_text()) for place in (str(number), "0")]
        assert ends[0]["points"] == ends[1]["points"]
