"""Effective rank, neural collapse, CKA, entanglement and effective dimension by their definitions, in float64."""

import itertools
import math

import pytest
import torch
from tests.programs import load_program

import waterbed as wb
from waterbed.errors import UsageError, UsageTypeError
from waterbed.information.entanglement import soft_nearest_neighbour_loss, soft_nearest_neighbours
from waterbed.information.geometry import effective_rank, neural_collapse
from waterbed.information.neighbours import knn_estimate
from waterbed.information.spectrum import effective_dimension


def points(n=40, d=6, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    means = torch.randn(classes, d, generator=generator, dtype=torch.float64)
    return means[y] + 0.7 * torch.randn(n, d, generator=generator, dtype=torch.float64), y


@pytest.mark.parametrize("shape", [(40, 6), (5, 30)])
def test_effective_rank_by_its_definition(shape):
    z = points(*shape)[0]
    p = torch.linalg.svdvals(z)
    p = p / p.sum()
    assert effective_rank(z).value == pytest.approx(math.exp(-float((p * p.log()).sum())), rel=1e-7)
    assert effective_rank(3 * z).value == pytest.approx(effective_rank(z).value, rel=1e-9)
    assert effective_rank(torch.cat([z, z], dim=1)).value == pytest.approx(effective_rank(z).value, rel=1e-5)


def test_the_error_is_the_jackknifes():
    z = points(12)[0]
    left_out = torch.tensor([effective_rank(torch.cat([z[:i], z[i + 1 :]])).value for i in range(12)])
    expected = math.sqrt(11 / 12 * float((left_out - left_out.mean()).square().sum()))
    assert effective_rank(z).stderr == pytest.approx(expected, rel=1e-4)
    assert math.isnan(effective_rank(z[:1]).stderr)


def slow_collapse(z, y, weight, decisions):
    """Papyan et al.'s quantities with dense covariances."""
    classes = sorted(set(y.tolist()))
    mu = {c: z[y == c].mean(0) for c in classes}
    centre = sum(mu.values()) / len(classes)
    m = {c: mu[c] - centre for c in classes}
    within = sum(torch.outer(x - mu[int(c)], x - mu[int(c)]) for x, c in zip(z, y, strict=True)) / len(z)
    between = sum(torch.outer(v, v) for v in m.values()) / len(classes)
    norms = [float(v.norm()) for v in m.values()]
    mean = sum(norms) / len(norms)
    cosines = [float(m[a] @ m[b] / m[a].norm() / m[b].norm()) for a, b in itertools.permutations(classes, 2)]
    w, mm = torch.stack([weight[c] for c in classes]), torch.stack([m[c] for c in classes])
    nearest = [min(classes, key=lambda c: float((x - mu[c]).norm())) for x in z]
    return {
        "neural_collapse_1": float(torch.trace(within @ torch.linalg.pinv(between, rtol=1e-8))) / len(classes),
        "neural_collapse_2_norms": math.sqrt(sum((v - mean) ** 2 for v in norms) / len(norms)) / mean,
        "neural_collapse_2_angles": sum(abs(c + 1 / (len(classes) - 1)) for c in cosines) / len(cosines),
        "neural_collapse_3": float((w / w.norm() - mm / mm.norm()).square().sum()),
        "neural_collapse_4": 100 * sum(a != int(b) for a, b in zip(nearest, decisions, strict=True)) / len(z),
    }


@pytest.mark.parametrize("d", [6, 2])
def test_neural_collapse_by_its_definition(d):
    z, y = points(41, d, 4)
    labels = 2 * y  # only some of the head's classes occur
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, d, generator=generator, dtype=torch.float64)
    decisions = (z @ weight.T).argmax(1)
    found = neural_collapse(z, labels, weight, decisions)
    assert {k: e.value for k, e in found.items()} == pytest.approx(slow_collapse(z, labels, weight, decisions))
    assert all(e.stderr > 0 and e.n == 41 and e.target == "sample size" for e in found.values())


def slow_hsic(k, h):
    """Song et al.'s eq. 5, with the (n, n) kernels."""
    n = len(k)
    k, h = k - torch.diag(k.diagonal()), h - torch.diag(h.diagonal())
    value = torch.trace(k @ h) + k.sum() * h.sum() / (n - 1) / (n - 2) - 2 * (k @ h).sum() / (n - 2)
    return float(value) / n / (n - 3)


def slow_cka(x, y):
    k, h = x @ x.T, y @ y.T
    return slow_hsic(k, h) / math.sqrt(slow_hsic(k, k) * slow_hsic(h, h))


def test_cka_by_its_definition_and_its_jackknife():
    x, y = points(14)[0], points(14, 4, seed=2)[0] + points(14)[0][:, :4]
    whole = slow_cka(x, y)
    left_out = [slow_cka(*(torch.cat([z[:i], z[i + 1 :]]) for z in (x, y))) for i in range(14)]
    pseudo = torch.tensor([14 * whole - 13 * v for v in left_out], dtype=torch.float64)
    found = wb.cka(x, y)
    assert found.value == pytest.approx(float(pseudo.mean()), rel=1e-9)
    assert found.stderr == pytest.approx(float(pseudo.std()) / math.sqrt(14), rel=1e-9)
    assert wb.cka(x, 5 * y + 3).value == pytest.approx(found.value, rel=1e-9)


