"""What the convergence of an inversion is compared by, on curves that are made up."""

import math

import pytest
import torch

from waterbed.inversion.study import Curves
from waterbed_paper.experiments_inversion import against_plain, last_tenth


def curves(decay, steps=40, clean_factor=1.0, floor=0.01):
    """Losses (1 seed, steps + 1, 2 images) that fall by a constant factor a step, down to a floor."""
    falling = torch.tensor([max(decay**step, floor) for step in range(steps + 1)], dtype=torch.float64)
    losses = torch.stack([falling, 2 * falling], 1)[None]
    return Curves("arm", 1.0, 0.0, losses, clean_factor * losses)


def test_an_arm_that_is_faster_and_ends_lower_has_gains():
    """0.5^7 < 0.01 < 0.5^6, and 0.9^43 < 0.0105 < 0.9^42."""
    slow, fast = curves(0.9, 60), curves(0.5, 60)
    gains = against_plain(slow, fast)
    assert gains["speed_up"] == pytest.approx([44 / 7], rel=0.05)
    assert against_plain(fast, slow)["speed_up"] == pytest.approx([7 / 44], rel=0.05)
    assert gains["gain_clean"] == pytest.approx([0.0])


def test_the_gains_are_log_ratios_of_the_last_losses():
    plain, lower = curves(0.5), curves(0.5, floor=0.001, clean_factor=2.0)
    gains = against_plain(plain, lower)
    assert gains["gain_objective"] == pytest.approx([math.log(10)])
    assert gains["gain_clean"] == pytest.approx([math.log(5)])
    assert against_plain(lower, plain)["gain_objective"] == pytest.approx([-math.log(10)])


def test_an_arm_that_never_gets_there_counts_as_having_taken_all_steps():
    plain, never = curves(0.5, 40), curves(1.0, 40)
    assert against_plain(plain, never)["speed_up"] == pytest.approx([7 / 40])
    assert against_plain(plain, plain)["speed_up"] == pytest.approx([1.0])


def test_the_speed_up_is_told_of_both_networks():
    """The arm is as fast as plain on the network being inverted, and never there on the clean one."""
    plain, arm = curves(0.5, 40), curves(0.5, 40, clean_factor=3.0)
    compared = against_plain(plain, arm)
    assert compared["speed_up_objective"] == pytest.approx([1.0])
    assert compared["speed_up"] == pytest.approx([7 / 40])


def test_the_last_tenth_tells_whether_a_loss_still_falls():
    assert last_tenth(curves(0.5, 40)) == pytest.approx([0.0])
    assert last_tenth(curves(0.9, 40, floor=0.0)) == pytest.approx([-4 * math.log(0.9)])
