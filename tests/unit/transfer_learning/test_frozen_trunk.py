"""Fine-tuning on a cached trunk is fine-tuning, only faster."""

import importlib
from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import waterbed as wb
from waterbed.data.images import TensorImages
from waterbed.transfer_learning.finetune import RATES, cached_trunk, score_cached
from waterbed.transfer_learning.logistic import fit_logistic
from waterbed.transfer_learning.modes import trained_modules
from waterbed.transfer_learning.trunk import UntraceableError, fill, split

SHORT = {"epochs": 2, "batch_size": 64, "progress": False, "lr": 0.1}


@pytest.fixture
def source():
    model = wb.create_model("resnet18", 10, width=4, in_channels=1, seed=0)
    model.set_normalisation([0.3], [0.4])
    return model.eval()


@pytest.mark.parametrize("mode", ["linear", 0])
def test_trunk_and_tail_are_the_network(source, mode):
    trunk, tail = split(source, trained_modules(source, mode, (1, 8, 8)))
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(tail(*trunk(x)), source(x))
    assert not any(isinstance(m, nn.Conv2d) for m in tail.modules())
    kept = {id(p) for p in source.parameters()}
    assert all(id(p) in kept for part in (trunk, tail) for p in part.parameters()), "weights are shared, not copied"


@pytest.mark.parametrize("mode", ["linear", 0])
def test_cached_training_is_the_training_itself(source, digits, mode):
    """The same batches: the same weights, but for rounding."""
    settings = {**SHORT, "epochs": 3}
    cached = wb.finetune(source, digits, mode, **settings)
    plain = wb.finetune(source, digits, mode, **settings, cache="never", precision="fp32")
    assert cached.config["finetune"]["cache"].startswith("memory")
    assert plain.config["finetune"]["cache"] == "none"
    for name, tensor in plain.model.state_dict().items():
        assert torch.allclose(cached.model.state_dict()[name], tensor, rtol=1e-3, atol=1e-4), name
    a, b = (wb.evaluate(run.model, digits.test).clean for run in (cached, plain))
    assert abs(a - b) <= 1


def test_the_score_needs_no_trunk(source, digits):
    caches = cached_trunk(source, digits, 0)
    run = wb.finetune(source, digits, 0, caches=caches, **SHORT)
    assert score_cached(run.model, 0, digits, caches) == wb.evaluate(run.model, digits.test)


def test_an_epoch_on_the_cache_is_much_faster(source, digits):
    source = wb.create_model("resnet18", 10, width=16, in_channels=1, seed=0)
    caches = cached_trunk(source, digits, "linear")

    def seconds(epochs, **settings):
        history = wb.finetune(source, digits, "linear", **{**SHORT, "epochs": epochs}, **settings).history
        return min(record["seconds"] for record in history)

    # Epochs of milliseconds: of many the fastest is one that a busy machine left alone.
    assert seconds(4, cache="never", precision="fp32") > 5 * seconds(40, caches=caches)


def test_views_are_augmented_copies(source, digits):
    caches = cached_trunk(source, digits, "linear", augment="crop", views=3)
    first, second, third = caches.train.values[0]
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert caches.test.views == 1
    run = wb.finetune(source, digits, "linear", augment="crop", views=3, **SHORT)
    assert "3 views" in run.config["finetune"]["cache"]
    with pytest.raises(wb.UsageError, match="views=2"):
        wb.finetune(source, digits, "linear", views=2, **SHORT)


def test_a_cache_too_large_for_memory_is_a_file_and_beyond_the_budget_refused(source, digits):
    trunk, _ = split(source, ["head"])
    exact = fill(trunk, digits.train, 10, data=digits)
    mapped = fill(trunk, digits.train, 10, data=digits, memory_bytes=100)
    assert mapped.said == "file, bfloat16, 1 view"
    assert mapped.values[0].dtype == torch.bfloat16
    assert torch.allclose(mapped.values[0].float(), exact.values[0], rtol=1e-2, atol=1e-2)
    with pytest.raises(wb.UsageError, match="budget"):
        fill(trunk, digits.train, 10, data=digits, memory_bytes=100, disk_bytes=100)


def test_a_network_that_cannot_be_cut_is_trained_as_a_whole(digits):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(64)

        def forward(self, x):
            x = x.flatten(1)
            return self.norm(x if float(x.mean()) > 0 else -x)

    model = wb.FeatureClassifier(Branching(), nn.Linear(64, 3))
    with pytest.raises(UntraceableError):
        split(model, ["head"])
    run = wb.finetune(model, digits, "linear", **SHORT)
    assert run.config["finetune"]["cache"] == "none"
    with pytest.raises(wb.UsageError, match="logistic"):
        wb.finetune(model, digits, "linear", solver="logistic")


def test_the_learning_rate_is_chosen_on_held_out_training_images(source, digits):
    # Labels of the test set that are all wrong: they must not matter.
    wrong = TensorImages(digits.test.images, (digits.test.labels + 1) % 10)
    runs = [
        wb.finetune(source, data, "linear", **{**SHORT, "epochs": 5, "lr": (1e-6, 0.3)})
        for data in (digits, replace(digits, test=wrong))
    ]
    assert [run.config["lr"] for run in runs] == [0.3, 0.3]
    assert torch.equal(runs[0].model.head.weight, runs[1].model.head.weight)
    slow = wb.finetune(source, digits, 1, **{**SHORT, "epochs": 1, "lr": (1e-6, 0.1)})
    assert slow.config["lr"] == 0.1
    with pytest.raises(wb.UsageError, match="lr is empty"):
        wb.finetune(source, digits, "linear", lr=())


