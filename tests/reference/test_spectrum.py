"""Spectral quantities of F_w against dense float64 answers."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from tests.conftest import make_convnet, make_mlp
from torch import nn

import waterbed as wb
from waterbed.information import fisher_operator, operators
from waterbed.information.lanczos import batched_lambda_max, lanczos, trace_of_function

MODELS = {"mlp3": (make_mlp, 3, (4,)), "mlp10": (make_mlp, 10, (4,)), "conv3": (make_convnet, 3, (1, 6, 6))}
LABELS = ("exact", "sampled", "empirical")


@pytest.fixture(params=MODELS)
def case(request):
    make, classes, shape = MODELS[request.param]
    return make(classes).eval(), torch.randn(7, *shape, dtype=torch.float64)


def fisher(case, labels="exact", **settings):
    model, x = case
    return wb.WeightFisher(model, x, torch.arange(7) % 3, labels=labels, **settings)


@pytest.mark.parametrize("labels", LABELS)
def test_gram_and_products(case, labels, monkeypatch):
    f = fisher(case, labels, chunk_size=2)
    dense = f.matrix()
    monkeypatch.setattr(fisher_operator, "BLOCK_BYTES", 3 * 8 * f.size * f.width)  # three blocks
    values = torch.linalg.eigvalsh(f.gram()).flip(0)
    expected = torch.linalg.eigvalsh(dense).flip(0)
    count = min(len(values), f.size)
    assert torch.allclose(values[:count], expected[:count], atol=1e-12)
    v = torch.randn(f.size, dtype=torch.float64)
    assert torch.allclose(f.matvec(v), dense @ v, rtol=1e-9, atol=1e-13)
    assert torch.allclose(torch.from_numpy(f.to_scipy() @ v.numpy()), dense @ v, rtol=1e-9, atol=1e-13)
    u = f.project(torch.eye(f.size, dtype=torch.float64))
    assert torch.allclose(u.T @ u, dense, atol=1e-12)
    c = torch.randn(f.num_rows, 2, dtype=torch.float64)
    assert torch.allclose(f.combine(c), u.T @ c, atol=1e-12)


@pytest.mark.parametrize("method", ["gram", "lanczos"])
def test_eigenvalues_and_lambda_max(case, method):
    f = fisher(case)
    expected = torch.linalg.eigvalsh(f.matrix()).flip(0)
    assert torch.allclose(f.eigenvalues(3, method), expected[:3], rtol=1e-8)
    top = f.lambda_max(method)
    assert top.value == pytest.approx(float(expected[0]), rel=1e-8)
    v = torch.linalg.eigh(f.matrix()).eigenvectors[:, -1]
    model, x = case
    along = torch.tensor([float(v @ wb.WeightFisher(model, one[None]).matrix() @ v) for one in x])
    assert top.stderr == pytest.approx(float(along.std()) / math.sqrt(7), rel=1e-6)
    assert f.eigenvalues(f.size).shape == (f.size,)


def test_operator_serves_scipy(case):
    f = fisher(case)
    largest = eigsh(f.to_scipy(), k=1, return_eigenvectors=False)[0]
    assert largest == pytest.approx(float(torch.linalg.eigvalsh(f.matrix())[-1]), rel=1e-8)


@pytest.mark.parametrize("damping", [1e-3, 10.0])
def test_logdet(case, damping):
    f = fisher(case)
    dense = torch.logdet(f.matrix() + damping * torch.eye(f.size, dtype=torch.float64))
    exact = f.logdet(damping)
    assert exact.value == pytest.approx(float(dense), rel=1e-10)
    assert "Gram" in exact.method
    assert exact.probe_stderr == 0
    quadrature = f.logdet(damping, method="lanczos", num_probes=40)
    assert abs(quadrature.value - float(dense)) < 4 * quadrature.probe_stderr + 1e-8
    assert f.logdet(damping, method="diagonal").value >= exact.value - 1e-9


def jackknife_error(case, function):
    """Standard error over the examples of a function of the dense matrix, by leaving out one after the other."""
    model, x = case
    each = [wb.WeightFisher(model, one[None]).matrix() for one in x]
    left_out = torch.stack([function(sum(each[:i] + each[i + 1 :]) / (len(x) - 1)) for i in range(len(x))])
    return float(left_out.std(correction=0)) * math.sqrt(len(x) - 1)


@pytest.mark.parametrize("damping", [0.1, 1e-8])
def test_logdet_error_is_the_jackknife_s(case, damping):
    estimate = fisher(case).logdet(damping)
    eye = torch.eye(fisher(case).size, dtype=torch.float64)
    expected = jackknife_error(case, lambda m: torch.linalg.slogdet(m + damping * eye).logabsdet)
    assert estimate.stderr == pytest.approx(expected, rel=1e-6 if damping < 1e-3 else 1e-8)
    assert estimate.target == "sample size"
    assert "at n = 7" in str(estimate)


def test_hadamard_error_is_the_jackknife_s(case):
    expected = jackknife_error(case, lambda m: (m.diagonal() + 0.1).log().sum())
    assert fisher(case).logdet(0.1, "diagonal").stderr == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("convention", ["exact", "paper"])
def test_information_is_the_kl_of_the_two_gaussians(case, convention):
    model, _ = case
    f = fisher(case)
    beta, prior = 0.02, 0.3
    b = beta if convention == "exact" else beta / 2
    eye = torch.eye(f.size, dtype=torch.float64)
    if convention == "exact":
        covariance = beta * torch.linalg.inv(f.matrix() + beta / prior * eye)
    else:
        covariance = beta / 2 * torch.linalg.inv(f.matrix() + beta / (2 * prior) * eye)
    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    q = torch.distributions.MultivariateNormal(w, covariance)
    p = torch.distributions.MultivariateNormal(torch.zeros_like(w), prior * eye)
    expected = float(torch.distributions.kl_divergence(q, p))
    got = f.information(beta, prior, convention)
    assert got.value == pytest.approx(expected, rel=1e-9)
    assert b > 0
    by_probes = f.information(beta, prior, convention, method="lanczos")
    assert abs(by_probes.value - expected) < 4 * by_probes.probe_stderr + 1e-8


@pytest.mark.parametrize("convention", ["exact", "paper"])
def test_information_error_is_the_jackknife_s(case, convention):
    f, beta, prior = fisher(case), 0.02, 0.3
    scale = prior / (beta if convention == "exact" else beta / 2)

    def kl(matrix):
        s = scale * torch.linalg.eigvalsh(matrix).clamp_min(0)
        return (0.5 * (torch.log1p(s) - s / (1 + s))).sum()

    estimate = f.information(beta, prior, convention)
    assert estimate.stderr == pytest.approx(jackknife_error(case, kl), rel=1e-8)
    assert estimate.target == "sample size"


def test_paper_convention_is_the_exact_one_at_half_beta(case):
    f = fisher(case)
    assert f.information(0.02, 0.3, "paper").value == pytest.approx(f.information(0.01, 0.3).value, rel=1e-12)


@pytest.mark.parametrize("labels", LABELS)
def test_exact_samples_have_the_covariance(labels):
    model = make_mlp().eval()
    f = wb.WeightFisher(model, torch.randn(5, 4, dtype=torch.float64), torch.arange(5) % 3, labels=labels)
    beta, prior = 0.05, 0.4
    draws = f.sample(beta, prior, num_samples=40_000, seed=1)
    expected = beta * torch.linalg.inv(f.matrix() + beta / prior * torch.eye(f.size, dtype=torch.float64))
    got = draws.T @ draws / len(draws)
    # Whitened, the covariance is the identity within sampling error (k / n of spread).
    root = torch.linalg.cholesky(expected)
    white = torch.linalg.solve_triangular(root, torch.linalg.solve_triangular(root, got, upper=False).T, upper=False)
    assert float((white - torch.eye(f.size)).abs().max()) < 0.04
    assert float(draws.mean(0).abs().max()) < 5 * float(expected.diagonal().max().sqrt()) / 200
    assert torch.equal(f.sample(beta, prior, 3, seed=9), f.sample(beta, prior, 3, seed=9))


def test_exact_noise_and_its_size():
    model = make_mlp().eval()
    f = wb.WeightFisher(model, torch.randn(5, 4, dtype=torch.float64))
    noise = wb.WeightNoise(f, 0.05, 0.4, method="exact")
    covariance = 0.05 * torch.linalg.inv(f.matrix() + 0.05 / 0.4 * torch.eye(f.size, dtype=torch.float64))
    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert noise.relative_size() == pytest.approx(float(covariance.trace().sqrt() / w.norm()), rel=1e-9)
    assert torch.equal(noise.draw(4), f.sample(0.05, 0.4, 1, 4)[0])


def test_complexity():
    model = make_mlp().eval()
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randint(3, (30,))
    f = wb.WeightFisher(model, x, y)
    c = f.complexity(1e-9, 1e-6, num_samples=5)
    loss = nn.functional.cross_entropy(model(x), y).detach()
    kl = f.information(1e-9, 1e-6)
    # The noise is tiny here, so E_Q[L] is the loss.
    assert c.value == pytest.approx(float(loss) + 1e-9 * kl.value, rel=1e-3)
    large = f.complexity(0.1, 1.0, num_samples=400)
    again = f.complexity(0.1, 1.0, num_samples=400, seed=1)
    error = math.hypot(large.probe_stderr, again.probe_stderr)
    assert abs(large.value - again.value) < 4 * error
    with pytest.raises(wb.UsageError, match="targets="):
        wb.WeightFisher(model, x).complexity(0.1, 1.0)


def test_errors(case):
    f = fisher(case)
    for action in (
        lambda: f.logdet(0.0),
        lambda: f.information(0.0, 1.0),
        lambda: f.information(1.0, -1.0),
        lambda: f.sample(1.0, float("nan")),
        lambda: f.eigenvalues(f.size + 1),
        lambda: f.matvec(torch.zeros(3)),
        lambda: f.logdet(method="cholesky"),
    ):
        with pytest.raises(wb.UsageError):
            action()


def test_gram_is_refused_where_too_large(case, monkeypatch):
    monkeypatch.setattr(operators, "LARGEST_GRAM", 5)
    f = fisher(case)
    with pytest.raises(wb.UsageError, match="method='lanczos'"):
        f.logdet(method="gram")
    assert "Lanczos" in f.logdet().method


def test_values_do_not_depend_on_chunks(case):
    a, b = fisher(case, chunk_size=1), fisher(case, chunk_size=7)
    assert a.logdet(1e-3).value == pytest.approx(b.logdet(1e-3).value, rel=1e-10)
    assert a.information(0.1, 1.0).value == pytest.approx(b.information(0.1, 1.0).value, rel=1e-10)


def test_lanczos_tridiagonal_has_the_spectrum():
    q, _ = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))
    values = torch.linspace(0, 5, 12, dtype=torch.float64)
    a = q * values @ q.T
    start = torch.randn(12, dtype=torch.float64)
    diagonal, off = lanczos(lambda v: a @ v, start / start.norm(), 12)
    t = torch.diag(diagonal) + torch.diag(off, 1) + torch.diag(off, -1)
    assert torch.allclose(torch.linalg.eigvalsh(t), values, atol=1e-8)


def test_probe_intervals_cover_the_dense_value():
    """95 % intervals over probes cover the dense value in 90 to 99 % of 200 repetitions."""
    torch.manual_seed(0)
    u = torch.randn(60, 30, dtype=torch.float64)
    a = u @ u.T / 30
    dense = float(torch.log1p(torch.linalg.eigvalsh(a).clamp_min(0)).sum())
    covered = 0
    for seed in range(200):
        value, error = trace_of_function(lambda v: a @ v, 60, torch.log1p, num_probes=20, seed=seed)
        covered += abs(value - dense) < 1.96 * error
    assert 180 <= covered <= 198


def test_batched_lambda_max():
    matrices = torch.stack([m @ m.T for m in torch.randn(5, 20, 20, dtype=torch.float64)])
    matrices[1] = 0
    matrices[2] = torch.outer(matrices[2, 0], matrices[2, 0])  # Lanczos ends early on it
    got = batched_lambda_max(lambda v: (matrices @ v[:, :, None])[:, :, 0], torch.zeros(5, 20, dtype=torch.float64))
    expected = torch.linalg.eigvalsh(matrices)[:, -1]
    assert torch.allclose(got, expected, rtol=1e-8, atol=1e-10)
    assert np.isfinite(got.numpy()).all()
