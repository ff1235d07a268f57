"""Evidence on the gap against the distance of the target, from results that are made up."""

from dataclasses import replace

import pytest

from waterbed_paper.register import CLAIMS
from waterbed_paper.scale import Probes
from waterbed_paper.topics.transfer_distance import FIGURES
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
    assert "cifar100, mode 0, weight decay 0.0005, without gtsrb, Spearman" in pieces[2].label


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "does not hold")])
def test_the_probe_s_further_targets_decide_without_variants(made_up_of, made_up, sign, verdict):
    """Ranked by the corrected distance; "twice" is a variant, whose gap says the opposite."""
    targets = ("cifar100", "mnist", "fashion-mnist", "gtsrb", "omniglot")
    further = {"letters": "", "faces": "", "signs": "", "twice": "mnist", "coarse": "cifar10"}
    probes = Probes(sources=("cifar10",), targets=targets, further=further, sizes=(2000,))
    made_up = made_up_of(replace(made_up.results.scale, probes=probes))
    assert "probe/cifar10/standard/seed-0/coarse" not in made_up.results.graph.nodes, "the source's own images"
    for i, target in enumerate((*targets, "letters", "faces", "signs", "twice")):
        # By the value, which is too large by as much as there are few images, the order is another one.
        distance = {"value": 9.0 - i, "corrected": 1.0 + i, "low": i, "high": 2.0 + i, "floor": 0.1}
        made_up.put(f"distance/cifar10/{target}", distance)
        gap = -100.0 * sign if target == "twice" else sign * i
        for seed in range(3):
            for network, more in (("standard", 0.0), ("eps-1", gap + 0.1 * seed)):
                record = {"solver": "logistic", "size": 2000, "held": 1.0, "test": 40.0 + more}
                made_up.put(f"probe/cifar10/{network}/seed-{seed}/{target}", {"probes": [record], "test": 100})
                if target in ("cifar100", "mnist", "fashion-mnist", "gtsrb"):
                    row = {"accuracy": 40.0 - more}
                    made_up.put(f"transfer/cifar10/{network}/seed-{seed}/{target}/mode-0", row)
    pieces = made_up.evidence("fig-8")
    deciding = [e for e in pieces if not e.beside]
    assert [e.n for e in deciding] == [8, 8]
    assert all(e.value == pytest.approx(sign) for e in deciding)
    assert Judged(CLAIMS["fig-8"], pieces).verdict == verdict
    (variants,) = (e for e in pieces if "with variants, Spearman" in e.label)
    assert (variants.n, variants.beside) == (9, True)
    assert abs(variants.value) < 0.6
    modes = [e for e in pieces if "mode 0" in e.label]
    assert [(e.n, e.beside, round(e.value, 6)) for e in modes] == [(4, True, -sign), (4, True, -sign)]
    (figure,) = (f for f in FIGURES if f.name == "fig-8")
    (panel,) = (ax for ax in figure.draw(made_up.results).axes if ax.get_title())
    points = {line.get_label(): line for line in panel.lines if not line.get_label().startswith("_")}
    assert (len(points), points["twice"].get_markerfacecolor()) == (9, "none")
    assert points["letters"].get_markerfacecolor() != "none"
    assert points["mnist"].get_xdata()[0] == 2.0