def test_logistic_regression_is_scikit_learn_s(source, digits):
    features, labels = wb.extract_features(source, digits)
    found = fit_logistic(features, labels, 12, strengths=[0.5])
    x = ((features - features.mean(0)) / features.std(0, correction=0).clip(min=1e-8)).double().numpy()
    theirs = LogisticRegression(C=0.5, max_iter=200).fit(x, labels.numpy())
    ours = (features.double() @ found.weight.T + found.bias).softmax(1)
    assert torch.allclose(ours[:, :10], torch.from_numpy(theirs.predict_proba(x)), atol=2e-3)
    assert float(ours[:, 10:].max()) == 0, "classes without images"
    run = wb.finetune(source, digits, "linear", solver="logistic")
    assert run.history[0]["strength"] in [10.0**k for k in range(-4, 3)]
    assert run.history[0]["test_clean"] == pytest.approx(float(wb.evaluate(run.model, digits.test).clean))


def test_two_classes_by_logistic_regression(source, digits):
    keep = digits.train.labels < 2
    two = TensorImages(digits.train.images[keep], digits.train.labels[keep])
    data = replace(digits, train=two, test=two, classes=("0", "1"))
    run = wb.finetune(source, data, "linear", solver="logistic")
    assert run.history[0]["test_clean"] > 95


def test_a_cached_run_has_its_folder_and_is_not_repeated(source, digits, tmp_path):
    first = wb.finetune(source, digits, 0, tmp_path / "run", watch=1, **SHORT)
    assert [set(r) >= {"epoch", "loss", "test_clean"} for r in first.history] == [True, True]
    again = wb.finetune(source, digits, 0, tmp_path / "run", watch=1, **SHORT)
    assert again.history == first.history
    loaded = wb.load_model(tmp_path / "run")
    assert all(torch.equal(v, first.model.state_dict()[k]) for k, v in loaded.state_dict().items())
    with pytest.raises(wb.UsageError, match="another out="):
        wb.finetune(source, digits, 0, tmp_path / "run", watch=1, **{**SHORT, "lr": 0.2})


def test_a_table_keeps_rates_and_curves(source, digits):
    table = wb.transfer({"a": source}, [digits], 0, seeds=[0, 1], epochs=2, lr=(0.01, 0.1), watch=1)
    assert len(set(table.to_frame()["lr"])) == 1, "the rate is chosen once for a backbone and a task"
    assert all(len(row["history"]) == 2 and "test_clean" in row["history"][0] for row in table.rows)


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

    monkeypatch.setattr(module, "cached_trunk", lambda *_, **__: pytest.fail("nothing is left to train"))
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
    from dataclasses import replace

    from waterbed.data.images import TensorImages
    from waterbed.transfer_learning.records import RowsFile, data_fingerprint

    labels = digits.train.labels.clone()
    labels[5] = (labels[5] + 1) % 10
    changed = replace(digits, train=TensorImages(digits.train.images, labels))
    assert data_fingerprint(changed) != data_fingerprint(digits), "one label is enough"
    one, other = RowsFile(tmp_path / "rows.jsonl"), RowsFile(tmp_path / "rows.jsonl")
    one.add({"seed": 0}, {"accuracy": 1.0})
    other.add({"seed": 1}, {"accuracy": 2.0})
    assert len(RowsFile(tmp_path / "rows.jsonl").rows) == 2, "two at once lose nothing"


def test_the_logistic_solver_gives_one_row(source, digits):
    table = wb.transfer({"a": source}, [digits], "linear", seeds=[0, 1, 2], solver="logistic")
    assert len(table.rows) == 1, "the same number three times would look exact"


def test_misspelt_settings_are_refused(source, digits):
    with pytest.raises(wb.UsageError, match="epohcs"):
        wb.transfer({"a": source}, [digits], epohcs=2)
    with pytest.raises(wb.UsageError, match="banana"):
        wb.finetune(source, digits, 1, banana=1)
    assert str(wb.TransferTable()) == "no fine-tunings"


def test_the_rate_of_a_whole_network_is_searched_briefly_and_once(source, digits, tmp_path, monkeypatch):
    module = importlib.import_module("waterbed.transfer_learning.finetune")
    epochs = []
    plain = module.fit
    monkeypatch.setattr(module, "fit", lambda *a, **k: epochs.append((k["lr"], k["epochs"])) or plain(*a, **k))
    settings = {**SHORT, "epochs": 8, "lr": (1e-6, 0.1, 1e6)}
    run = wb.finetune(source, digits, 2, tmp_path / "run", **settings)
    assert epochs == [(1e-6, 2), (0.1, 2), (1e6, 2), (0.1, 8)]
    assert run.config["lr"] == 0.1, "a rate that diverges loses"
    assert run.config["finetune"]["search"] == {"rates": [1e-6, 0.1, 1e6], "epochs": 2}
    again = wb.finetune(source, digits, 2, tmp_path / "run", **settings)
    assert len(epochs) == 5, "not searched again"
    assert again.history == run.history
    with pytest.raises(wb.UsageError, match="another out="):
        wb.finetune(source, digits, 2, tmp_path / "run", **settings, search_epochs=1)


def test_every_mode_chooses_its_rate(source, digits):
    run = wb.finetune(source, digits, 1, **{**SHORT, "lr": None})
    assert run.config["finetune"]["search"] == {"rates": list(RATES), "epochs": 1}
    assert run.config["lr"] in RATES
