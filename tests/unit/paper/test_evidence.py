"""Evidence on the claims, from made-up results: intervals over seeds, pairing, and the verdict on several pieces."""

import json
import math
from dataclasses import replace

import pytest

from waterbed_paper.claims import CLAIMS
from waterbed_paper.evidence import EVIDENCE
from waterbed_paper.found import (
    Evidence,
    Found,
    best_of,
    no_interval,
    over_images,
    over_seeds,
    over_targets,
    share_of_images,
    shared_seeds,
)
from waterbed_paper.graph import Graph, Place
from waterbed_paper.judge import Judged, judge
from waterbed_paper.nodes import nodes
from waterbed_paper.scale import Scale, Source, Transfers

SCALE = Scale(
    name="made-up",
    about="",
    sources=(
        Source("cifar10", "cifar10", {"0": 3, "0.5": 3, "1": 3, "2": 3}),
        Source("cifar100", "cifar100", {"0": 2, "1": 2}),
    ),
    transfers=Transfers(
        targets=("cifar10", "cifar100", "mnist", "fashion-mnist", "gtsrb"),
        eps=(0.0, 0.5, 1.0, 2.0),
        modes={"linear": 3, "0": 3, "1": 1},
        epochs={"linear": 1, "0": 1, "1": 1},
    ),
)


@pytest.fixture
def found(tmp_path):
    return Found(SCALE, Graph(nodes(SCALE), Place(tmp_path)))


def put(found, id, result):
    """A result as if the experiment had run."""
    file = found.graph.file(id)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"id": id, "key": found.graph.key(id), "result": result}))


def evidence(found, id):
    return list(EVIDENCE[id](found))


def test_nothing_run_says_so(found):
    judged = judge(found)
    assert [j.claim.id for j in judged] == list(CLAIMS)
    assert {j.verdict for j in judged} == {"not run"}


def test_gaps_are_paired_by_seed(found):
    for seed, standard in enumerate((50.0, 60.0, 70.0)):
        put(found, f"transfer/cifar10/standard/seed-{seed}/mnist/mode-0", {"accuracy": standard})
        put(found, f"transfer/cifar10/eps-1/seed-{seed}/mnist/mode-0", {"accuracy": standard + 5 + 0.1 * seed})
    (e,) = evidence(found, "far-tasks")
    assert e.label == "cifar10 to mnist"
    assert e.value == pytest.approx(5.1)
    assert e.high - e.low == pytest.approx(2 * 4.302653 * 0.1 / math.sqrt(3), rel=1e-5)
    assert Judged(CLAIMS["far-tasks"], [e]).verdict == "holds"


def test_a_result_of_another_config_is_not_used(found):
    put(found, "transfer/cifar10/standard/seed-0/mnist/mode-0", {"accuracy": 1.0})
    file = found.graph.file("transfer/cifar10/standard/seed-0/mnist/mode-0")
    file.write_text(file.read_text().replace(found.graph.key("transfer/cifar10/standard/seed-0/mnist/mode-0"), "0"))
    put(found, "transfer/cifar10/eps-1/seed-0/mnist/mode-0", {"accuracy": 2.0})
    assert evidence(found, "far-tasks") == []


def test_steps_of_eps_are_paired_and_shared_ones_come_first(found):
    for seed, norms in enumerate(({0: 30.0, 0.5: 10.0, 1: 20.0}, {0: 30.0, 1: 22.0})):
        for eps, norm in norms.items():
            name = f"eps-{eps:g}" if eps else "standard"
            put(found, f"network/cifar10/{name}/seed-{seed}", {"weight_norms": [norm]})
    steps = evidence(found, "fig-5-small-eps")
    assert [(e.label.split(", ")[1], e.value, e.n) for e in steps] == [
        ("from eps 0 to 1", -9.0, 2),
        ("from eps 0 to 0.5", -20.0, 1),
        ("from eps 0.5 to 1", 10.0, 1),
    ]
    assert Judged(CLAIMS["fig-5-small-eps"], steps).counted == [True, False, False]


