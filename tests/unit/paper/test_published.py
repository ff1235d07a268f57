"""The published numbers are those that the paper prints, its slips are what they are said to be."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.data.catalog import CATALOG
from waterbed_paper.published import printed_numbers, slips, table_frame

COUNTS = {"1": 16, "2": 22, "3": 48, "4": 36, "5": 2, "6": 48, "7": 66, "8": 24, "9": 15, "10": 18, "11": 48, "12": 24}


def accuracy(table, model, mode, source, target, network="resnet50"):
    (number,) = printed_numbers(table, model=model, mode=mode, source=source, target=target, network=network)
    return number.value


def gap(mode, source, target, network="resnet50"):
    """Robust less standard, from the accuracies."""
    table = {"cifar10": "6", "cifar100": "3", "imagenet": "7"}[source]
    robust, standard = (accuracy(table, m, mode, source, target, network) for m in ("robust", "standard"))
    return round(robust - standard, 2)


@pytest.mark.parametrize(("table", "count"), COUNTS.items())
def test_every_table_is_complete_and_laid_out_as_printed(table, count):
    numbers = printed_numbers(table)
    frame = table_frame(table)
    assert len(numbers) == len({n.place(table) for n in numbers}) == frame.size == count
    for number in numbers:
        row, column = (place if len(place) > 1 else place[0] for place in number.place(table))
        assert frame.loc[row, column] == number.value


def test_numbers_are_stored_once():
    numbers = printed_numbers()
    assert len(numbers) == 246
    assert sum(len(n.tables) for n in numbers) == sum(COUNTS.values())
    fields = ("metric", "source", "target", "network", "model", "mode")
    repeated = [k for k, n in Counter(tuple(getattr(x, f) for f in fields) for x in numbers).items() if n > 1]
    assert repeated == [("top-1", "cifar10", "svhn", "resnet50", "standard", 0)], "36.6 in Table 1, 36.67 in Table 6"


def test_rows_as_printed():
    """Some rows of every layout, typed again from the paper."""
    assert table_frame("7").loc[(1, "St")].tolist() == pytest.approx(
        [91.47, 75.13, 92.63, 98.44, 91.30, 37.83, 24.04, 64.20, 78.73, 96.21, 67.24]
    )
    assert table_frame("11").loc[(2, "Rob"), "ResNet18"].tolist() == [94.59, 92.48, 99.30, 96.39]
    assert table_frame("12").loc[2].tolist() == [-0.11, 0.80, 0.02, 0.03, -0.51, 0.45, 0.15, 0.10]
    assert table_frame("5").to_dict("list") == {"St": [84], "Rob": [80]}
    assert table_frame("1").columns[0] == ("C-10", "C-100")


def test_units_and_ranges():
    for n in printed_numbers():
        assert n.unit == {"top-1": "%", "top-1 difference": "points"}.get(n.metric, "count")
        assert (n.model is None) == (n.metric != "top-1")
        assert (n.eps is None) == (n.model == "standard" or n.unit == "count")
        assert n.unit != "%" or 0 < n.value < 100
        assert {n.source, n.target} - {None} <= set(CATALOG)


def test_table_4_is_the_catalogue():
    sizes = {
        name: [n.value for n in printed_numbers("4", target=name)]
        for name in dict.fromkeys(n.target for n in printed_numbers("4"))
    }
    assert len(sizes) == 12
    for name, found in sizes.items():
        assert found == [CATALOG[name].classes, CATALOG[name].train_size, CATALOG[name].test_size]


def test_every_difference_against_its_accuracies():
    """All 81 printed differences: one is wrong, eight are a hundredth off, and exactly these nine carry a note."""
    off = {}
    for n in printed_numbers(metric="top-1 difference"):
        right = gap(n.mode, n.source, n.target, n.network)
        if n.value != right:
            off[n.source, n.network, n.mode, n.target] = (n.value, right)
            assert n.note == f"the printed accuracies give {right:.2f}"
        else:
            assert n.note == ""
    assert off == {
        ("cifar10", "resnet50", 0, "svhn"): (21.68, 21.67),
        ("cifar10", "resnet50", 1, "svhn"): (0.65, 0.64),
        ("cifar10", "resnet50", 2, "svhn"): (-0.10, -0.11),
        ("cifar100", "resnet50", 0, "svhn"): (15.00, 15.01),
        ("cifar100", "resnet50", 1, "cifar10"): (-2.12, -2.13),
        ("cifar100", "resnet50", 2, "cifar10"): (-0.11, -0.38),
        ("imagenet", "resnet50", 0, "oxford-flowers"): (-2.32, -2.33),
        ("imagenet", "resnet50", 1, "cub-200-2011"): (4.95, 4.94),
        ("imagenet", "resnet50", 2, "cub-200-2011"): (-12.79, -12.80),
    }


def table_6_caption():
    """Left are the numbers from CIFAR-10, by Tables 1 and 8 and because CIFAR-100 is a target there."""
    frame, first = table_frame("6"), table_frame("1")
    assert [corner for corner, _ in frame.columns[[0, -1]]] == ["C-10", "C-100"]
    assert frame.columns[0][1] == "C-100", "a target of the left panel"
    assert frame.loc[(0, "Rob")].tolist() == first.loc["Rob"].tolist()
    left = frame["C-10"].loc[(0, "Rob")] - frame["C-10"].loc[(0, "St")]
    assert left.tolist() == pytest.approx(table_frame("8").loc[0, "C-10"].tolist(), abs=0.011)


def cifar100_to_cifar10():
    printed = {t: printed_numbers(t, mode=2, source="cifar100", target="cifar10") for t in ("8", "12")}
    assert printed["8"][0] is printed["12"][0]
    assert printed["8"][0].value == -0.11
    for table in ("3", "6", "11"):
        values = [accuracy(table, m, 2, "cifar100", "cifar10") for m in ("robust", "standard")]
        assert values == [94.82, 95.20]


def last_digit():
    off = [
        (n, gap(n.mode, n.source, n.target, n.network)) for n in printed_numbers(metric="top-1 difference") if n.note
    ]
    assert sorted(round(abs(n.value - right), 2) for n, right in off) == [0.01] * 8 + [0.27]
    assert {t for n, _ in off for t in n.tables} == {"8", "10", "12"}


def table_1_svhn():
    first, sixth = (accuracy(t, "standard", 0, "cifar10", "svhn") for t in ("1", "6"))
    assert (first, sixth) == (36.6, 36.67)
    assert round(sixth, 1) == 36.7
    assert math.floor(10 * sixth) / 10 == first


def table_4_cinic():
    assert {n.target for n in printed_numbers("5")} - {n.target for n in printed_numbers("4")} == {"cinic-imagenet"}


def larger_network():
    gaps = {
        (mode, target): (gap(mode, "cifar100", target), gap(mode, "cifar100", target, "resnet18"))
        for mode in (0, 1, 2)
        for target in ("cifar10", "fashion-mnist", "mnist", "svhn")
    }
    robust_wins = {k: v for k, v in gaps.items() if max(v) > 0}
    assert len(robust_wins) == 9
    assert {k: v for k, v in robust_wins.items() if v[0] < v[1]} == {
        (0, "mnist"): (15.50, 16.63),
        (1, "fashion-mnist"): (0.57, 1.48),
        (1, "svhn"): (0.22, 1.06),
        (2, "mnist"): (0.02, 0.15),
        (2, "svhn"): (0.03, 0.10),
    }
    assert all(abs(gaps[mode, "cifar10"][0]) < abs(gaps[mode, "cifar10"][1]) for mode in (0, 1, 2)), "the other half"


def smaller_gap():
    tasks = {(n.source, n.target) for t in ("8", "9", "10") for n in printed_numbers(t)}
    grows = [(s, t, m) for s, t in tasks for m in (1, 2) if abs(gap(m, s, t)) >= abs(gap(0, s, t))]
    assert grows == [("imagenet", "fgvc-aircraft", 2)]
    assert (gap(0, "imagenet", "fgvc-aircraft"), gap(2, "imagenet", "fgvc-aircraft")) == (-2.91, -4.17)


def batch_norm_boost():
    falls, accuracies = {}, [n for t in ("6", "7") for n in printed_numbers(t, mode=0)]
    for n in accuracies:
        (after,) = printed_numbers(
            mode=1, metric="top-1", source=n.source, target=n.target, network=n.network, model=n.model
        )
        if after.value < n.value:
            falls[n.source, n.target, n.model] = (n.value, after.value)
    assert set(falls) == {
        ("imagenet", "cub-200-2011", "robust"),
        ("imagenet", "cub-200-2011", "standard"),
        ("imagenet", "stanford-dogs", "robust"),
        ("imagenet", "stanford-dogs", "standard"),
        ("imagenet", "mit-indoor", "standard"),
    }
    assert falls["imagenet", "cub-200-2011", "standard"] == (53.58, 24.04)
    assert sum(n.source == "imagenet" for n in accuracies) == 22


def asymmetric_distance():
    assert gap(0, "cifar10", "cifar100") == 9.16
    assert gap(0, "cifar100", "cifar10") == -5.71
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(40, 3)), np.arange(40) % 4), (rng.normal(1, 2, size=(60, 3)), np.arange(60) % 7)
    assert wb.class_emd(*a, *b) == pytest.approx(wb.class_emd(*b, *a))


def half_in_preliminaries():
    w, x, d = torch.randn(3, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64), torch.full((3, 5), 1e-4)
    d[0] = 0
    p, q = (torch.softmax(m @ x, 0) for m in (w, w + d))
    kl = float((p * (p / q).log()).sum())
    change = d.double() @ x
    fisher = float(change @ (torch.diag(p) - p[:, None] * p) @ change)
    assert kl == pytest.approx(fisher / 2, rel=1e-2)


def noise_by_two():
    f, beta, prior = 2.0, 0.1, 1e4
    sigma = np.linspace(0.01, 0.2, 100_000)
    cost = f * sigma / 2 + beta / 2 * (sigma / prior - 1 - np.log(sigma / prior))
    best = sigma[cost.argmin()]
    assert best == pytest.approx(beta / (f + beta / prior), rel=1e-3)
    assert beta / 2 / (f + beta / (2 * prior)) == pytest.approx(best / 2, rel=1e-3)
    assert beta / f == pytest.approx(best, rel=1e-3)


def eq_9():
    torch.manual_seed(0)
    jx, jw, f = torch.randn(2, 4), torch.randn(2, 6), torch.diag(torch.rand(6) + 0.5)

    def printed(scale):
        return (scale * jx).T @ (scale * jw) @ f @ (scale * jw).T @ (scale * jx)

    def gaussian(scale):
        return (scale * jx).T @ torch.linalg.inv((scale * jw) @ torch.linalg.inv(f) @ (scale * jw).T) @ (scale * jx)

    assert torch.allclose(gaussian(3), gaussian(1), rtol=1e-3)
    assert torch.allclose(printed(3), 81 * printed(1), rtol=1e-3)


def eq_12():
    s = np.array([0.01, 0.1])  # eigenvalues of F over beta / lambda^2: noise of nearly the prior's size
    inner = 0.5 * (np.log(1 + s) + 1 / (1 + s)).sum()
    assert inner - len(s) / 2 == pytest.approx(0.5 * (np.log(1 + s) - s / (1 + s)).sum())
    assert inner - len(s) / 2 > 0
    assert inner - len(s) < 0


def eq_10():
    """For f = w x, noise of variance v on the target leaves the best x' at x, on the model it does not."""
    w, x, v = 2.0, 1.0, 0.5
    grid = np.linspace(0, 2, 200_001)
    on_target = (w * grid - w * x) ** 2 + v * x**2
    on_model = (w * grid - w * x) ** 2 + v * grid**2
    assert grid[on_target.argmin()] == pytest.approx(x)
    assert grid[on_model.argmin()] == pytest.approx(w**2 * x / (w**2 + v), abs=1e-4)