def test_cka_of_unrelated_features_is_near_0_although_there_are_few_images():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(60, 500, generator=generator) for _ in range(2))
    assert abs(wb.cka(x, y).value) < 0.1


def test_entanglement_by_batches(monkeypatch):
    import waterbed.information.entanglement as module

    x, y = points(41)
    once = soft_nearest_neighbours(x, y)
    monkeypatch.setattr(module, "CHUNK_VALUES", 41 * 3)
    batched = soft_nearest_neighbours(x, y)
    assert once.value == pytest.approx(float(soft_nearest_neighbour_loss(x, y).mean()), rel=1e-12)
    assert (batched.value, batched.stderr) == pytest.approx((once.value, once.stderr), rel=1e-12)


def test_the_error_of_entanglement_is_the_jackknifes_at_one_scale():
    x, y = points(20, classes=2)
    distance = torch.cdist(x, x).square()
    weights = (-distance / distance.mean()).exp().fill_diagonal_(0)
    left_out = []
    for i in range(20):
        w = torch.cat([weights[:i], weights[i + 1 :]]).clone()
        w[:, i] = 0
        labels = torch.cat([y[:i], y[i + 1 :]])
        same = (w * (labels[:, None] == y)).sum(1)
        left_out.append(float((w.sum(1) / same).log().mean()))
    mean = sum(left_out) / 20
    expected = math.sqrt(19 / 20 * sum((v - mean) ** 2 for v in left_out))
    assert soft_nearest_neighbours(x, y).stderr == pytest.approx(expected, rel=1e-9)


def test_effective_dimension_of_a_fisher_matrix(convnet):
    fisher = wb.WeightFisher(convnet, torch.rand(6, 1, 6, 6, dtype=torch.float64))
    values = torch.linalg.eigvalsh(fisher.matrix())
    found = effective_dimension(fisher, 1e-3)
    assert found.value == pytest.approx(float((values / (values + 1e-3)).sum()), rel=1e-8)
    assert (found.unit, found.n, found.target) == ("dimensions", 6, "sample size")
    assert found.stderr > 0
    assert fisher.effective_dimension(1e-3) == found
    dense = effective_dimension(fisher.matrix(), 1e-3)
    assert dense.value == pytest.approx(found.value, rel=1e-8)


def test_what_cannot_be_measured_is_refused():
    x, y = points(8)
    with pytest.raises(UsageError, match="all 0"):
        effective_rank(torch.zeros(4, 2))
    with pytest.raises(UsageError, match="the same images"):
        wb.cka(x, x[:7])
    with pytest.raises(UsageError, match="second has features that are the same"):
        wb.cka(x, torch.ones(8, 2))
    with pytest.raises(UsageTypeError, match="first must be a tensor"):
        wb.cka(x[0], x)
    with pytest.raises(UsageError, match="one class"):
        neural_collapse(x, torch.zeros(8, dtype=torch.long), torch.ones(3, 6), y)
    with pytest.raises(UsageError, match="no two images"):
        soft_nearest_neighbours(x, torch.arange(8))


@pytest.fixture(scope="module")
def coverage():
    return load_program("benchmarks/coverage.py")


def held(coverage, n, draws, quantities):
    """The share of 95 % intervals that hold the mean at n (for CKA, the value of the population)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    means = 0.6 * torch.randn(4, 8, generator=generator, dtype=torch.float64)
    mix = torch.randn(8, 5, generator=generator, dtype=torch.float64)

    def draw(size):
        y = torch.randint(0, 4, (size,), generator=generator)
        x = means[y] + torch.randn(size, 8, generator=generator, dtype=torch.float64)
        other = x @ mix + 3 * torch.randn(size, 5, generator=generator, dtype=torch.float64)
        return x, y, other

    def measured(x, y, other):
        collapse = neural_collapse(x, y, weight, (x @ (means + 0.5 * weight).T).argmax(1))
        return {
            "cka": wb.cka(x, other),
            "rank": effective_rank(x),
            "entanglement": soft_nearest_neighbours(x, y),
            "knn": knn_estimate(x, y),
            **collapse,
        }

    x, _, other = draw(4000)
    truth = wb.cka(x, other).value
    found = [measured(*draw(n)) for _ in range(draws)]
    rows = {}
    for name in quantities:
        estimates = [f[name] for f in found]
        rows[name] = coverage._coverage(estimates, truth)
    return {name: row["held"] / draws for name, row in rows.items()}, rows


NAMES = (
    "cka",
    "rank",
    "entanglement",
    "knn",
    "neural_collapse_1",
    "neural_collapse_2_norms",
    "neural_collapse_2_angles",
    "neural_collapse_3",
    "neural_collapse_4",
)


def test_intervals_hold_their_target_quickly(coverage):
    shares, _ = held(coverage, 60, 16, NAMES)
    assert min(shares.values()) >= 0.7, shares


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 200, 500])
def test_intervals_hold_their_target(coverage, n):
    shares, rows = held(coverage, n, 200, NAMES)
    assert min(shares.values()) >= 0.87, shares
    assert all(0.75 < r["claimed"] / r["spread"] < 1.4 for r in rows.values()), rows
