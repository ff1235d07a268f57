"""PGD: the radius as the field writes it, the l1 ball, targets, losses."""

import pytest
import torch
import torch.nn.functional as F

import waterbed as wb
from waterbed.attacks.balls import BALLS, L1
from waterbed.attacks.losses import LOSSES
from waterbed.attacks.radius import NORMS, parse_eps
from waterbed.training.objective_config import ObjectiveConfig
from waterbed.training.objectives import make_objective


def test_defaults_read_as_before():
    attack = wb.PGD()
    assert repr(attack) == "PGD(eps=1.0, norm='l2', steps=7, step_size=None, random_start=True, restarts=1)"
    assert attack.name == "pgd-7 l2 eps=1"
    keys = ["eps", "norm", "steps", "step_size", "random_start", "restarts"]
    assert list(attack.config()) == keys
    assert repr(wb.PGD(eps=1)).startswith("PGD(eps=1,"), "a number stays as it is"


def test_eps_as_text():
    assert wb.PGD(eps="8/255", norm="linf") == wb.PGD(eps=8 / 255, norm="linf")
    assert wb.GaussianNoise("1/2") == wb.GaussianNoise(0.5)
    assert make_objective(ObjectiveConfig("adversarial", eps=" 8 / 255 ")).attack.eps == 8 / 255
    for text in ("8:255", "", "8/", "/255", "8/0", "1/2/3", "half"):
        with pytest.raises(wb.UsageError, match=r"is no number; write 0\.5 or a fraction such as 8/255"):
            wb.PGD(eps=text)
    for eps in ("-1", -0.5, "nan", "inf"):
        with pytest.raises(wb.UsageError, match="must be a finite number >= 0"):
            wb.GaussianNoise(eps)
    with pytest.raises(wb.errors.UsageTypeError, match="must be a number"):
        wb.PGD(eps=None)


def test_eps_beyond_every_image_warns():
    with pytest.warns(wb.errors.UsageWarning, match=r"eps=8 .* pixels lie in \[0, 1\]; did you mean 8/255\?") as caught:
        wb.PGD(eps=8, norm="linf")
    assert len(caught) == 1
    for eps, norm in ((8, "l2"), (8, "l1"), (1, "linf")):
        wb.PGD(eps=eps, norm=norm)


def test_the_standard_evaluation_reads_eps_and_says_which_norms_it_has(tiny, digits):
    few = [digits.test[i] for i in range(10)]
    report = wb.evaluate_standard(tiny, few, "64/255", "linf", autoattack="never")  # 10 eps is above 1: no warning
    assert report.eps == 64 / 255
    with pytest.raises(wb.UsageError, match=r"norm='l1' has no standard AutoAttack.*PGD\(eps, 'l1'\)"):
        wb.evaluate_standard(tiny, few, 1.0, "l1")
    with pytest.raises(wb.UsageError, match="eps=0"):
        wb.evaluate_standard(tiny, few, 0)


def test_the_names_of_norms_are_those_of_the_balls():
    assert tuple(BALLS) == NORMS
    assert parse_eps(0.5) == 0.5


def test_l1_steps_go_along_the_largest_hundredth():
    gradient = torch.randn(3, 2, 20, 10)
    step = L1().direction(gradient).flatten(1)
    assert torch.allclose(step.abs().sum(1), torch.ones(3))
    assert bool(((step != 0).sum(1) == 4).all())
    largest = gradient.flatten(1).abs().topk(4).indices
    assert torch.equal(step.gather(1, largest), gradient.flatten(1).gather(1, largest).sign() / 4)
    few = torch.zeros(1, 1, 20, 20)
    few[0, 0, 0, 0] = -1e-30
    assert L1().direction(few).sum() == -1, "entries without a gradient take no part"
    assert not L1().direction(torch.zeros(1, 1, 2, 2)).any()


def test_l1_random_start_is_uniform_in_the_ball():
    start = L1().random_start(torch.zeros(20_000, 1, 1, 3), 2.0).flatten(1)
    radius = start.abs().sum(1) / 2
    assert float(radius.max()) <= 1
    assert float((radius**3).mean()) == pytest.approx(0.5, abs=0.01)
    assert float((radius**3).var()) == pytest.approx(1 / 12, abs=0.005)
    assert float(start.mean(0).abs().max()) < 0.03
    share = start.abs() / start.abs().sum(1, keepdim=True)  # uniform on the simplex: variance 1/18
    assert share.var(0).tolist() == pytest.approx([1 / 18] * 3, abs=0.003)


