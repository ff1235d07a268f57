"""Evidence on inversions, from results that are made up."""

import pytest

from waterbed_paper.register import CLAIMS
from waterbed_paper.verdicts import Judged


def test_the_robust_network_s_inversions_decide(made_up):
    modes = {"plain": 0.5, "variational": 0.4, "effective": 0.3}
    for seed in range(3):
        for kind, more in (("standard", 0.0), ("eps-1", 0.01 * seed)):
            result = {f"own/{m}": {"ssim": [s + more], "identified": [kind == "eps-1"]} for m, s in modes.items()}
            made_up.put(f"inversions/cifar10/{kind}/seed-{seed}", {**result, "noise_size": 0.31})
    robust, once, standard, _ = made_up.evidence("fig-1-effective")
    assert (robust.beside, once.beside, standard.beside) == (False, False, True)
    assert (robust.value, once.value) == (pytest.approx(0.2), pytest.approx(0.1))
    assert "noise 31 % of |w|" in robust.label
    share, similarity = made_up.evidence("inversion")
    assert (share.value, share.over, share.beside) == (1.0, "image", False)
    assert share.note == "robust and standard: 100 %, 0 %"
    assert similarity.beside, "a grey square has more of it than an image that is recognised"


def test_noise_on_the_target_stands_beside_with_its_own_signs(made_up):
    for seed in range(3):
        for kind, keeps in (("standard", 0.0), ("eps-1", 0.1)):
            modes = {"plain": 0.5, "variational": 0.4, "effective": 0.3 - keeps + 0.01 * seed}
            result = {m: {"ssim": [s]} for m, s in modes.items()}
            made_up.put(f"noise-target/cifar10/{kind}/seed-{seed}", {**result, "noise_size": 0.3})
            own = {f"own/{m}": {"ssim": [0.5 + 0.01 * seed]} for m in modes}
            made_up.put(f"inversions/cifar10/{kind}/seed-{seed}", {**own, "noise_size": 0.3})
    target = [e for e in made_up.evidence("fig-1-effective") if "eq. 10" in e.label]
    assert [e.value for e in target] == pytest.approx([0.29, 0.19, 0.19, 0.09])
    assert all(e.beside for e in target)
    assert ["robust" in e.label for e in target] == [True, True, False, False]


def test_the_best_size_of_noise_decides_and_each_stands_beside(made_up):
    sizes = {1e-10: 0.575, 1e-9: 0.7}
    for seed in range(3):
        for kind in ("standard", "eps-1"):
            own = {"own/plain": {"ssim": [0.5, 0.5]}, "own/variational": {"ssim": [0.4, 0.4 + 0.02 * seed]}}
            made_up.put(f"inversions/cifar10/{kind}/seed-{seed}", {**own, "noise_size": 0.31})
            if kind == "standard" or seed < 2:
                noise = {f"{b:g}": {"noise_size": 0.1, "ssim": [v + 0.01 * seed] * 2} for b, v in sizes.items()}
                made_up.put(f"noise-sizes/cifar10/{kind}/seed-{seed}", noise)
    robust, standard = made_up.evidence("fig-1-noise-once")
    assert (robust.value, robust.n, robust.beside) == (pytest.approx(-0.09), 3, False), "sizes that not all have wait"
    assert (robust.label, standard.beside) == ("cifar10, robust: 1 - SSIM, beta 1e-08, noise 31 % of |w|", True)
    made_up.put("noise-sizes/cifar10/eps-1/seed-2", noise)
    best, *alone, standard = made_up.evidence("fig-1-noise-once")[:5]
    assert (best.value, best.n, best.beside) == (pytest.approx(0.21), 3, False)
    assert "best of 3 sizes of noise (beta 1e-09, noise 10 % of |w|)" in best.label
    assert [e.value for e in alone] == pytest.approx([0.085, 0.21, -0.09])
    assert all(e.beside for e in (*alone, standard))


def test_shares_keep_a_width_where_all_images_agree(made_up):
    for seed in range(2):
        for kind, own in (("standard", [False] * 8), ("eps-1", [True] * 8)):
            result = {"own/plain": {"ssim": [0.1 + 0.01 * seed], "identified": own}}
            made_up.put(f"inversions/cifar10/{kind}/seed-{seed}", result)
    share = made_up.evidence("inversion")[0]
    assert (share.value, share.n) == (1.0, 8)
    assert 0.5 < share.low < share.high


def test_shares_over_images_of_one_seed_decide_nothing(made_up):
    for kind, own in (("standard", [False] * 4), ("eps-1", [True, True, True, False])):
        result = {"own/plain": {"ssim": [0.1] * 4, "identified": own}}
        made_up.put(f"inversions/cifar10/{kind}/seed-0", result)
    pieces = made_up.evidence("inversion")
    judged = Judged(CLAIMS["inversion"], pieces)
    assert pieces[0].value == 0.75
    assert (judged.verdict, judged.one_seed) == ("undecided", True)
