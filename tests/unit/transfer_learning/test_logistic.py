"""Logistic probes are scikit-learn's, and as a solver refuse what they cannot use."""

import importlib
from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import waterbed as wb
from waterbed.data.images import TensorImages
from waterbed.transfer_learning.logistic import GRADIENT, fit_logistic


def test_logistic_regression_is_scikit_learn_s(source, digits):
    features, labels = wb.extract_features(source, digits)
    probe = fit_logistic(features, labels, 12, strengths=[0.5])
    x = (
        (features.double() - features.double().mean(0)) / features.double().std(0, correction=0).clip(min=1e-8)
    ).numpy()
    theirs = LogisticRegression(C=0.5, max_iter=1000, solver="newton-cg", tol=1e-9).fit(x, labels.numpy())
    ours = (features.double() @ probe.weight.T + probe.bias).softmax(1)
    assert torch.allclose(ours[:, :10], torch.from_numpy(theirs.predict_proba(x)), atol=1e-3)
    assert float(ours[:, 10:].max()) == 0, "classes without images"
    run = wb.finetune(source, digits, "linear", solver="logistic")
    assert run.history[0]["strength"] in [10.0**k for k in range(-7, 6)]
    assert run.history[0]["test_clean"] == pytest.approx(float(wb.evaluate(run.model, digits.test).clean))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("standardise", [True, False])
def test_the_gradient_of_the_stated_objective_is_zero(classes, standardise):
    """sum_n -log p(y_n | x_n) + |W|^2 / 2C, of two classes with W their difference."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 4, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.2, 1.0]) + 1
    y = (x[:, 0] + torch.randn(150, generator=generator)).argsort().argsort() * classes // 150
    strength = 0.3
    probe = fit_logistic(x, y, classes, strengths=[strength], standardise=standardise)
    scale = x.std(0, correction=0) if standardise else torch.ones(4).double()
    shift = x.mean(0) if standardise else torch.zeros(4).double()
    weight = (probe.weight * scale).requires_grad_()
    bias = (probe.bias + probe.weight @ shift).requires_grad_()
    loss = nn.functional.cross_entropy(((x - shift) / scale) @ weight.T + bias, y, reduction="sum")
    penalty = (weight[1] - weight[0]).square().sum() if classes == 2 else weight.square().sum()
    gradients = torch.autograd.grad(loss + penalty / 2 / strength, [weight, bias])
    # Of two classes only the difference is a parameter.
    slopes = [(g[1] - g[0]) / 2 if classes == 2 else g for g in gradients]
    assert max(float(s.abs().max()) for s in slopes) / len(x) < 2 * GRADIENT
    assert probe.gradient < GRADIENT


def test_an_edge_of_the_strengths_is_widened_or_said():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=generator)
    y = (x[:, 0] > 0).long()
    assert fit_logistic(x, y, 2, strengths=[1e-6, 1.0]).edge == "largest strength 1", "only the defaults are widened"
    assert fit_logistic(x, y, 2, strengths=[1.0]).edge == ""
    noise = torch.randint(0, 2, (300,), generator=generator)
    least = fit_logistic(1e-3 * x, noise, 2, standardise=False)
    assert least.strength < 1e-4, "constant predictions all the way down"
    assert least.edge == f"smallest strength {least.strength:g}"


def test_the_strength_is_the_best_on_the_held_out_examples():
    """A weak penalty learns labels that are noise by heart; held out, the class that is the more frequent is best."""
    module = importlib.import_module("waterbed.transfer_learning.logistic")
    generator = torch.Generator().manual_seed(0)
    x, x_held = (torch.randn(60, 80, generator=generator, dtype=torch.float64).numpy() for _ in range(2))
    labels = (torch.arange(60) % 3 > 0).long().numpy()
    held = (x_held, torch.ones(60, dtype=torch.long).numpy())
    assert module._chosen((x, labels), held, [1e-4, 100.0], widen=False) == (1e-4, "smallest strength 0.0001")


def test_held_out_examples_choose_and_do_not_train(monkeypatch):
    module = importlib.import_module("waterbed.transfer_learning.logistic")
    seen, chosen = [], module._chosen
    monkeypatch.setattr(
        module, "_chosen", lambda train, held, *a, **k: seen.append((train, held)) or chosen(train, held, *a, **k)
    )
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    fit_logistic(x, torch.arange(40) % 2, 2, seed=1, validation=0.25)
    (train, _), (held, _) = seen[0]
    assert (len(train), len(held)) == (30, 10)
    assert not {tuple(row) for row in train.tolist()} & {tuple(row) for row in held.tolist()}
    assert abs(train.mean(0)).max() < 1e-12, "scaled by what is trained on"
    assert abs(held.mean(0)).max() > 1e-3


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
    ask = {"solver": "logistic", "seed": 3, "validation": 0.3, "augment": "crop", "watch": 1}
    run = wb.finetune(source, digits, "linear", tmp_path / "run", **ask)
    assert run.config["seed"] == 3
    plain = wb.finetune(source, digits, "linear", **{**ask, "augment": "none"})
    assert not torch.equal(run.model.head.weight, plain.model.head.weight)
    with pytest.raises(wb.UsageError, match="mode='linear', not 0"):
        wb.finetune(source, digits, 0, solver="logistic")
    with pytest.raises(wb.UsageError, match="cache='auto'"):
        wb.finetune(source, digits, "linear", solver="logistic", cache="never")
