"""Logistic probes are scikit-learn's, and as a solver refuse what they cannot use."""

from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression

import waterbed as wb
from waterbed.data.images import TensorImages
from waterbed.transfer_learning.logistic import fit_logistic


def test_logistic_regression_is_scikit_learn_s(source, digits):
    features, labels = wb.extract_features(source, digits)
    probe = fit_logistic(features, labels, 12, strengths=[0.5])
    x = ((features - features.mean(0)) / features.std(0, correction=0).clip(min=1e-8)).double().numpy()
    theirs = LogisticRegression(C=0.5, max_iter=200).fit(x, labels.numpy())
    ours = (features.double() @ probe.weight.T + probe.bias).softmax(1)
    assert torch.allclose(ours[:, :10], torch.from_numpy(theirs.predict_proba(x)), atol=2e-3)
    assert float(ours[:, 10:].max()) == 0, "classes without images"
    run = wb.finetune(source, digits, "linear", solver="logistic")
    assert run.history[0]["strength"] in [10.0**k for k in range(-4, 3)]
    assert run.history[0]["test_clean"] == pytest.approx(float(wb.evaluate(run.model, digits.test).clean))


def test_two_classes_by_logistic_regression(source, digits):
    chosen = digits.train.labels < 2
    two = TensorImages(digits.train.images[chosen], digits.train.labels[chosen])
    data = replace(digits, train=two, test=two, classes=("0", "1"))
    run = wb.finetune(source, data, "linear", solver="logistic")
    assert run.history[0]["test_clean"] > 95


def test_a_table_of_the_logistic_solver_has_one_row(source, digits):
    table = wb.transfer({"a": source}, [digits], "linear", seeds=[0, 1, 2], solver="logistic")
    assert len(table.rows) == 1, "the same number three times would look exact"


@pytest.mark.parametrize(
    ("name", "value", "more"),
    [
        ("lr", 0.1, {}),
        ("config", wb.TrainConfig(lr=0.05, augment="none"), {}),
        ("epochs", 5, {}),
        ("momentum", 0.5, {}),
        ("weight_decay", 0.1, {}),
        ("nesterov", False, {}),
        ("milestones", (2,), {"schedule": "step"}),
        ("views", 2, {"augment": "crop"}),
        ("search_epochs", 3, {}),
    ],
)
def test_what_logistic_regression_cannot_use_is_refused(source, digits, name, value, more):
    with pytest.raises(wb.UsageError, match="means nothing to solver='logistic'"):
        wb.finetune(source, digits, "linear", solver="logistic", **{name: value}, **more)
    assert wb.finetune(source, digits, "linear", **{"epochs": 2, "lr": 0.2, name: value}, **more).history


def test_what_logistic_regression_can_use_is_taken(source, digits, tmp_path):
    ask = {"solver": "logistic", "seed": 3, "validation": 0.3, "augment": "crop", "watch": 1, "epochs": 20}
    run = wb.finetune(source, digits, "linear", tmp_path / "run", **ask)
    assert run.config["seed"] == 3
    plain = wb.finetune(source, digits, "linear", **{**ask, "augment": "none"})
    assert not torch.equal(run.model.head.weight, plain.model.head.weight)
    with pytest.raises(wb.UsageError, match="mode='linear', not 0"):
        wb.finetune(source, digits, 0, solver="logistic")
    with pytest.raises(wb.UsageError, match="cache='auto'"):
        wb.finetune(source, digits, "linear", solver="logistic", cache="never")