def test_a_curve_that_falls_and_rises_does_not_rise(found):
    """A line through its ends would say that it does."""
    for seed in range(3):
        for eps, value in (("standard", 8.5), ("eps-1", 8.3), ("eps-2", 8.9)):
            result = {name: {"value": value * (1 + 0.001 * seed)} for name in ("weight_log_variance",)}
            result["weight_rescaling_invariant_trace"] = {"value": math.exp(-value * (1 + 0.001 * seed))}
            put(found, f"measures/cifar10/{eps}/seed-{seed}", result)
    steps = evidence(found, "fig-4")
    assert [round(e.value, 2) for e in steps] == [-0.2, 0.6, -0.2, 0.6]
    assert Judged(CLAIMS["fig-4"], steps).verdict == "does not hold"


def test_steps_need_two_eps(found):
    for eps, norm in ((1, 20.0), (2, 15.0)):
        put(found, f"network/cifar10/eps-{eps}/seed-0", {"weight_norms": [1.0, norm]})
    (e,) = evidence(found, "fig-5-large-eps")
    assert (e.value, e.n) == (5.0, 1)
    assert math.isnan(e.low)
    assert Judged(CLAIMS["fig-5-large-eps"], [e]).verdict == "undecided", "one seed has no interval"
    assert evidence(found, "fig-5-small-eps") == []


def test_the_gap_s_correlation_with_distance(found):
    for target, far, gap in (("cifar100", 1.0, -2.0), ("mnist", 2.0, 3.0), ("gtsrb", 3.0, 9.0)):
        put(found, f"distance/cifar10/{target}", {"value": far})
        for seed in range(2):
            put(found, f"transfer/cifar10/standard/seed-{seed}/{target}/mode-0", {"accuracy": 40.0})
            put(found, f"transfer/cifar10/eps-1/seed-{seed}/{target}/mode-0", {"accuracy": 40.0 + gap + seed})
    spearman, pearson = pieces = evidence(found, "fig-8")
    assert (spearman.value, spearman.n, spearman.over) == (pytest.approx(1.0), 3, "target")
    assert "mean gaps of 2 seeds, permutation p 0.17" in spearman.label
    assert 0.9 < pearson.value < 1
    assert Judged(CLAIMS["fig-8"], pieces).verdict == "undecided", "three targets decide nothing"
    assert evidence(found, "fig-7") == []


def test_the_correlation_without_what_stands_for_svhn_is_beside(found):
    targets = {"cifar10": (1.0, -2.0), "mnist": (2.0, 3.0), "fashion-mnist": (3.0, 4.0), "gtsrb": (2.5, -9.0)}
    for target, (far, gap) in targets.items():
        put(found, f"distance/cifar100/{target}", {"value": far})
        for seed in range(2):
            put(found, f"transfer/cifar100/standard/seed-{seed}/{target}/mode-0", {"accuracy": 40.0})
            put(found, f"transfer/cifar100/eps-1/seed-{seed}/{target}/mode-0", {"accuracy": 40.0 + gap + seed})
    pieces = evidence(found, "fig-7")
    assert [(e.n, e.beside) for e in pieces] == [(4, False), (4, False), (3, True), (3, True)]
    assert pieces[0].value < 0.5 < 0.99 < pieces[2].value
    assert "cifar100 without gtsrb, Spearman" in pieces[2].label


def test_other_eps_stand_beside_the_complex_target(found):
    for seed in range(2):
        for name, more in (("standard", 0.0), ("eps-0.5", 2.0 + seed), ("eps-1", -1.0), ("eps-2", -5.0)):
            put(found, f"transfer/cifar10/{name}/seed-{seed}/cifar100/mode-0", {"accuracy": 30.0 + more})
    pieces = evidence(found, "complex-target")
    assert [(e.label.split(", ")[1], e.value, e.beside) for e in pieces] == [
        ("eps 1", -1.0, False),
        ("eps 0.5", 2.5, True),
        ("eps 2", -5.0, True),
    ]


def test_correlations_over_few_targets():
    sure = (0.001, 0.001)
    assert over_targets("", 1.0, 3, sure).low == -1
    assert over_targets("", 0.63, 5, sure).low < 0 < over_targets("", 0.95, 5, sure).low


