"""Evidence on the gap against the distance of the target, from results that are made up."""

import pytest

from waterbed_paper.register import CLAIMS
from waterbed_paper.verdicts import Judged


def test_the_gap_s_correlation_with_distance(made_up):
    for target, far, gap in (("cifar100", 1.0, -2.0), ("mnist", 2.0, 3.0), ("gtsrb", 3.0, 9.0)):
        made_up.put(f"distance/cifar10/{target}", {"value": far})
        for seed in range(2):
            made_up.put(f"transfer/cifar10/standard/seed-{seed}/{target}/mode-0", {"accuracy": 40.0})
            made_up.put(f"transfer/cifar10/eps-1/seed-{seed}/{target}/mode-0", {"accuracy": 40.0 + gap + seed})
    spearman, pearson = pieces = made_up.evidence("fig-8")
    assert (spearman.value, spearman.n, spearman.over) == (pytest.approx(1.0), 3, "target")
    assert "mean gaps of 2 seeds, permutation p 0.17" in spearman.label
    assert 0.9 < pearson.value < 1
    assert Judged(CLAIMS["fig-8"], pieces).verdict == "undecided", "three targets decide nothing"
    assert made_up.evidence("fig-7") == []


def test_the_correlation_without_what_stands_for_svhn_is_beside(made_up):
    targets = {"cifar10": (1.0, -2.0), "mnist": (2.0, 3.0), "fashion-mnist": (3.0, 4.0), "gtsrb": (2.5, -9.0)}
    for target, (far, gap) in targets.items():
        made_up.put(f"distance/cifar100/{target}", {"value": far})
        for seed in range(2):
            made_up.put(f"transfer/cifar100/standard/seed-{seed}/{target}/mode-0", {"accuracy": 40.0})
            made_up.put(f"transfer/cifar100/eps-1/seed-{seed}/{target}/mode-0", {"accuracy": 40.0 + gap + seed})
    pieces = made_up.evidence("fig-7")
    assert [(e.n, e.beside) for e in pieces] == [(4, False), (4, False), (3, True), (3, True)]
    assert pieces[0].value < 0.5 < 0.99 < pieces[2].value
    assert "cifar100 without gtsrb, Spearman" in pieces[2].label