def test_l1_attack_stays_in_ball_and_box_and_raises_the_loss(tiny):
    x, y = torch.rand(16, 1, 8, 8), torch.randint(10, (16,))
    x_adv = wb.PGD(eps=2.0, norm="l1", steps=10)(tiny, x, y)
    assert float((x_adv - x).abs().flatten(1).sum(1).max()) <= 2 * (1 + 1e-5)
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    loss = torch.nn.CrossEntropyLoss(reduction="none")
    assert bool((loss(tiny(x_adv), y) > loss(tiny(x), y)).all())


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
def test_targeted_goes_towards_the_labels(tiny, loss):
    x, target = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
    attack = wb.PGD(0.3, "linf", 10, targeted=True, loss=loss, restarts=2)
    assert attack.config()["targeted"] is True
    x_adv = attack(tiny, x, target)
    of = LOSSES[loss]
    assert bool((of(tiny(x_adv), target) < of(tiny(x), target)).all())


def test_restarts_keep_a_target_that_was_reached():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    x, target = torch.rand(100, 1, 8, 8), torch.arange(100) % 10
    torch.manual_seed(3)
    once = wb.PGD(0.3, "linf", 1, 0.05, targeted=True)(model, x, target)
    torch.manual_seed(3)
    five = wb.PGD(0.3, "linf", 1, 0.05, targeted=True, restarts=5)(model, x, target)
    hit_once, hit_five = ((model(images).argmax(1) == target) for images in (once, five))
    assert 0 < hit_once.sum() < hit_five.sum() < 100
    assert bool((hit_five | ~hit_once).all())


def test_targets_are_not_the_true_labels(tiny, digits):
    attack = wb.PGD(0.2, "linf", 5, targeted=True)
    assert attack.name == "pgd-5 targeted linf eps=0.2"
    for make in (lambda: wb.AdversarialTraining(attack), lambda: wb.evaluate(tiny, digits.test, [attack])):
        with pytest.raises(wb.UsageError, match=r"is targeted, .*write as_attack\(lambda"):
            make()
    towards = wb.as_attack(lambda model, x, y: attack(model, x, (y + 1) % 10), "next class", 0.2, "linf")
    score = wb.evaluate(tiny, digits.test, [towards], num_samples=20)
    assert score.robust["next class"] <= score.clean
    with pytest.raises(wb.errors.UsageTypeError, match="targeted=3 must be True or False"):
        wb.PGD(targeted=3)


def confidence(logits, y):
    return -logits.gather(1, y[:, None])[:, 0]


def test_losses(tiny):
    x, y = torch.rand(8, 1, 8, 8), torch.arange(8)
    start = {"norm": "linf", "steps": 3, "random_start": False}
    margin, own = wb.PGD(0.1, loss="margin", **start), wb.PGD(0.1, loss=confidence, **start)
    assert (margin.name, own.name) == ("pgd-3 margin linf eps=0.1", "pgd-3 confidence linf eps=0.1")
    assert (margin.config()["loss"], own.config()["loss"]) == ("margin", "confidence")
    assert repr(own).endswith("loss='confidence')")
    lowest = tiny(own(tiny, x, y)).gather(1, y[:, None]).mean()
    assert lowest < tiny(x).gather(1, y[:, None]).mean()
    assert lowest < tiny(wb.PGD(0.1, **start)(tiny, x, y)).gather(1, y[:, None]).mean(), "what it asked for"
    for loss, match in (("dlr", "loss='dlr' is unknown"), (3, "loss=3 must be a function")):
        with pytest.raises((wb.UsageError, wb.errors.UsageTypeError), match=match):
            wb.PGD(loss=loss)
    with pytest.raises(wb.UsageError, match=r"loss=cross_entropy returned \(\) for 8 images"):
        wb.PGD(loss=F.cross_entropy)(tiny, x, y)
    with pytest.raises(wb.UsageError, match="TRADES ascends the KL"):
        wb.TRADES(wb.PGD(loss="margin"))