def test_both_halves_of_the_asymmetry(found):
    for seed in range(2):
        for source, target, gap in (("cifar10", "cifar100", -1.0), ("cifar100", "cifar10", -9.0 + 0.1 * seed)):
            put(found, f"transfer/{source}/standard/seed-{seed}/{target}/mode-0", {"accuracy": 40.0})
            put(found, f"transfer/{source}/eps-1/seed-{seed}/{target}/mode-0", {"accuracy": 40.0 + gap + 0.01 * seed})
    (both,), (there,) = evidence(found, "asymmetry"), evidence(found, "complex-target")
    assert (both.value, there.value, both.n) == (pytest.approx(7.95), pytest.approx(-0.995), 2)
    assert Judged(CLAIMS["asymmetry"], [both]).verdict == "holds"
    assert Judged(CLAIMS["complex-target"], [there]).verdict == "does not hold"


def test_seeds_are_not_mixed_where_one_is_missing(found):
    """Seed 0 of one mode failed: seed 1 is compared with seed 1."""
    for seed, mode, gap in ((1, "0", 5.0), (0, "linear", 100.0), (1, "linear", 3.0)):
        put(found, f"transfer/cifar10/standard/seed-{seed}/mnist/mode-{mode}", {"accuracy": 40.0})
        put(found, f"transfer/cifar10/eps-1/seed-{seed}/mnist/mode-{mode}", {"accuracy": 40.0 + gap})
    gaps = [found.gaps(SCALE.sources[0], "mnist", mode) for mode in ("0", "linear")]
    assert gaps == [{1: 5.0}, {0: 100.0, 1: 3.0}]
    assert shared_seeds(gaps) == [1]
    assert shared_seeds([]) == []


def test_the_robust_network_s_inversions_decide(found):
    modes = {"plain": 0.5, "variational": 0.4, "effective": 0.3}
    for seed in range(3):
        for kind, more in (("standard", 0.0), ("eps-1", 0.01 * seed)):
            result = {f"own/{m}": {"ssim": [s + more], "identified": [kind == "eps-1"]} for m, s in modes.items()}
            put(found, f"inversions/cifar10/{kind}/seed-{seed}", {**result, "noise_size": 0.31})
    robust, once, standard, _ = evidence(found, "fig-1-effective")
    assert (robust.beside, once.beside, standard.beside) == (False, True, True)
    assert (robust.value, once.value) == (pytest.approx(0.2), pytest.approx(0.1))
    assert "noise 31 % of |w|" in robust.label
    _, share = evidence(found, "inversion")
    assert (share.value, share.over) == (1.0, "image")


def test_the_best_size_of_noise_decides_and_each_stands_beside(found):
    sizes = {1e-10: 0.575, 1e-9: 0.7}
    for seed in range(3):
        for kind in ("standard", "eps-1"):
            own = {"own/plain": {"ssim": [0.5, 0.5]}, "own/variational": {"ssim": [0.4, 0.4 + 0.02 * seed]}}
            put(found, f"inversions/cifar10/{kind}/seed-{seed}", {**own, "noise_size": 0.31})
            if kind == "standard" or seed < 2:
                noise = {f"{b:g}": {"noise_size": 0.1, "ssim": [v + 0.01 * seed] * 2} for b, v in sizes.items()}
                put(found, f"noise-sizes/cifar10/{kind}/seed-{seed}", noise)
    robust, standard = evidence(found, "fig-1-noise-once")
    assert (robust.value, robust.n, robust.beside) == (pytest.approx(-0.09), 3, False), "sizes that not all have wait"
    assert (robust.label, standard.beside) == ("cifar10, robust: 1 - SSIM, beta 1e-08, noise 31 % of |w|", True)
    put(found, "noise-sizes/cifar10/eps-1/seed-2", noise)
    best, *alone, standard = evidence(found, "fig-1-noise-once")[:5]
    assert (best.value, best.n, best.beside) == (pytest.approx(0.21), 3, False)
    assert "best of 3 sizes of noise (beta 1e-09, noise 10 % of |w|)" in best.label
    assert [e.value for e in alone] == pytest.approx([0.085, 0.21, -0.09])
    assert all(e.beside for e in (*alone, standard))


def test_the_best_of_several_needs_more_to_hold():
    """Of k candidates without any effect one looks as if it had one."""
    tried = {"a": [1.0, 1.2, 1.1], "b": [0.0, 0.2, 0.1], "c": [-1.0, 0.0, 1.0]}
    best, alone = best_of(tried, "gain of {}"), over_seeds("", tried["a"])
    assert (best.label, best.value, best.high) == ("gain of a", alone.value, alone.high)
    assert best.low == pytest.approx(alone.ends(1 - 0.05 / 3)[0])
    assert best_of({"a": tried["a"]}, "").low == alone.low


