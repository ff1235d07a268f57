"""transfer: one row per model, target and seed, written as it is done."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

import waterbed as wb
from waterbed.data.images import TensorImages
from waterbed.transfer_learning.records import RowsFile, data_fingerprint

SHORT = {"epochs": 2, "batch_size": 64, "lr": 0.1}
module = importlib.import_module("waterbed.transfer_learning.transfer")


def test_wrong_kinds(source, digits):
    for models, targets in (([source], [digits]), ({"a": source}, "digits")):
        with pytest.raises(TypeError, match="models must be a dict"):
            wb.transfer(models, targets)


def test_table(source, digits):
    source.input_shape = (1, 12, 12)
    table = wb.transfer(
        {"a": source, "b": source}, ["digits", replace(digits, name="few digits")], "linear", seeds=[0, 1], **SHORT
    )
    frame = table.to_frame()
    assert len(frame) == 8
    assert set(frame.columns) == {
        "model",
        "target",
        "mode",
        "seed",
        "accuracy",
        "low",
        "high",
        "mean_per_class",
        "metric",
        "n",
        "protocol",
        "solver",
        "lr",
        "weight_decay",
        "strength",
        "edge",
    }
    assert sorted(set(frame["n"])) == [100, 360]
    summary = table.summary()
    row = summary.iloc[0]
    values = frame["accuracy"][:2]
    assert row["accuracy"] == pytest.approx(values.mean())
    # Two values: the t interval with one degree of freedom, 12.706 * |a - b| / 2.
    assert row["half_width"] == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2, rel=1e-4)
    assert "digits" in str(table)


def test_a_table_keeps_rates_and_curves(source, digits):
    table = wb.transfer({"a": source}, [digits], 0, seeds=[0, 1], epochs=2, lr=(0.01, 0.1), watch=1)
    assert len(set(table.to_frame()["lr"])) == 1, "the rate is chosen once for a backbone and a task"
    assert all(len(row["history"]) == 2 and "test_clean" in row["history"][0] for row in table.rows)


def test_every_row_says_how_it_was_trained(source, digits):
    few = digits.take(60, 20)
    tuned = wb.transfer({"a": source}, [few], 0, seeds=[0, 1], epochs=2, batch_size=32).rows
    assert {(row["protocol"], row["solver"]) for row in tuned} == {("tuned", "sgd")}
    assert len({(row["lr"], row["weight_decay"], row["edge"]) for row in tuned}) == 1, "chosen once for all seeds"
    paper = wb.transfer({"a": source}, [few], "linear", seeds=[0, 1], protocol="paper").rows
    how = {(row["protocol"], row["solver"], row["lr"], row["weight_decay"], row["edge"]) for row in paper}
    assert how == {("paper", "sgd", 0.01, 5e-4, "")}
    (logistic,) = wb.transfer({"a": source}, [few], "linear", seeds=[0, 1]).rows
    assert (logistic["protocol"], logistic["solver"], logistic["lr"]) == ("tuned", "logistic", None)
    assert logistic["strength"] > 0
    with pytest.raises(wb.UsageError, match="protocol='mine' is unknown"):
        wb.transfer({"a": source}, [few], 0, protocol="mine")


def test_a_stopped_comparison_goes_on(source, digits, tmp_path, monkeypatch):
    from waterbed.transfer_learning import transfer as module

    done = []

    def counted(*args, **settings):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(settings["seed"])
        return wb.finetune(*args, **settings)

    ask = {"mode": 0, "seeds": [0, 1, 2], "epochs": 1, "lr": (0.01, 0.1), "num_bounded": 3}
    ask |= {"attacks": [wb.PGD(0.1, steps=1)], "num_attacked": 20}
    whole = wb.transfer({"a": source}, [digits], **ask)
    monkeypatch.setattr(module, "finetune", counted)
    file = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        wb.transfer({"a": source}, [digits], keep=file, **ask)
    assert done == [0, 1]
    monkeypatch.setattr(module, "finetune", lambda *args, **settings: done.append(9) or wb.finetune(*args, **settings))
    again = wb.transfer({"renamed": source}, [digits], keep=file, **ask)
    assert done == [0, 1, 9], "only what was missing is trained"
    assert again.to_frame().drop(columns="model").equals(whole.to_frame().drop(columns="model"))
    assert set(again.to_frame()["model"]) == {"renamed"}

    monkeypatch.setattr(module, "trunk_for", lambda *_, **__: pytest.fail("nothing is left to train"))
    assert len(wb.transfer({"a": source}, [digits], keep=file, **ask).rows) == 3
    with pytest.raises(pytest.fail.Exception):
        wb.transfer({"a": source}, [digits], keep=file, **{**ask, "epochs": 2})


def test_lemma_5_1_beside_the_accuracy(source, digits):
    row = wb.transfer({"a": source}, [digits], "linear", seeds=[0], epochs=1, lr=0.1, num_bounded=5).rows[0]
    assert 0 < row["fisher_labels"] <= row["fisher_labels_bound"]
    assert 0 < row["fisher_noisy_logits"] <= row["fisher_features"]
    assert row["fisher_labels_stderr"] > 0


def test_a_file_of_something_else_is_left_alone(source, digits, tmp_path):
    file = tmp_path / "notes.jsonl"
    file.write_text("dear diary\n")
    with pytest.raises(wb.UsageError, match="holds no rows"):
        wb.transfer({"a": source}, [digits], keep=file, epochs=1)
    assert file.read_text() == "dear diary\n"


def test_rows_of_changed_data_are_not_taken(source, digits, tmp_path):
    labels = digits.train.labels.clone()
    labels[5] = (labels[5] + 1) % 10
    changed = replace(digits, train=TensorImages(digits.train.images, labels))
    assert data_fingerprint(changed) != data_fingerprint(digits), "one label is enough"
    one, other = RowsFile(tmp_path / "rows.jsonl"), RowsFile(tmp_path / "rows.jsonl")
    one.add({"seed": 0}, {"accuracy": 1.0})
    other.add({"seed": 1}, {"accuracy": 2.0})
    assert len(RowsFile(tmp_path / "rows.jsonl").rows) == 2, "two at once lose nothing"


def test_settings_reach_every_fine_tuning(source, digits):
    ask = {"targets": [digits], "mode": 0, "seeds": [0], "epochs": 2, "lr": 0.1}
    usual, changed = (wb.transfer({"a": source}, **ask, momentum=m).rows[0]["history"] for m in (0.9, 0.5))
    assert usual[-1]["loss"] != changed[-1]["loss"]
    config = wb.TrainConfig(epochs=2, lr=0.1, momentum=0.5, augment="none", watch=0)
    again = wb.transfer({"a": source}, [digits], 0, [0], config=config).rows[0]["history"]
    assert again[-1]["loss"] == changed[-1]["loss"]
    views = wb.transfer({"a": source}, **ask, augment="crop", views=2).rows[0]["history"]
    assert views[-1]["loss"] != usual[-1]["loss"]


def test_settings_that_cannot_be_honoured_are_refused(source, digits):
    for settings, message in (
        ({"seed": 3}, "seed=3 is set for each fine-tuning"),
        ({"config": wb.TrainConfig(seed=2)}, r"seed=2 .* pass seeds=\[2\]"),
        ({"trunk": None}, "trunk= is made by transfer"),
        ({"out": "runs"}, "'out'"),
        ({"ema": 0.9}, r"ema=0\.9 cannot be honoured"),
        ({"precision": "bf16"}, "precision='bf16' cannot be honoured"),
    ):
        with pytest.raises(wb.UsageError, match=message):
            wb.transfer({"a": source}, [digits], 0, **settings)


class Named:
    name = "named"

    def __init__(self, eps):
        self.eps = eps

    def config(self):
        return {"eps": self.eps}


def test_rows_are_found_by_what_changes_the_numbers(tmp_path):
    def asked(attack=None, **settings):
        return {"seed": 0, "attacks": [attack or Named(0.5)], "settings": settings}

    def local():
        pass

    rows = RowsFile(tmp_path / "rows.jsonl")
    rows.add(asked(config=wb.TrainConfig(epochs=2), workers=2, callbacks=[local]), {"accuracy": 1.0})
    again = RowsFile(tmp_path / "rows.jsonl")
    assert again.find(asked(config=wb.TrainConfig(epochs=2, workers=3, progress=False))) == {"accuracy": 1.0}
    assert again.find(asked(config=wb.TrainConfig(epochs=3))) is None
    assert again.find(asked(Named(0.25), config=wb.TrainConfig(epochs=2))) is None
    assert again.find(asked(config=wb.TrainConfig(epochs=2), lr=0.1)) is None
    rows.add(asked(augment=wb.load_dataset), {"accuracy": 2.0})
    assert RowsFile(tmp_path / "rows.jsonl").find(asked(augment=wb.load_dataset)) == {"accuracy": 2.0}
    rows.add(asked(augment=lambda x: x), {"accuracy": 3.0})
    assert rows.find(asked(augment=lambda x: -x)) is None, "another function of no name"


COMMITTED = Path(__file__).parents[3] / "results/transfer"


@pytest.mark.skipif(not COMMITTED.is_dir(), reason="only in a checkout")
def test_committed_rows_keep_their_keys():
    for file in COMMITTED.glob("*.rows.jsonl"):
        lines = [json.loads(line)["asked"] for line in file.read_text().splitlines()]
        rows = RowsFile(file)
        assert len(rows.rows) == len(lines) > 0
        assert [rows.find(asked) is not None for asked in lines] == [True] * len(lines)