def lemma_5_1():
    backbone, head = nn.Linear(2, 2, bias=False), nn.Linear(2, 2)
    with torch.no_grad():
        backbone.weight.copy_(torch.eye(2))
        head.weight.copy_(3 * torch.eye(2))
    bounds = wb.fisher_bounds(wb.FeatureClassifier(backbone, head).double().eval(), torch.rand(4, 2).double())
    assert bounds.unit_noise.value == pytest.approx(9 * bounds.features.value)
    assert bounds.noisy_logits.value == pytest.approx(bounds.features.value)


def eq_2():
    torch.manual_seed(0)
    logits, change = torch.randn(5).double(), torch.randn(5).double()

    def both(size):
        p, q = torch.softmax(logits, 0), torch.softmax(logits + size * change, 0)
        return float((q * (q / p).log()).sum()), float((p * (p / q).log()).sum())

    assert both(1e-3)[0] == pytest.approx(both(1e-3)[1], rel=1e-2)
    assert both(2.0)[0] != pytest.approx(both(2.0)[1], rel=1e-2)
    objective = wb.TRADES(wb.PGD(1.0))
    p, q = torch.log_softmax(logits, 0), torch.log_softmax(logits + 2 * change, 0)
    assert float(objective.kl(p[None], q[None])) == pytest.approx(both(2.0)[1]), "the default is that of [39]"


