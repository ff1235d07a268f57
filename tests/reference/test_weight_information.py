"""The KL of eq. 6 over beta and prior variance, in float64, against dense Gaussians."""

import math

import pytest
import torch
from tests.conftest import make_mlp
from torch.distributions import MultivariateNormal, kl_divergence

import waterbed as wb

BETAS, VARIANCES = (0.002, 0.02, 0.2), (0.1, 0.5)


@pytest.fixture(scope="module")
def fisher():
    return wb.WeightFisher(make_mlp().eval(), torch.randn(7, 4, dtype=torch.float64))


def dense_kl(fisher, covariance, variance):
    """KL(N(w, covariance) || N(0, variance I))."""
    w = torch.cat([p.detach().flatten() for p in fisher.parameters.values()])
    prior = MultivariateNormal(torch.zeros_like(w), variance * torch.eye(len(w), dtype=w.dtype))
    return float(kl_divergence(MultivariateNormal(w, covariance), prior))


def minimiser(matrix, beta, variance):
    """Sigma* = beta (F + beta / lambda^2 I)^-1."""
    return beta * torch.linalg.inv(matrix + beta / variance * torch.eye(len(matrix), dtype=matrix.dtype))


@pytest.mark.parametrize("method", ["gram", "diagonal"])
def test_every_point_is_the_kl_of_dense_gaussians(fisher, method):
    curve = fisher.information_curve(BETAS, VARIANCES, method=method)
    matrix = fisher.matrix() if method == "gram" else fisher.diagonal().diag()
    assert list(curve) == [(b, v) for b in BETAS for v in VARIANCES]
    for (beta, variance), e in curve.items():
        assert e.value == pytest.approx(dense_kl(fisher, minimiser(matrix, beta, variance), variance), rel=1e-9)
        assert e.value == pytest.approx(fisher.information(beta, variance, method=method).value, rel=1e-12)
        assert method in e.method.lower()


def test_the_paper_s_convention_is_the_exact_one_at_half_the_beta(fisher):
    (paper,) = fisher.information_curve([0.02], [0.5], convention="paper").values()
    assert paper.value == pytest.approx(dense_kl(fisher, minimiser(fisher.matrix(), 0.01, 0.5), 0.5), rel=1e-9)


def test_of_independent_weights_the_diagonal_form_is_the_best(fisher):
    """1/2 tr(F Sigma) + beta KL over diagonal Sigma has its minimum there."""
    beta, variance = 0.02, 0.5
    best = minimiser(fisher.diagonal().diag(), beta, variance).diagonal()

    def objective(sigma):
        return 0.5 * float(fisher.diagonal() @ sigma) + beta * dense_kl(fisher, sigma.diag(), variance)

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = best * (0.1 * torch.randn(len(best), generator=generator, dtype=best.dtype)).exp()
        assert objective(other) > objective(best)


@pytest.mark.parametrize("method", ["gram", "diagonal"])
def test_the_error_is_the_jackknife_s_over_examples(fisher, method):
    n, beta, variance = fisher.num_examples, 0.02, 0.5
    left_out = []
    for i in range(n):
        rest = wb.WeightFisher(fisher.model, torch.cat([fisher.inputs[:i], fisher.inputs[i + 1 :]]))
        left_out.append(rest.information(beta, variance, method=method).value)
    spread = torch.tensor(left_out, dtype=torch.float64)
    error = math.sqrt((n - 1) / n * float((spread - spread.mean()).square().sum()))
    assert fisher.information_curve([beta], [variance], method=method)[beta, variance].stderr == pytest.approx(error)


def test_it_draws_a_line_for_each_prior_and_prints(fisher):
    curve = fisher.information_curve(BETAS, VARIANCES)
    ax = curve.plot().axes[0]
    assert (ax.get_xscale(), len(ax.get_legend().get_texts())) == ("log", 2)
    assert "beta 0.002, prior variance 0.1" in repr(curve)
    assert curve._repr_html_().count("<tr") == 7


@pytest.mark.parametrize(
    ("betas", "variances", "message"),
    [
        ((), (1.0,), "betas is empty"),
        ((0.0,), (1.0,), "beta=0"),
        ((1.0,), (), "prior_variances"),
        ((1.0,), (-1.0,), "-1"),
    ],
)
def test_what_is_no_point_is_refused(fisher, betas, variances, message):
    with pytest.raises(wb.UsageError, match=message):
        fisher.information_curve(betas, variances)
