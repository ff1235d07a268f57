"""Evidence on information about the input, from results that are made up."""

import math

import pytest

from waterbed_paper.register import CLAIMS
from waterbed_paper.verdicts import Judged


def test_example_3_3_counts_digits(made_up):
    made_up.put("example-3.3", {"relative_difference": 1e-12})
    (e,) = made_up.evidence("example-3.3")
    assert (e.value, e.low, e.high) == pytest.approx((3.0, 3.0, 3.0))
    assert Judged(CLAIMS["example-3.3"], [e]).verdict == "holds"


def test_information_falls_where_the_robust_network_has_less(made_up):
    """The derivative of the features is half of the logarithm of their trace, with the other sign."""
    names = ("input_fisher_trace", "input_fisher_lambda_max", "input_fisher_relative_trace", "effective_information")
    for seed in range(2):
        for kind, value in (("standard", math.exp(2.0 + 0.1 * seed)), ("eps-1", math.exp(1.0))):
            made_up.put(f"measures/cifar100/{kind}/seed-{seed}", {name: {"value": value} for name in names})
    pieces = made_up.evidence("input-fisher")
    assert [e.value for e in pieces] == pytest.approx([1.05] * 3)
    assert [e.label.split(": ")[1].split(",")[0] for e in pieces] == [
        "log tr S",
        "log lambda_1(S)",
        "log tr S / E|z|^2",
    ]
    (jacobian,) = made_up.evidence("jacobian")
    assert jacobian.value == pytest.approx(-0.525)
    (fall,) = made_up.evidence("effective-information")
    assert fall.value == pytest.approx((math.exp(2.0) + math.exp(2.1)) / 2 - math.exp(1.0))