def eq_11():
    """w = a D + n of variance beta / f, D of variance s: the information has a closed form."""
    a, f, beta, s = 3.0, 2.0, 0.01, 5.0
    exact = 0.5 * math.log(1 + s * a**2 * f / beta)
    entropy_d, entropy_w = (0.5 * math.log(2 * math.pi * math.e * v) for v in (s, s * a**2 + beta / f))

    def printed(entropy, fisher):
        return entropy - 0.5 * math.log(2 * math.pi * math.e / fisher)

    assert printed(entropy_d, a**2 * f / beta) == pytest.approx(exact, rel=1e-3)
    assert printed(entropy_w, a**2 * f / beta) != pytest.approx(exact, rel=0.1)
    assert printed(entropy_d, a**2 * f) != pytest.approx(exact, rel=0.1)


def log_det():
    torch.manual_seed(0)
    classes, images = 3, 4
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, classes)).double()
    fisher = wb.WeightFisher(model, torch.randn(images, 5).double()).matrix()
    assert len(fisher) > images * (classes - 1)
    assert torch.linalg.matrix_rank(fisher, hermitian=True) <= images * (classes - 1)


def weight_noise():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3, 3), nn.Tanh())
    model, x = wb.FeatureClassifier(backbone, nn.Linear(3, 2)).double().eval(), torch.rand(4, 3, 1, 1).double()
    return model, x, wb.WeightNoise(wb.WeightFisher(model, x), 1e-3, 1e-2)


