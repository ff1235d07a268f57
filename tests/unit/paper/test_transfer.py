"""Evidence on transfer with a new head alone, from results that are made up."""

import math
from dataclasses import replace

import pytest

from waterbed_paper.register import CLAIMS, FIGURES
from waterbed_paper.verdicts import Judged


def test_gaps_are_paired_by_seed(made_up):
    for seed, standard in enumerate((50.0, 60.0, 70.0)):
        made_up.put(f"transfer/cifar10/standard/seed-{seed}/mnist/mode-0", {"accuracy": standard})
        made_up.put(f"transfer/cifar10/eps-1/seed-{seed}/mnist/mode-0", {"accuracy": standard + 5 + 0.1 * seed})
    (e,) = made_up.evidence("far-tasks")
    assert e.label == "cifar10 to mnist, weight decay 0.0005"
    assert e.value == pytest.approx(5.1)
    assert e.high - e.low == pytest.approx(2 * 4.302653 * 0.1 / math.sqrt(3), rel=1e-5)
    assert Judged(CLAIMS["far-tasks"], [e]).verdict == "holds"


def test_the_tuned_protocol_decides_and_the_others_stand_beside(made_up, tmp_path):
    scale = made_up.results.scale
    transfers = replace(scale.transfers, both_protocols={"0": 2})
    made_up = type(made_up)(replace(scale, transfers=transfers), tmp_path)
    gaps = {"tuned": -1.0, "paper": 4.0}
    for seed in range(2):
        rows = {name: {"accuracy": 80.0 + 0.1 * seed} for name in gaps}
        made_up.put(f"protocols/cifar10/standard/seed-{seed}/mnist/mode-0", rows)
        rows = {name: {"accuracy": 80.0 + gap} for name, gap in gaps.items()}
        made_up.put(f"protocols/cifar10/eps-1/seed-{seed}/mnist/mode-0", rows)
        for name, accuracy in (("standard", 70.0 + 0.1 * seed), ("eps-1", 73.0)):
            made_up.put(f"transfer/cifar10/{name}/seed-{seed}/mnist/mode-0", {"accuracy": accuracy})
    pieces = made_up.evidence("far-tasks")
    assert [(e.label.split(", ")[1], pytest.approx(e.value), e.beside) for e in pieces] == [
        ("tuned", -1.05, False),
        ("the paper's protocol", 3.95, True),
        ("weight decay 0.0005", 2.95, True),
    ]
    assert Judged(CLAIMS["far-tasks"], pieces).verdict == "does not hold"
    for name in ("standard", "eps-1"):
        made_up.results.graph.file(f"protocols/cifar10/{name}/seed-1/mnist/mode-0").unlink()
    assert [(e.n, e.beside) for e in made_up.evidence("far-tasks")] == [(1, True), (1, True), (2, False)], "seeds first"


def test_the_eps_that_does_best_decides_on_the_complex_target(made_up):
    """Chosen afterwards; each stands beside it with what it costs on the source."""
    for seed in range(2):
        for name, more in (("standard", 0.0), ("eps-0.5", 2.0 + seed), ("eps-1", -1.0), ("eps-2", -5.0)):
            made_up.put(f"transfer/cifar10/{name}/seed-{seed}/cifar100/mode-0", {"accuracy": 30.0 + more})
            made_up.put(f"accuracy/cifar10/{name}/seed-{seed}", {"clean": 90.0 - abs(more)})
    pieces = made_up.evidence("complex-target")
    assert [(e.label.split(", ")[1], e.value, e.beside, e.note) for e in pieces] == [
        ("eps 0.5", 2.5, False, ""),
        ("eps 0.5", 2.5, True, "costs 2.5 points on the source"),
        ("eps 1", -1.0, True, "costs 1.0 points on the source"),
        ("eps 2", -5.0, True, "costs 5.0 points on the source"),
    ]
    assert pieces[0].low == pytest.approx(pieces[1].ends(1 - 0.05 / 3)[0])


def test_the_conclusion_is_judged_over_targets(made_up):
    """Two targets that disagree decide nothing, however sure each is."""
    for target, gap in (("mnist", 6.0), ("gtsrb", -5.0), ("fashion-mnist", 5.0)):
        for seed in range(3):
            made_up.put(f"transfer/cifar10/standard/seed-{seed}/{target}/mode-0", {"accuracy": 50.0})
            made_up.put(f"transfer/cifar10/eps-1/seed-{seed}/{target}/mode-0", {"accuracy": 50 + gap + 0.1 * seed})
    over_targets, over_seeds = made_up.evidence("generic-extractor")
    assert (over_targets.n, over_targets.over, over_seeds.n, over_seeds.beside) == (3, "target", 3, True)
    assert over_targets.value == over_seeds.value == pytest.approx(2.1)
    assert over_targets.low < 0 < over_seeds.low
    assert Judged(CLAIMS["generic-extractor"], [over_targets, over_seeds]).verdict == "undecided"


def test_both_halves_of_the_asymmetry(made_up):
    for seed in range(2):
        for source, target, gap in (("cifar10", "cifar100", -1.0), ("cifar100", "cifar10", -9.0 + 0.1 * seed)):
            made_up.put(f"transfer/{source}/standard/seed-{seed}/{target}/mode-0", {"accuracy": 40.0})
            made_up.put(f"transfer/{source}/eps-1/seed-{seed}/{target}/mode-0", {"accuracy": 40.0 + gap + 0.01 * seed})
    (both,), (there, _) = made_up.evidence("asymmetry"), made_up.evidence("complex-target")
    assert (both.value, there.value, both.n) == (pytest.approx(7.95), pytest.approx(-0.995), 2)
    assert Judged(CLAIMS["asymmetry"], [both]).verdict == "holds"
    assert Judged(CLAIMS["complex-target"], [there]).verdict == "does not hold"


def test_transfer_against_eps_has_one_panel_per_target(results_in, whole_scale, tmp_path):
    eps = "[0.0, 0.5, 1.0]"
    results = results_in(tmp_path / "out", whole_scale.replace("[transfers]", f"[transfers]\neps = {eps}"))
    (figure,) = (f for f in FIGURES if f.name == "transfer-by-eps")
    titles = [ax.get_title() for ax in figure.draw(results).axes]
    assert [t for t in titles if t] == [
        "cifar10: the source itself, clean",
        *(f"cifar10 to {target}" for target in ("svhn", "mnist", "digits")),
    ]
