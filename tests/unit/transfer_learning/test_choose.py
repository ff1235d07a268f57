"""choose ranks by the combined score, and is only as sure as the images, the split and the calibration allow."""

import numpy as np
import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.transfer_learning.choice import SCORES, Candidate
from waterbed.transfer_learning.choose import ranked
from waterbed.transfer_learning.cross_validation import CrossValidated, cross_validate
from waterbed.transfer_learning.ranking import RULE


class Blurred(nn.Module):
    """Features that keep only some of the pixels."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept

    def forward(self, x):
        return x.flatten(1)[:, self.kept]


def backbone(kept):
    kept = range(kept) if isinstance(kept, int) else kept
    return wb.FeatureClassifier(Blurred(list(kept)), nn.Linear(len(kept), 4))


def choice_of(probabilities, firsts=()):
    """A choice in which the leader "a" beats b, c, ... with these probabilities and leads by the scores ``firsts``."""

    def scores(name, i):
        return CrossValidated(float(-i if name in (*firsts, "combined") else i), -i + np.linspace(-1, 1, 10))

    return wb.Choice(
        "task",
        [
            Candidate("abcdef"[i], {s: scores(s, i) for s in SCORES}, CrossValidated(float(i), np.arange(10.0)), p)
            for i, p in enumerate([0.5, *probabilities])
        ],
        100,
    )


@pytest.mark.parametrize(
    ("probabilities", "verdict", "begins"),
    [
        ([0.951, 0.999], "clearly", "a clearly leads: the chance that it also beats b when"),
        ([0.999, 0.951], "clearly", "a clearly leads: the chance that it also beats c when"),
        ([0.949, 0.999], "probably", "a probably leads: the chance that it also beats b when"),
        ([0.801], "probably", "a probably leads: the chance that it also beats b when"),
        ([0.799], "tie", "It is a tie between a and b: the chance that a beats b when"),
        ([0.5, 0.7, 0.96], "tie", "It is a tie between a, b and c: the chance that a beats b when"),
    ],
)
def test_every_verdict_has_its_word(probabilities, verdict, begins):
    choice = choice_of(probabilities)
    assert choice.verdict == verdict
    assert choice.reason.startswith(begins)
    for word in {"clearly", "probably", "tie"} - {verdict}:
        assert word not in choice.reason
    others = {"clearly": "clearly leads", "probably": "probably leads", "tie": "no clear leader"}
    assert others[verdict] in choice.plot().get_suptitle()


def test_the_chance_is_never_rounded_up():
    assert "is 94 %. Its" in choice_of([0.9499]).reason
    assert "is over 99 %. Its" in choice_of([0.996]).reason
    assert "is 55 %, so fine-tune both. Its" in choice_of([0.55]).reason
    assert "is 55 %, so fine-tune them all. Its" in choice_of([0.55, 0.6]).reason


def test_single_scores_that_disagree_are_named():
    assert "LogME puts a first, the probe, k-NN, the H-score and LEEP do not." in choice_of([0.9], ["logme"]).reason
    all_but_one = [s for s in SCORES if s not in ("combined", "knn")]
    assert "the probe, LogME, the H-score and LEEP put a first, k-NN does not." in choice_of([0.9], all_but_one).reason
    assert "no single score puts a first" in choice_of([0.9]).reason


def test_a_leader_whose_probe_is_behind_is_said():
    behind = choice_of([0.9]).candidates[1]
    behind = Candidate("b", behind.scores, CrossValidated(-0.4, np.array([-1.0, 0.2] * 5)), 0.9)
    reason = wb.Choice("task", [choice_of([0.9]).candidates[0], behind], 100).reason
    assert "Its probe is 0.4 [-0.4, 1.2] points behind that of b" in reason


def test_the_backbone_that_sees_more_is_chosen_and_clearly(digits):
    choice = wb.choose({"blind": backbone(8), "seeing": backbone(64)}, digits, num_samples=256)
    assert choice.best == "seeing"
    first, second = choice.candidates
    assert first.behind.value == 0
    assert second.behind.interval()[0] > 0
    for score in SCORES:
        assert first.scores[score].value > second.scores[score].value or score == "leep"
    assert choice.verdict == "clearly"
    frame = choice.to_frame()
    assert list(frame["backbone"]) == ["seeing", "blind"]
    assert frame["leader_better"][1] > 0.95
    assert (frame["probe_low"] < frame["probe"]).all()
    assert (frame["probe"] < frame["probe_high"]).all()
    assert choice.num_samples == 256


def test_twins_are_a_tie(digits):
    choice = wb.choose({"a": backbone(32), "b": backbone(32)}, digits, num_samples=200)
    assert choice.verdict == "tie"
    assert [c.leader_better for c in choice.candidates] == [0.5, 0.5]


def test_an_order_that_another_seed_reverses_is_never_clear():
    """Two backbones of the same worth: whoever leads on one draw of images and splits, does not lead clearly."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(400, 12, generator=generator), torch.randn(400, generator=generator)
    y = (x.sum(1) + noise > 0).long()
    halves = {"left": x[:, :6], "right": x[:, 6:]}
    choices = []
    for seed in range(8):
        drawn = torch.randperm(400, generator=torch.Generator().manual_seed(seed))[:120]
        scores = {n: cross_validate(h[drawn], y[drawn], h[drawn].softmax(1), seed=seed) for n, h in halves.items()}
        for own in scores.values():
            own["combined"] = RULE.combined(own, y[drawn].bincount().numpy())
        choices.append(wb.Choice("halves", ranked(scores), 120))
    assert {c.best for c in choices} == {"left", "right"}, "the order reverses"
    assert {c.verdict for c in choices} <= {"tie", "probably"}


