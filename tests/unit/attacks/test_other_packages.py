"""as_attack on the attacks of other packages, where these are installed."""

from functools import partial

import numpy as np
import pytest
import torch

import waterbed as wb

EPS = 0.1


@pytest.fixture
def trained(digits):
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    return wb.fit(model, digits, wb.Standard(), epochs=3, batch_size=32, lr=0.05, watch=0, progress=False).model


def other():
    """The network an attack is built for; it is not the one it then attacks."""
    return wb.create_model("resnet10", 10, width=2, in_channels=1, seed=9).eval()


def torchattacks_pgd():
    return wb.as_attack(pytest.importorskip("torchattacks").PGD(other(), eps=EPS, alpha=EPS / 4, steps=10), norm="linf")


def torchattacks_apgd():
    attack = pytest.importorskip("torchattacks").APGD(other(), norm="Linf", eps=EPS, steps=10)
    return wb.as_attack(attack)


def torchattacks_multi():
    library, model = pytest.importorskip("torchattacks"), other()
    parts = [library.FGSM(model, eps=EPS), library.PGD(model, eps=EPS, alpha=EPS / 4, steps=10)]
    return wb.as_attack(library.MultiAttack(parts), eps=EPS, norm="linf")


def foolbox_pgd():
    return wb.as_attack(pytest.importorskip("foolbox").attacks.LinfPGD(rel_stepsize=0.25, steps=10), eps=EPS)


def foolbox_deepfool():
    return wb.as_attack(pytest.importorskip("foolbox").attacks.LinfDeepFoolAttack(), eps=EPS, norm="linf")


def adv_lib_pgd():
    pgd = partial(pytest.importorskip("adv_lib.attacks").pgd_linf, ε=EPS, steps=10, relative_step_size=0.25)
    return wb.as_attack(pgd, eps=EPS, norm="linf")


def art_pgd():
    evasion = pytest.importorskip("art.attacks.evasion")
    from art.estimators.classification import PyTorchClassifier

    loss = torch.nn.CrossEntropyLoss()
    estimator = PyTorchClassifier(other(), loss, (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu")
    attack = evasion.ProjectedGradientDescent(estimator, eps=EPS, eps_step=EPS / 4, max_iter=10, verbose=False)
    return wb.as_attack(attack)


MAKERS = [torchattacks_pgd, torchattacks_apgd, torchattacks_multi, foolbox_pgd, foolbox_deepfool, adv_lib_pgd, art_pgd]


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_it_breaks_about_what_our_pgd_breaks(make, trained, digits):
    ours = wb.PGD(EPS, "linf", 10, EPS / 4)
    attack = make()
    assert attack.config()["norm"] == "linf"
    assert attack.config()["eps"] == EPS
    score = wb.evaluate(trained, digits.test, [ours, attack])
    assert score.outside == {}
    assert score.robust[attack.name] < score.clean - 15
    assert score.robust[attack.name] <= score.robust[ours.name] + 10
    assert score == wb.evaluate(trained, digits.test, [ours, make()]), "seeded, whatever generator it draws from"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_network_trains_against_it(make, digits):
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    objective = wb.AdversarialTraining(make())
    few = digits.take(32, 16)
    run = wb.fit(model, few, objective, epochs=1, batch_size=16, lr=0.02, watch=8, progress=False)
    assert run.config["objective"]["attack"] == objective.attack.name
    assert np.isfinite(run.history[0]["loss"])
    assert all(parameter.requires_grad for parameter in run.model.parameters())