def noise_mean():
    noise = weight_noise()[2]
    draws = torch.stack([noise.draw(seed) for seed in range(200)])
    assert (draws.mean(0) / (draws.std(0) / 200**0.5)).abs().max() < 4.5


def algorithms():
    """Without a step, only new noise changes the loss: every step in Algorithm 2, which is that of effective images."""
    model, x, noise = weight_noise()
    runs = {m: wb.invert(model, x, m, noise, steps=4, lr=1e-12) for m in ("variational", "effective")}
    assert runs["variational"].losses.std(0).max() < 1e-9 < runs["effective"].losses.std(0).min()


EVIDENCE = {
    check.__name__.replace("_", "-"): check
    for check in (
        table_6_caption,
        cifar100_to_cifar10,
        last_digit,
        table_1_svhn,
        table_4_cinic,
        larger_network,
        smaller_gap,
        batch_norm_boost,
        asymmetric_distance,
        half_in_preliminaries,
        noise_by_two,
        eq_9,
        eq_12,
        eq_10,
        lemma_5_1,
        eq_2,
        eq_11,
        log_det,
        noise_mean,
        algorithms,
    )
}


def test_every_slip_has_its_evidence():
    assert [s.id.replace(".", "-") for s in slips()] == list(EVIDENCE)


@pytest.mark.parametrize("slip", EVIDENCE)
def test_the_evidence_of_a_slip(slip):
    EVIDENCE[slip]()


def test_wrong_questions_are_refused():
    with pytest.raises(wb.UsageError, match="table='13'"):
        printed_numbers("13")
    with pytest.raises(wb.UsageError, match="'cifar10'"):
        printed_numbers(source="cifar-10")
    with pytest.raises(wb.UsageError, match="the filter='modes'"):
        printed_numbers(modes=0)
    with pytest.raises(wb.UsageError, match="table='2'"):
        printed_numbers("1")[0].place("2")
