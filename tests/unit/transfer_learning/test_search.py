"""Successive halving: what is trained how long, edges that are widened or named, and settings of one protocol."""

import pytest

import waterbed as wb
from waterbed.transfer_learning.protocols import FIXED, fixed_recipe
from waterbed.transfer_learning.search import DIVERGED, GRIDS, MOST_WIDENINGS, Chosen, Grid, Search


def recorded(best, calls):
    """Accuracies that fall with the distance, in decades, of a pair from the best."""
    from math import log10

    def accuracies(pairs, epochs):
        calls.append((list(pairs), epochs))
        return [
            90 - abs(log10(rate / best[0])) - abs(log10((decay + 1e-9) / (best[1] + 1e-9))) for rate, decay in pairs
        ]

    return accuracies


def test_the_best_quarter_goes_on():
    calls = []
    chosen = Search(GRIDS["sgd"], epochs=20, widen=True).best(recorded((0.3, 5e-5), calls))
    assert chosen == Chosen(0.3, 5e-5)
    assert [(len(pairs), epochs) for pairs, epochs in calls] == [(28, 1), (7, 5), (2, 20)]
    assert all(set(calls[i + 1][0]) <= set(calls[i][0]) for i in (0, 1))
    assert all((0.3, 5e-5) in pairs for pairs, _ in calls)


def test_an_edge_is_widened_until_the_best_is_inside():
    calls = []
    chosen = Search(GRIDS["sgd"], epochs=20, widen=True).best(recorded((33.3, 0.0), calls))
    assert chosen == Chosen(33.3, 0.0), "one step beyond 10; then 111 was tried and is worse"
    assert [epochs for _, epochs in calls[3:]] == [20, 20]
    assert [pairs for pairs, _ in calls[3:]] == [[(33.3, 0.0)], [(111.0, 0.0)]]


def test_an_edge_that_stays_one_is_said():
    calls = []
    chosen = Search(GRIDS["sgd"], epochs=20, widen=True).best(recorded((1e9, 0.0), calls))
    assert len(calls) == 3 + MOST_WIDENINGS
    assert chosen.lr == 370.0
    assert chosen.edge == "largest lr 370"
    assert Search(GRIDS["sgd"], epochs=20).best(recorded((1e9, 0.0), [])).edge == "largest lr 10", "not widened"
    assert Search(GRIDS["sgd"], epochs=20).best(recorded((1e-9, 1.0), [])).edge == (
        "smallest lr 0.01, largest weight_decay 0.0005"
    )
    assert Search(Grid((0.1,), (0.0,)), 5).only.edge == "", "nothing was compared"


def test_few_candidates_are_all_trained_in_full_and_ties_go_to_the_smaller():
    calls = []

    def accuracies(pairs, epochs):
        calls.append(epochs)
        return [DIVERGED if rate == 0.1 else 0.0 for rate, _ in pairs]

    grid = Grid((0.1, 0.3, 1.0), (0.0, 1e-4))
    assert Search(grid, epochs=7).best(accuracies) == Chosen(0.3, 0.0)
    assert calls == [7]


def test_what_the_arguments_ask_for():
    config, default = wb.TrainConfig(lr=0.2, weight_decay=1e-3), GRIDS["sgd"]
    both = Search.of(default, config, 20)
    assert (both.grid, both.widen) == (default, True)
    fixed = Search.of(default, config, 20, lr=0.1)
    assert (fixed.only, fixed.compares) == (Chosen(0.1, 1e-3), False)
    rates = Search.of(default, config, 20, weight_decay=0)
    assert (rates.grid.rates, rates.grid.decays, rates.widen) == (default.rates, (0,), True)
    own = Search.of(default, config, 20, lr=(1.0, 0.1), weight_decay=(1e-4, 0.0))
    assert (own.grid, own.widen) == (Grid((0.1, 1.0), (0.0, 1e-4)), False)
    assert Search.of(None, config, 20).only == Chosen(0.2, 1e-3)
    for name, value, message in (
        ("lr", (), "lr is empty"),
        ("lr", 0, "lr=0"),
        ("weight_decay", (-1.0,), "weight_decay=-1"),
    ):
        with pytest.raises(wb.UsageError, match=message):
            Search.of(default, config, 20, **{name: value})


def test_the_paper_s_settings_are_those_of_appendix_c():
    """CIFAR: 120 epochs, batch 128, rate 1e-2 that drops to 1e-3 and 1e-4 at epochs 50 and 80, decay 5e-4, momentum
    0.9. ImageNet: 300 epochs, batch 256, drops at 150 and 250, decay 1e-4."""
    cifar, imagenet = FIXED["paper"], FIXED["paper-imagenet"]
    shared = {"momentum": 0.9, "lr": 0.01, "schedule": "step", "nesterov": False, "optimizer": "sgd", "augment": "none"}
    for recipe, own in (
        (cifar, {"epochs": 120, "batch_size": 128, "weight_decay": 5e-4, "milestones": (50, 80)}),
        (imagenet, {"epochs": 300, "batch_size": 256, "weight_decay": 1e-4, "milestones": (150, 250)}),
    ):
        assert {name: getattr(recipe, name) for name in {**shared, **own}} == {**shared, **own}
    rates = [cifar.lr * cifar.rate(epoch / 120) for epoch in (0, 49, 50, 79, 80, 119)]
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])


def test_the_paper_s_protocol_takes_no_other_settings():
    assert fixed_recipe("paper", {"seed": 3, "watch": 1, "lr": None}).seed == 3
    for name, value in (("epochs", 5), ("lr", 0.1), ("weight_decay", 0.0), ("batch_size", 64), ("search_epochs", 2)):
        with pytest.raises(wb.UsageError, match=f"{name}=.* contradicts protocol='paper'"):
            fixed_recipe("paper", {name: value})
    with pytest.raises(wb.UsageError, match="protocol='papers' is unknown"):
        fixed_recipe("papers", {})
