"""The verdict on an interval, on several pieces of evidence, and on all claims."""

import math
from dataclasses import replace

import pytest

import waterbed as wb
from waterbed_paper.evidence import Evidence, no_interval, over_seeds
from waterbed_paper.register import CLAIMS
from waterbed_paper.verdicts import VERDICTS, Judged, judge_claims, verdict


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 2, "holds"),
        (-2, -0.1, "does not hold"),
        (-1, 1, "undecided"),
        (0, 1, "undecided"),
        (-1, 0, "undecided"),
        (0, 0, "undecided"),
        (1, math.inf, "holds"),
        (-math.inf, math.inf, "undecided"),
        (math.nan, math.nan, "undecided"),
        (1, math.nan, "undecided"),
        (None, None, "not run"),
    ],
)
def test_verdict(low, high, expected):
    assert verdict(low, high) == expected
    assert expected in VERDICTS


def test_a_threshold_moves_the_verdict():
    assert verdict(0.9, 1.5) == "holds"
    assert verdict(0.9, 1.5, 1.0) == "undecided"
    assert verdict(0.2, 0.9, 1.0) == "does not hold"


def test_verdict_refuses_what_is_no_interval():
    with pytest.raises(wb.UsageError, match=r"low=2 .*exchange"):
        verdict(2, 1)
    with pytest.raises(wb.UsageError, match="both"):
        verdict(1, None)


def test_nothing_run_says_so(made_up):
    judged = judge_claims(made_up.results)
    assert [j.claim.id for j in judged] == list(CLAIMS)
    assert {j.verdict for j in judged} == {"not run"}


def test_all_evidence_must_agree():
    def judged(*intervals):
        pieces = [Evidence("", sum(i) / 2, lambda level, i=i: i, 3) for i in intervals]
        return Judged(CLAIMS["far-tasks"], pieces).verdict

    assert judged((1, 2), (3, 4)) == "holds"
    assert judged((1, 2), (-1, 4)) == "undecided"
    assert judged((1, 2), (-1, 4), (-3, -2)) == "does not hold"
    assert judged() == "not run"
    one_seed = Evidence("", -5.0, no_interval, 1)
    beside = Evidence("", -5.0, lambda level: (-6.0, -4.0), 3, beside=True)
    several = Evidence("", 1.5, lambda level: (1.0, 2.0), 3)
    assert Judged(CLAIMS["far-tasks"], [several, one_seed, beside]).verdict == "holds"
    assert Judged(CLAIMS["far-tasks"], [several, one_seed, beside]).counted == [True, False, False]
    assert Judged(CLAIMS["far-tasks"], [one_seed, beside]).verdict == "undecided"
    assert Judged(CLAIMS["far-tasks"], [beside]).verdict == "undecided"


def test_one_of_many_pieces_must_be_surer_to_contradict():
    """Three seeds whose mean is 5 standard errors below 0: t needs 4.3 for 95 %, 6.2 for 97.5 %."""
    step = math.sqrt(3) / 5
    against, other = over_seeds("", [-1 - step, -1.0, -1 + step]), over_seeds("", [1.0, 1.01, 1.02])
    far = over_seeds("", [-1.0, -1.01, -1.02])
    claim = CLAIMS["far-tasks"]
    assert against.high < 0
    assert Judged(claim, [against]).verdict == "does not hold"
    assert Judged(claim, [against, other]).verdicts == ["undecided", "holds"]
    assert Judged(claim, [against, other]).verdict == "undecided"
    assert Judged(claim, [against, replace(other, beside=True)]).verdict == "does not hold", "beside"
    assert Judged(claim, [far, other]).verdict == "does not hold"


def test_equal_seeds_have_no_interval_and_decide_nothing():
    equal, others = over_seeds("", [0.1, 0.1, 0.1]), over_seeds("", [1.0, 1.1, 1.2])
    assert math.isnan(equal.high)
    assert Judged(CLAIMS["fig-10"], [equal]).verdict == "undecided"
    assert Judged(CLAIMS["fig-10"], [equal, others]).verdict == "undecided", "unlike one seed, it counts"
    assert Judged(CLAIMS["fig-10"], [over_seeds("", [-1.0]), others]).verdict == "holds"
    assert not Judged(CLAIMS["fig-10"], [equal]).one_seed
    shares = [100 * (a + 5) / 360 - 100 * a / 360 for a in (300, 311, 333)]
    assert len(set(shares)) > 1, "equal but for rounding"
    assert math.isnan(over_seeds("", shares).low)