def test_shares_keep_a_width_where_all_images_agree(found):
    for seed in range(2):
        for kind, own in (("standard", [False] * 8), ("eps-1", [True] * 8)):
            result = {"own/plain": {"ssim": [0.1 + 0.01 * seed], "identified": own}}
            put(found, f"inversions/cifar10/{kind}/seed-{seed}", result)
    share = evidence(found, "inversion")[1]
    assert (share.value, share.n) == (1.0, 8)
    assert 0.5 < share.low < share.high


def test_a_ranking_of_four_targets_is_too_short_to_decide():
    assert over_targets("", 1.0, 4, (1 / 24, 1.0)).low == 0.0
    assert over_targets("", 1.0, 5, (1 / 120, 1.0)).low > 0.9
    assert over_targets("", -1.0, 5, (1.0, 1 / 120)).high < -0.9
    assert over_targets("", -1.0, 4, (1.0, 1 / 24)).high == 0.0


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


def test_shares_over_images_of_one_seed_decide_nothing(found):
    for kind, own in (("standard", [False] * 4), ("eps-1", [True, True, True, False])):
        result = {"own/plain": {"ssim": [0.1] * 4, "identified": own}}
        put(found, f"inversions/cifar10/{kind}/seed-0", result)
    pieces = evidence(found, "inversion")
    judged = Judged(CLAIMS["inversion"], pieces)
    assert pieces[1].value == 0.75
    assert (judged.verdict, judged.one_seed) == ("undecided", True)


def test_fine_grained_tasks_and_what_batch_norms_gain(tmp_path):
    sources = (Source("cifar10", "cifar10", {"0": 2, "1": 2}), Source("imagenet", "imagenet", {"0": 2, "3": 2}))
    modes = {"0": 2, "1": 2}
    transfers = Transfers(("mnist", "stanford-cars"), modes, (0.0, 1.0, 3.0), None, {"0": 1, "1": 1})
    scale = Scale("made-up", "", sources, transfers)
    found = Found(scale, Graph(nodes(scale), Place(tmp_path)))
    for source, eps, gain in (("cifar10", "eps-1", 30.0), ("imagenet", "eps-3", 20.0)):
        for seed in range(2):
            for backbone, accuracy in (("standard", 50.0), (eps, 44.0 + seed)):
                for target in transfers.targets:
                    for mode, more in (("0", 0.0), ("1", gain)):
                        history = [{"test_clean": 1.0}, {"test_clean": accuracy + more}]
                        result = {"accuracy": accuracy + more, "history": history}
                        put(found, f"transfer/{source}/{backbone}/seed-{seed}/{target}/mode-{mode}", result)
    (near,) = evidence(found, "near-tasks")
    assert (near.label, near.value, near.n) == ("imagenet to stanford-cars", 5.5, 2)
    assert [e.value for e in evidence(found, "batch-norm")] == [30.0, 30.0, 20.0, 20.0]
    simple = evidence(found, "batch-norm-simple")
    assert [(e.value, e.label.split(", ")[-1]) for e in simple] == [(10.0, "mean of 1 targets")] * 2
    assert [e.label for e in evidence(found, "fig-13")] == [f"imagenet, mode {m}, mean of 1 targets" for m in modes]
    assert [e.value for e in evidence(found, "fig-12")] == pytest.approx([-0.4, -0.4])
    assert evidence(found, "table-5") == []


def test_the_best_arm_speaks_for_noise(found):
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
    put(found, "convergence/cifar10/eps-1/seed-0", {"arms": arms})
    (e,) = evidence(found, "fig-2-speed")
    assert "beta 1e-10, step 1.6; plain, step 3.2" in e.label
    assert e.value == pytest.approx(1.15)
    assert [e.value for e in evidence(found, "fig-2-fit")] == pytest.approx([0.05, 0.1])
    assert Judged(CLAIMS["fig-2-forty"], [e]).verdict == "does not hold"


