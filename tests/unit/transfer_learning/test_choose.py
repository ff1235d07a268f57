"""choose ranks by what a probe reaches, and is only as sure as the images allow."""

import numpy as np
import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.transfer_learning.choose import _ranked


class Blurred(nn.Module):
    """Features that keep only some of the pixels."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def forward(self, x):
        return x.flatten(1)[:, : self.kept]


def backbone(kept):
    return wb.FeatureClassifier(Blurred(kept), nn.Linear(kept, 4))


def test_the_backbone_that_sees_more_is_chosen_and_clearly(digits):
    choice = wb.choose({"blind": backbone(8), "seeing": backbone(64)}, digits, num_samples=256)
    assert choice.best == "seeing"
    first, second = choice.candidates
    assert first.behind == (0, 0, 0)
    assert second.behind[1] > 0
    assert first.best > 0.99
    assert first.logme > second.logme
    assert first.h_score > second.h_score
    assert "seeing leads clearly" in choice.reason
    assert list(choice.to_frame()["backbone"]) == ["seeing", "blind"]
    assert (choice.num_samples, choice.held) == (256, 64)


def test_twins_cannot_be_told_apart(digits):
    choice = wb.choose({"a": backbone(32), "b": backbone(32)}, digits, num_samples=200)
    assert "not clearly" in choice.reason
    assert [c.best for c in choice.candidates] == pytest.approx([0.5, 0.5])


def test_the_resampling_is_paired():
    """Two backbones that err on nearly the same images differ surely, though each interval is wide."""
    hits = np.arange(100) < 60
    fewer = hits.copy()
    fewer[:8] = False
    first, second = _ranked({"less": fewer, "more": hits}, dict.fromkeys(("less", "more"), (0.0, 0.0, 0.0)), 0)
    assert (first.name, second.name) == ("more", "less")
    assert second.behind[0] == pytest.approx(8)
    assert 0 < second.behind[1] < 8 < second.behind[2]
    assert first.best > 0.99
    assert first.probe.low < second.probe.high


def test_wrong_use_is_said(digits):
    with pytest.raises(TypeError, match="dict"):
        wb.choose([backbone(8)], digits)
    with pytest.raises(wb.UsageError, match="empty"):
        wb.choose({}, digits)
    assert "only backbone" in wb.choose({"a": backbone(8)}, digits, num_samples=60).reason


def test_leep_and_h_score_by_their_definitions():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(60, 5, generator=generator).softmax(1).double()
    y = torch.randint(0, 3, (60,), generator=generator)
    total = 0.0
    for i in range(60):
        chance = 0.0
        for z in range(5):
            joint = sum(float(p[j, z]) for j in range(60) if y[j] == y[i]) / 60
            chance += joint / float(p[:, z].mean()) * float(p[i, z])
        total += float(torch.tensor(chance).log()) / 60
    assert wb.leep(p, y) == pytest.approx(total, rel=1e-5)
    far = torch.cat([torch.randn(300, 4, generator=generator) + 40 * torch.eye(4)[c] for c in range(3)])
    assert wb.h_score(far, torch.arange(900) // 300) == pytest.approx(2, abs=0.1)
    with pytest.raises(wb.UsageError, match="softmax"):
        wb.leep(2 * p, y)
