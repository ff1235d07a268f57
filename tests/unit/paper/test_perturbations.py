"""Evidence on perturbations, from results that are made up."""

import pytest
import torch
from torch import nn

from waterbed.devices import seeded
from waterbed_paper.experiments import longer_is_worse
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
        made_up.put("longest/cifar10/standard/seed-0", {"hits": hits, "n": n, "eps": 0.05})
        judged = Judged(CLAIMS["footnote-1"], made_up.evidence("footnote-1"))
        assert judged.verdicts[0] == verdict
        made_up.put("theory/cifar10/standard/seed-0", {"whole_eps": {"hits": n - hits, "n": n, "eps": 0.05}})
        judged = Judged(CLAIMS["footnote-1"], made_up.evidence("footnote-1"))
        assert judged.verdict == verdict, "PGD's own length is of the attack, and stands beside"


@pytest.mark.parametrize(("peak", "whole"), [(2.0, True), (0.5, False), (0.0, False)])
def test_a_maximum_inside_the_ball_is_not_taken_for_one_on_it(peak, whole):
    """The loss is largest at a distance of ``peak`` eps from the image."""
    eps, x = 0.1, torch.full((3, 1, 2, 2), 0.5, dtype=torch.float64)
    centre = x[0].flatten() + peak * eps * torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64) / 2

    class Hill(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))

        def forward(self, images):
            height = -(images.flatten(1) - centre).square().sum(1) * self.scale
            return torch.stack([-height, height], 1)

    with seeded(0, x.device):
        found = longer_is_worse(Hill(), x, torch.zeros(3, dtype=torch.long), eps)
    assert found.tolist() == [whole] * 3
