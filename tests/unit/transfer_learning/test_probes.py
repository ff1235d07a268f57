"""Probes of features: many heads at once are those trained alone, the search sees training examples only."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.transfer_learning.activation_cache import Cache
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk
from waterbed.transfer_learning.heads import head_accuracies, train_heads
from waterbed.transfer_learning.logistic import held_out
from waterbed.transfer_learning.modes import with_new_head
from waterbed.transfer_learning.probes import probe, probe_grid
from waterbed.transfer_learning.search import DIVERGED
from waterbed.transfer_learning.settings import FINETUNING


@pytest.fixture
def examples():
    """Three classes in five dimensions that overlap: 240 training and 120 test examples."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(360) % 3
    features = torch.randn(360, 5, generator=generator) + 2 * nn.functional.one_hot(labels, 5)
    return (features[:240], labels[:240]), (features[240:], labels[240:])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nesterov": False},
        {"decay_norms": False, "schedule": "step"},
        {"momentum": 0.0, "seed": 3},
        {"label_smoothing": 0.2},
    ],
)
def test_heads_trained_at_once_are_those_trained_alone(source, digits, settings):
    pairs = [(0.01, 0.0), (0.3, 5e-2), (1.0, 1e-4)]
    config = replace(FINETUNING, epochs=2, batch_size=50, **settings)
    trunk = FrozenTrunk(source, digits, "linear", augment="none")
    start = with_new_head(source, digits, ["head"], config.seed).head
    indices = torch.arange(0, len(digits.train), 2)
    heads = train_heads(trunk.train, start, pairs, config, indices)
    for i, (lr, weight_decay) in enumerate(pairs):
        alone = trunk.fit(replace(config, lr=lr, weight_decay=weight_decay), indices=indices).model.head
        torch.testing.assert_close(heads.weight[i], alone.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(heads.bias[i], alone.bias.detach(), rtol=1e-4, atol=1e-5)


def test_a_head_without_bias_stays_so():
    cache = Cache((torch.randn(1, 40, 3),), torch.arange(40) % 2)
    heads = train_heads(cache, nn.Linear(3, 2, bias=False), [(0.1, 0.0)], replace(FINETUNING, epochs=1, batch_size=8))
    assert float(heads.bias.abs().max()) == 0


def test_a_head_that_diverges_takes_none_with_it(examples):
    (x, y), _ = examples
    kept, held = held_out(len(y), 0.25, 0)
    start = nn.Linear(5, 3)
    config = replace(FINETUNING, epochs=3, batch_size=16)
    alone = head_accuracies(Cache((x[None],), y), start, [(0.1, 0.0)], config, kept, held)
    both = head_accuracies(Cache((x[None],), y), start, [(1e30, 1.0), (0.1, 0.0)], config, kept, held)
    assert both == [DIVERGED, *alone]


def test_the_search_never_trains_on_its_held_out_examples(examples):
    """Held-out labels that are all wrong leave the heads as they are and make every accuracy its complement's."""
    (x, y), _ = examples
    kept, held = held_out(len(y), 0.25, 0)
    wrong = y.clone()
    wrong[held] = (wrong[held] + 1) % 3
    config, start = replace(FINETUNING, epochs=3, batch_size=16), nn.Linear(5, 3)
    heads = [train_heads(Cache((x[None],), labels), start, [(0.1, 0.0)], config, kept) for labels in (y, wrong)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    right, false = (
        head_accuracies(Cache((x[None],), labels), start, [(0.1, 0.0)], config, kept, held)[0] for labels in (y, wrong)
    )
    assert right > 80
    assert false < 20


def test_the_linear_mode_searches_on_the_other_training_images_alone(source, digits, examples, monkeypatch):
    import waterbed.transfer_learning.heads as module

    trained, train_heads = [], module.train_heads

    def recorded(cache, start, pairs, config, indices=None):
        trained.append((len(cache), indices))
        return train_heads(cache, start, pairs, config, indices)

    monkeypatch.setattr(module, "train_heads", recorded)
    wb.finetune(source, digits, "linear", epochs=1, validation=0.2, seed=3)
    probe(*examples, solver="sgd", epochs=1, batch_size=16, validation=0.2, seed=3)
    assert len(trained) >= 2
    for total, indices in trained:
        assert torch.equal(indices, held_out(total, 0.2, 3)[0])


@pytest.mark.parametrize("how", [{}, {"solver": "sgd", "epochs": 3, "batch_size": 16}, {"protocol": "paper"}])
def test_test_examples_choose_nothing(examples, how):
    train, (x, y) = examples
    usual, changed = (probe(train, (x, labels), **how) for labels in (y, (y + 1) % 3))
    first, second = ((p.lr, p.weight_decay, p.strength, p.edge) for p in (usual, changed))
    assert first == second
    assert usual.accuracy > 80
    assert changed.accuracy < 20
    assert usual.accuracy.n == 120


def test_what_a_probe_says_of_itself(examples):
    train, test = examples
    logistic = probe(train, test)
    assert (logistic.solver, logistic.protocol, logistic.standardised, logistic.lr) == ("logistic", "tuned", True, None)
    steps = probe(train, test, solver="sgd", epochs=4, batch_size=16)
    assert (steps.solver, steps.protocol, steps.standardised, steps.strength) == ("sgd", "tuned", False, None)
    assert steps.lr > 0.01
    paper = probe(train, test, protocol="paper")
    assert (paper.solver, paper.protocol, paper.lr, paper.weight_decay) == ("sgd", "paper", 0.01, 5e-4)
    alone = probe_grid(train, test, [(0.01, 5e-4)], epochs=120, schedule="step", milestones=(50, 80), nesterov=False)
    assert float(alone[0].accuracy) == float(paper.accuracy)
    assert alone[0].protocol == "given"


def test_standardised_features_have_the_training_examples_scale(examples):
    (x, y), (x_test, y_test) = examples
    scales = torch.tensor([1e-3, 1.0, 1e3, 5.0, 1.0])
    settings = {"epochs": 5, "batch_size": 16, "standardise": True}
    usual, scaled = (
        probe_grid((x * by + by, y), (x_test * by + by, y_test), [(0.1, 0.0)], **settings)[0]
        for by in (torch.ones(5), scales)
    )
    assert float(usual.accuracy) == pytest.approx(float(scaled.accuracy), abs=1)
    assert float(usual.accuracy) > 80


def test_no_test_example_changes_the_prediction_of_another(examples):
    train, (x, y) = examples
    settings = {"epochs": 3, "batch_size": 16, "standardise": True}
    parts = [y == 0, y > 0]
    whole, *halves = (
        probe_grid(train, (x[part], y[part]), [(0.1, 0.0)], num_classes=3, **settings)[0].accuracy.correct
        for part in (y >= 0, *parts)
    )
    assert whole == sum(halves)


def test_wrong_arguments_are_named(examples):
    train, test = examples
    for how, message in (
        ({"epochs": 3}, "epochs=3 means nothing to solver='logistic'"),
        ({"protocol": "paper", "epochs": 3}, "epochs=3 contradicts protocol='paper'"),
        ({"solver": "svm"}, "solver='svm' is unknown"),
        ({"solver": "sgd", "optimizer": "adamw"}, "optimizer='adamw'"),
        ({"solver": "sgd", "mixup": 0.2}, "mixup=0.2 means nothing to a probe of features"),
        ({"protocol": "paper", "augment": "flip"}, "augment='flip' means nothing to a probe of features"),
    ):
        with pytest.raises(wb.UsageError, match=message):
            probe(train, test, **how)
    with pytest.raises(wb.UsageError, match=r"features \(N, d\)"):
        probe((train[0][0], train[1]), test)
    with pytest.raises(TypeError, match="pair of tensors"):
        probe(train[0], test)
    with pytest.raises(wb.UsageError, match="weight_decay=-1"):
        probe_grid(train, test, [(0.1, -1)])
