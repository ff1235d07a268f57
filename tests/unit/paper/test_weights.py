"""Evidence on information in the weights and on their norm, from results that are made up."""

import math

from waterbed_paper.register import CLAIMS
from waterbed_paper.verdicts import Judged


def test_steps_of_eps_are_paired_and_shared_ones_come_first(made_up):
    for seed, norms in enumerate(({0: 30.0, 0.5: 10.0, 1: 20.0}, {0: 30.0, 1: 22.0})):
        for eps, norm in norms.items():
            name = f"eps-{eps:g}" if eps else "standard"
            made_up.put(f"network/cifar10/{name}/seed-{seed}", {"weight_norms": [norm]})
    steps = made_up.evidence("fig-5-small-eps")
    assert [(e.label.split(", ")[1], e.value, e.n) for e in steps] == [
        ("from eps 0 to 1", -9.0, 2),
        ("from eps 0 to 0.5", -20.0, 1),
        ("from eps 0.5 to 1", 10.0, 1),
    ]
    assert Judged(CLAIMS["fig-5-small-eps"], steps).counted == [True, False, False]


def test_a_curve_that_falls_and_rises_does_not_rise(made_up):
    """A line through its ends would say that it does."""
    for seed in range(3):
        for eps, value in (("standard", 8.5), ("eps-1", 8.3), ("eps-2", 8.9)):
            result = {name: {"value": value * (1 + 0.001 * seed)} for name in ("weight_log_variance",)}
            result["weight_rescaling_invariant_trace"] = {"value": math.exp(-value * (1 + 0.001 * seed))}
            made_up.put(f"measures/cifar10/{eps}/seed-{seed}", result)
    steps = made_up.evidence("fig-4")
    assert [round(e.value, 2) for e in steps] == [-0.2, 0.6, -0.2, 0.6]
    assert Judged(CLAIMS["fig-4"], steps).verdict == "does not hold"


def test_steps_need_two_eps(made_up):
    for eps, norm in ((1, 20.0), (2, 15.0)):
        made_up.put(f"network/cifar10/eps-{eps}/seed-0", {"weight_norms": [1.0, norm]})
    (e,) = made_up.evidence("fig-5-large-eps")
    assert (e.value, e.n) == (5.0, 1)
    assert math.isnan(e.low)
    assert Judged(CLAIMS["fig-5-large-eps"], [e]).verdict == "undecided", "one seed has no interval"
    assert made_up.evidence("fig-5-small-eps") == []


def test_curves_are_compared_by_their_shape(made_up):
    """Where a curve begins and ends says nothing here."""
    for seed in range(3):
        wiggle = 0.01 * seed
        for kind, norms in (("standard", (50.0, 45.0 + wiggle, 40.0)), ("eps-1", (50.0, 30.0 + wiggle, 10.0))):
            made_up.put(f"network/cifar10/{kind}/seed-{seed}", {"weight_norms": norms})
    (e,) = made_up.evidence("fig-5-dynamics")
    assert abs(e.value) < 0.01
