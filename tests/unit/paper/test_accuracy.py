"""Evidence on the accuracy that robustness costs, from results that are made up."""

import pytest


def test_the_price_is_what_the_robust_network_loses(made_up):
    for seed in range(2):
        made_up.put(f"accuracy/cifar10/standard/seed-{seed}", {"clean": 90.0 + seed})
        made_up.put(f"accuracy/cifar10/eps-1/seed-{seed}", {"clean": 80.0})
    (e,) = made_up.evidence("waterbed")
    assert (e.value, e.n) == (pytest.approx(10.5), 2)
