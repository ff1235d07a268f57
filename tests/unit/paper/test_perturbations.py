"""Evidence on perturbations, from results that are made up."""

import pytest

from waterbed_paper.register import CLAIMS
from waterbed_paper.verdicts import Judged


def test_ratios_near_one(made_up):
    def near(value, stderr):
        ratios = {"0.0001": {"value": value, "stderr": stderr, "n": 50}, "0.001": {"value": 1.3}}
        made_up.put("theory/cifar10/eps-1/seed-0", {"ratios": ratios})
        return made_up.evidence("prop-3.2")

    within, shrinks = near(1.02, 0.001)
    assert (within.low, within.high) == (pytest.approx(0.02804, rel=1e-4), pytest.approx(0.03196, rel=1e-4))
    assert shrinks.value == pytest.approx(0.3 - 3 * 0.02)
    within, _ = near(1.0, 0.1)
    assert within.low == pytest.approx(-0.146, rel=1e-3)
    assert within.high == 0.05


def test_a_share_of_all_images_still_has_a_width(made_up):
    for hits, n, verdict in ((50, 50, "undecided"), (300, 300, "holds"), (200, 300, "does not hold")):
        made_up.put("theory/cifar10/standard/seed-0", {"whole_eps": {"hits": hits, "n": n, "eps": 0.05}})
        judged = Judged(CLAIMS["footnote-1"], made_up.evidence("footnote-1"))
        assert judged.verdicts == [verdict]
        assert judged.verdict == "undecided", "it is of the attack, and stands beside"
