"""Operators that are not ours in the spectral functions, and ours in theirs, against dense float64 matrices."""

import math
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import aslinearoperator, eigsh
from tests.conftest import make_convnet, make_mlp
from torch import nn

import waterbed as wb
from waterbed.information import operators, spectrum
from waterbed.information.draws import sample
from waterbed.information.weight_information import information

try:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated")
        import curvlinops
except ImportError:
    curvlinops = None
needs_curvlinops = pytest.mark.skipif(curvlinops is None, reason="the optional package curvlinops is not installed")


class Wrapped:
    """The least that an operator has."""

    def __init__(self, matrix):
        self.matrix, self.shape = matrix, matrix.shape

    def __matmul__(self, columns):
        return self.matrix @ columns


def positive(size=30, rank=12):
    u = torch.randn(size, rank, dtype=torch.float64)
    return u @ u.T / rank


def dense_logdet(matrix, damping):
    return float(torch.logdet(matrix + damping * torch.eye(len(matrix), dtype=torch.float64)))


KINDS = {
    "only shape and @": Wrapped,
    "a matrix": lambda a: a,
    "a float32 matrix": lambda a: a.float(),
    "an array": lambda a: a.numpy(),
    "SciPy's operator": lambda a: aslinearoperator(a.numpy()),
    "a sparse matrix": lambda a: scipy.sparse.csr_array(a.numpy()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_operator_goes_in(kind):
    a = positive()
    operator = KINDS[kind](a)
    rel = 1e-5 if "float32" in kind else 1e-9
    expected = torch.linalg.eigvalsh(a).flip(0)
    exact = wb.logdet(operator, 0.1)
    assert exact.value == pytest.approx(dense_logdet(a, 0.1), rel=rel)
    assert math.isnan(exact.stderr)
    assert exact.probe_stderr == 0
    assert "dense" in exact.method
    for method in ("auto", "lanczos"):
        assert torch.allclose(spectrum.eigenvalues(operator, 3, method), expected[:3], rtol=rel)
    assert torch.allclose(
        spectrum.eigenvalues(operator), expected.clamp_min(0), atol=1e-6 if "float32" in kind else 1e-12
    )
    v = torch.linalg.eigh(a).eigenvectors[:, -1]
    assert abs(float(spectrum.top_eigenvector(operator) @ v)) == pytest.approx(1, rel=1e-5)
    quadrature = wb.logdet(operator, 0.1, "lanczos", num_probes=40, seed=2)
    assert abs(quadrature.value - dense_logdet(a, 0.1)) < 4 * quadrature.probe_stderr
    assert quadrature.seed == 2


def test_a_large_operator_goes_by_lanczos(monkeypatch):
    monkeypatch.setattr(spectrum, "LARGEST_MATRIX", 20)
    a = positive()
    assert "Lanczos" in wb.logdet(Wrapped(a), 0.1).method
    v = torch.linalg.eigh(a).eigenvectors[:, -1]
    assert abs(float(spectrum.top_eigenvector(Wrapped(a)) @ v)) == pytest.approx(1)
    monkeypatch.setattr(operators, "LARGEST_MATRIX", 20)
    with pytest.raises(wb.UsageError, match=r"30 x 30.*method='lanczos'"):
        wb.logdet(a, 0.1, "dense")


def test_information_and_samples_of_any_operator():
    model, x = make_mlp().eval(), torch.randn(7, 4, dtype=torch.float64)
    f = wb.WeightFisher(model, x)
    norm = sum(float(p.detach().square().sum()) for p in model.parameters())
    got = information(Wrapped(f.matrix()), norm, 0.02, 0.3)
    assert got.value == pytest.approx(f.information(0.02, 0.3).value, rel=1e-9)
    draws = sample(Wrapped(f.matrix()), 0.02, 0.3, 40_000)
    covariance = 0.02 * torch.linalg.inv(f.matrix() + 0.02 / 0.3 * torch.eye(f.size, dtype=torch.float64))
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, draws.T, upper=False)
    assert float((white @ white.T / 40_000 - torch.eye(f.size)).abs().max()) < 0.04


@needs_curvlinops
def test_the_gauss_newton_matrix_of_curvlinops_is_the_fisher():
    model, x = make_mlp().eval(), torch.randn(7, 4, dtype=torch.float64)
    data = [(x[:4], torch.zeros(4, dtype=torch.int64)), (x[4:], torch.zeros(3, dtype=torch.int64))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated")
        theirs = curvlinops.GGNLinearOperator(
            model, nn.CrossEntropyLoss(), list(model.parameters()), data, check_deterministic=False
        )
        f = wb.WeightFisher(model, x)
        expected = f.matrix()
        assert torch.allclose(spectrum.eigenvalues(theirs), torch.linalg.eigvalsh(expected).flip(0), atol=1e-12)
        assert torch.allclose(spectrum.eigenvalues(theirs, 2, "lanczos"), f.eigenvalues(2), rtol=1e-9)
        assert wb.logdet(theirs, 1e-3).value == pytest.approx(dense_logdet(expected, 1e-3), rel=1e-9)
        quadrature = wb.logdet(theirs, 1e-3, "lanczos")
    assert abs(quadrature.value - dense_logdet(expected, 1e-3)) < 4 * quadrature.probe_stderr


@pytest.mark.parametrize("labels", ["exact", "sampled"])
@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize(("make", "shape"), [(make_mlp, (4,)), (make_convnet, (1, 6, 6))])
def test_products_of_several_columns(make, shape, labels, chunk_size):
    f = wb.WeightFisher(
        make().eval(), torch.randn(7, *shape, dtype=torch.float64), labels=labels, chunk_size=chunk_size
    )
    assert f.shape == (f.size, f.size)
    assert f.dtype == torch.float64
    v = torch.randn(f.size, 5, dtype=torch.float64)
    expected = f.matrix() @ v
    assert torch.allclose(f @ v, expected, rtol=1e-9, atol=1e-13)
    assert torch.equal((f @ v)[:, 2], f @ v[:, 2])
    assert torch.allclose(torch.from_numpy(f.to_scipy() @ v.numpy()), expected, rtol=1e-9, atol=1e-13)
    largest = eigsh(f.to_scipy(), k=1, return_eigenvectors=False)[0]
    assert largest == pytest.approx(float(f.eigenvalues(1)[0]), rel=1e-8)


def test_several_columns_share_the_forward_pass_that_is_pulled_back(monkeypatch):
    model, calls = make_mlp().eval(), []
    f = wb.WeightFisher(model, torch.randn(7, 4, dtype=torch.float64))
    hook = model.head.register_forward_hook(lambda *_: calls.append(1))
    _ = f @ torch.randn(f.size, 5, dtype=torch.float64)
    hook.remove()
    assert len(calls) == 6  # one for the reverse mode, one a column for the forward mode


@pytest.mark.parametrize("observation", ["label", "gaussian"])
@pytest.mark.parametrize("method", ["exact", "hutchinson"])
def test_the_input_fisher_is_an_operator(observation, method):
    model, x = make_mlp().eval(), torch.randn(7, 4, dtype=torch.float64)
    s = wb.InputFisher(model, x, observation, method=method)
    matrix = wb.InputFisher(model, x, observation, method="exact").matrix()
    v = torch.randn(4, 3, dtype=torch.float64)
    assert torch.allclose(s @ v, matrix @ v, rtol=1e-9, atol=1e-12)
    assert wb.logdet(s, 0.1).value == pytest.approx(dense_logdet(matrix, 0.1), rel=1e-9)


def test_the_fishers_logdet_is_the_function_s():
    f = wb.WeightFisher(make_mlp().eval(), torch.randn(7, 4, dtype=torch.float64), labels="sampled")
    assert wb.logdet(f, 1e-3) == f.logdet(1e-3)
    assert "sampled labels" in wb.logdet(f, 1e-3).method
    dense = wb.logdet(f, 1e-3, "dense")
    assert dense.value == pytest.approx(f.logdet(1e-3).value, rel=1e-9)


REFUSED = {
    "no operator": (lambda: wb.logdet("F", 0.1), "shape and @"),
    "not square": (lambda: wb.logdet(torch.rand(3, 4), 0.1), r"\(3, 4\)"),
    "not symmetric": (lambda: wb.logdet(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), 0.1), "not symmetric"),
    "not positive": (lambda: wb.logdet(torch.diag(torch.tensor([1.0, -0.5])), 0.1), "eigenvalue -0.5.*semidefinite"),
    "integers": (lambda: wb.logdet(torch.eye(3, dtype=torch.int64), 0.1), "int64.*double"),
    "not finite": (lambda: wb.logdet(torch.full((2, 2), float("nan")), 0.1), "NaN"),
    "no damping": (lambda: wb.logdet(torch.eye(3), 0.0), "damping=0.0"),
    "no dual": (lambda: wb.logdet(torch.eye(3), 0.1, "gram"), "gram().*not Tensor.*'dense'"),
    "no diagonal": (lambda: wb.logdet(Wrapped(torch.eye(3)), 0.1, "diagonal"), "diagonal().*not Wrapped"),
    "columns of another size": (
        lambda: wb.WeightFisher(make_mlp(), torch.randn(3, 4, dtype=torch.float64)) @ torch.zeros(3, 2),
        r"\(3, 2\).*\(43,\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_such_operator_is_refused(case):
    action, message = REFUSED[case]
    with pytest.raises((wb.UsageError, TypeError), match=message.replace("()", r"\(\)")):
        action()


def test_the_bound_of_a_matrix_from_its_diagonal():
    a = positive()
    bound = wb.logdet(a, 0.1, "diagonal")
    assert bound.value == pytest.approx(float((a.diagonal() + 0.1).log().sum()), rel=1e-12)
    assert np.isnan(bound.stderr)