def test_curves_of_one_seed_decide_nothing(found):
    """However many targets there are: the interval is over seeds."""
    for target in ("cifar100", "mnist", "gtsrb"):
        for backbone, ends in (("standard", (1.0, 2.0)), ("eps-1", (3.0, 4.0))):
            history = [{"test_clean": value} for value in ends]
            put(found, f"transfer/cifar10/{backbone}/seed-0/{target}/mode-0", {"accuracy": ends[1], "history": history})
    (e,) = evidence(found, "fig-10")
    assert (e.label, e.n) == ("cifar10, mode 0, mean of 3 targets", 1)
    assert Judged(CLAIMS["fig-10"], [e]).verdict == "undecided"
    assert [e.label for e in evidence(found, "far-tasks")] == ["cifar10 to mnist"]
    assert [e.label for e in evidence(found, "far-tasks-others")] == ["cifar10 to gtsrb"]


def test_curves_are_compared_by_their_shape(found):
    """Where a curve begins and ends says nothing here."""
    for seed in range(3):
        wiggle = 0.01 * seed
        for kind, norms in (("standard", (50.0, 45.0 + wiggle, 40.0)), ("eps-1", (50.0, 30.0 + wiggle, 10.0))):
            put(found, f"network/cifar10/{kind}/seed-{seed}", {"weight_norms": norms})
    (e,) = evidence(found, "fig-5-dynamics")
    assert abs(e.value) < 0.01


def test_ratios_near_one():
    from waterbed_paper.evidence_information import _near_one

    e = _near_one("x", {"value": 1.02, "stderr": 0.001, "n": 50}, 0.05)
    assert (e.low, e.high) == (pytest.approx(0.02804, rel=1e-4), pytest.approx(0.03196, rel=1e-4))
    e = _near_one("x", {"value": 1.0, "stderr": 0.1, "n": 50}, 0.05)
    assert e.low == pytest.approx(-0.146, rel=1e-3)
    assert e.high == 0.05


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


def test_intervals():
    assert over_seeds("", [2.0]).value == 2.0
    e = over_images("", {"value": 1.0, "stderr": 0.5, "n": 9}).minus(0.5)
    assert (e.value, e.low, e.high, e.n) == pytest.approx((0.5, -0.479982, 1.479982, 9))
    assert e.ends(0.99) == pytest.approx((0.5 - 0.5 * 2.575829, 0.5 + 0.5 * 2.575829))
    assert over_seeds("", [1.0, 2.0, 3.0]).ends(0.99)[1] == pytest.approx(2 + 9.924843 / math.sqrt(3))
    wide, narrow = share_of_images("", 40, 50).ends(0.99), share_of_images("", 40, 50).ends(0.95)
    assert wide[0] < narrow[0] < 0.8 < narrow[1] < wide[1]


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


def test_the_best_eps_is_sought_among_those_that_all_seeds_have(found):
    """One that only one seed has would be another quantity."""
    for seed in range(2):
        similar = {"standard": 0.1, "eps-1": 0.3, "eps-2": 0.2} | ({"eps-0.5": 0.9} if seed == 0 else {})
        for name, ssim in similar.items():
            put(found, f"inversions/cifar10/{name}/seed-{seed}", {"own/plain": {"ssim": [ssim] * 4}})
    (e,) = evidence(found, "fig-9")
    assert e.label.endswith("best eps between 1 (of 0, 1, 2)")
    assert (e.value, e.n) == (pytest.approx(0.1), 2)


def test_a_share_of_all_images_still_has_a_width(found):
    for hits, n, verdict in ((50, 50, "undecided"), (300, 300, "holds"), (200, 300, "does not hold")):
        put(found, "theory/cifar10/standard/seed-0", {"whole_eps": {"hits": hits, "n": n, "eps": 0.05}})
        pieces = evidence(found, "footnote-1")
        assert Judged(CLAIMS["footnote-1"], pieces).verdict == verdict


def test_the_proof_s_reading_of_the_lemma_decides(found):
    values = {"lemma": 1.0, "lemma_unit_noise": -7.0, "lemma_labels": 20.0}
    result = {key: {"value": value, "stderr": 0.1, "n": 50} for key, value in values.items()}
    put(found, "theory/cifar10/eps-1/seed-0", result)
    pieces = evidence(found, "lemma-5.1")
    assert [(e.value, e.beside) for e in pieces] == [(1.0, False), (-7.0, True), (20.0, True)]
    judged = Judged(CLAIMS["lemma-5.1"], pieces)
    assert (judged.verdict, judged.verdicts[1]) == ("holds", "does not hold")
