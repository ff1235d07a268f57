"""Evidence on the convergence of inversions, from results that are made up."""

import pytest

from waterbed_paper.register import CLAIMS
from waterbed_paper.verdicts import Judged


def test_the_best_arm_speaks_for_noise(made_up):
    arms = [
        {"arm": "plain", "lr": 3.2, "speed_up": [1.0, 1.0], "gain_clean": [0.0, 0.0], "gain_objective": [0.0, 0.0]},
        {
            "arm": "variational, beta 1e-08",
            "lr": 0.8,
            "speed_up": [0.5, 0.6],
            "gain_clean": [-1, -1.1],
            "gain_objective": [0, 0.1],
        },
        {
            "arm": "variational, beta 1e-10",
            "lr": 1.6,
            "speed_up": [1.1, 1.2],
            "gain_clean": [0, 0.1],
            "gain_objective": [0, 0.2],
        },
    ]
    made_up.put("convergence/cifar10/eps-1/seed-0", {"arms": arms})
    (e,) = made_up.evidence("fig-2-speed")
    assert "beta 1e-10, step 1.6; plain, step 3.2" in e.label
    assert e.value == pytest.approx(1.15)
    assert [e.value for e in made_up.evidence("fig-2-fit")] == pytest.approx([0.05, 0.1])
    assert Judged(CLAIMS["fig-2-forty"], [e]).verdict == "does not hold"