def test_one_seed_gives_one_choice_and_the_seed_matters(digits):
    pair = {"upper": backbone(range(32)), "lower": backbone(range(32, 64))}
    first, again, other = (wb.choose(pair, digits, num_samples=100, seed=seed).to_frame() for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_backbones_are_compared_on_the_same_folds():
    """Two backbones that err on nearly the same images differ surely, though each interval is wide."""
    noise = 10 * np.random.default_rng(0).standard_normal(10)
    scores = {
        name: {
            "probe": CrossValidated(value, value + noise + shift),
            "combined": CrossValidated(value, value + noise + shift),
        }
        for name, value, shift in (("less", 60.0, 0.0), ("more", 64.0, 0.1 * noise))
    }
    first, second = ranked(scores)
    assert (first.name, second.name) == ("more", "less")
    assert second.behind.value == pytest.approx(4)
    assert second.behind.interval()[0] > 0
    assert first.scores["probe"].interval()[0] < second.scores["probe"].interval()[1]
    assert second.leader_better > 0.95


def test_rare_classes_and_few_images():
    x = torch.randn(43, 5, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0] * 20 + [1] * 20 + [2] * 3)
    scores = cross_validate(x, y, x.softmax(1))
    assert (scores["probe"].folds, len(scores["probe"].parts)) == (5, 10)
    y = torch.tensor([0] * 40 + [1] * 3)
    assert cross_validate(x, y, x.softmax(1))["probe"].folds == 3
    with pytest.raises(wb.UsageError, match=r"1 class\(es\) with two or more images; pass more"):
        cross_validate(x, torch.tensor([0] * 42 + [1]), x.softmax(1))


def test_the_jackknife_s_parts_average_to_the_score_of_an_average():
    """LEEP's mean log-likelihood is nearly an average over images, so its parts lie about the whole."""
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(400, 4, generator=generator).softmax(1).double()
    y = torch.multinomial(p, 1, generator=generator)[:, 0]
    leep = cross_validate(p, y, p)["leep"]
    assert leep.value == pytest.approx(wb.leep(p, y))
    assert leep.parts.mean() == pytest.approx(leep.value, abs=0.02)
    # A mean of 80 values varies by about their standard deviation / sqrt(80); leaving a fold out moves 1 / 4 of that.
    single = (p.log().gather(1, y[:, None])).std() / 80**0.5
    assert 0.3 < leep.parts.std() / float(single) < 1.5


def test_a_pair_of_data_sets_is_a_target(digits):
    pair, models = (digits.train, digits.test), {"a": backbone(8)}
    one, other = (wb.choose(models, data, num_samples=60) for data in (pair, digits))
    assert one.to_frame().equals(other.to_frame())


def test_wrong_use_is_said(digits):
    with pytest.raises(TypeError, match="dict"):
        wb.choose([backbone(8)], digits)
    with pytest.raises(wb.UsageError, match="empty"):
        wb.choose({}, digits)
    only = wb.choose({"a": backbone(8)}, digits, num_samples=60)
    assert "a is the only backbone: a probe on its features reaches" in only.reason
    assert only.verdict == "only"
    assert only.plot().get_suptitle().endswith("a alone")


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
