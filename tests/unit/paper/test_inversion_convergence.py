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


def long_study(by, objective, last_tenth=0.1):
    """Plain and one noisy arm after 10,000 steps: speed-ups around ``by`` on the clean network and ``objective``."""
    gains = {"gain_clean": [by, by + 0.01], "gain_objective": [objective, objective + 0.01]}
    ups = {"speed_up": [50 * by, 50.1 * by], "speed_up_objective": [50 * objective, 50.1 * objective]}
    noisy = {"arm": "variational, beta 1e-10", "lr": 1.0, "steps": [0, 10_000], **gains, **ups}
    plain = {"arm": "plain", "lr": 2.0, "steps": [0, 10_000], "last_tenth": [last_tenth] * 2}
    return {"arms": [plain, noisy]}


def short_study(gain):
    arm = {"lr": 1.0, "steps": [0, 500], "speed_up": [gain] * 2, "gain_clean": [gain, gain + 0.01]}
    arm["gain_objective"] = arm["gain_clean"]
    return {"arms": [{**arm, "arm": "plain"}, {**arm, "arm": "variational, beta 1e-10"}]}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_study_of_as_many_steps_as_the_papers_decides(made_up, sign):
    made_up.put("convergence/cifar10/eps-1/seed-0", short_study(-sign * 1.0))
    made_up.put("convergence-tuned/cifar10/eps-1/seed-0", long_study(sign * 1.0, sign * 1.0))
    made_up.put("convergence-common/cifar10/eps-1/seed-0", long_study(-sign * 1.0, -sign * 1.0))
    evidence = made_up.evidence("fig-2-fit")
    deciding = [e for e in evidence if not e.beside]
    assert [e.value for e in deciding] == pytest.approx([sign + 0.005] * 2)
    assert all("10,000 steps" in e.label and "one step size" not in e.label for e in deciding)
    assert sum("one step size for all" in e.label for e in evidence) == 2
    assert sum("500 steps" in e.label for e in evidence) == 2
    assert deciding[0].note == "plain fell by 9.5 % in the last tenth of the steps"
    assert Judged(CLAIMS["fig-2-fit"], evidence).verdict == ("holds" if sign > 0 else "does not hold")


def test_the_speed_up_is_asked_for_on_the_clean_network_and_on_the_one_inverted(made_up):
    made_up.put("convergence-tuned/cifar10/eps-1/seed-0", long_study(1.0, 1.0))
    assert Judged(CLAIMS["fig-2-forty"], made_up.evidence("fig-2-forty")).verdict == "holds"
    made_up.put("convergence-tuned/cifar10/eps-1/seed-0", long_study(1.0, 0.02))
    assert Judged(CLAIMS["fig-2-forty"], made_up.evidence("fig-2-forty")).verdict == "does not hold"
    made_up.put("convergence-tuned/cifar10/eps-1/seed-0", long_study(0.02, 1.0))
    assert Judged(CLAIMS["fig-2-forty"], made_up.evidence("fig-2-forty")).verdict == "does not hold"
