"""nngeometry as an oracle for F_w: an independent computation of the same matrix."""

import pytest
import torch
from tests.conftest import make_convnet, make_mlp
from torch.utils.data import DataLoader, TensorDataset

import waterbed as wb

metrics = pytest.importorskip("nngeometry.metrics", reason="the optional package nngeometry is not installed")
pspace = pytest.importorskip("nngeometry.object.pspace", reason="the optional package nngeometry is not installed")


@pytest.fixture(params=["conv3", "conv10", "mlp10"])
def case(request):
    classes = int(request.param.lstrip("convmlp"))
    if request.param.startswith("conv"):
        return make_convnet(classes), torch.randn(7, 1, 6, 6, dtype=torch.float64)
    return make_mlp(classes), torch.randn(7, 4, dtype=torch.float64)


def oracle(model, x, kind):
    # It builds its triangular matrix in the default type.
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return metrics.FIM(model, DataLoader(TensorDataset(x), batch_size=3), kind, "classif_logits")
    finally:
        torch.set_default_dtype(default)


def test_diagonal(case):
    model, x = case
    expected = oracle(model, x, pspace.PMatDiag).get_diag()
    assert torch.allclose(wb.WeightFisher(model, x).diagonal(), expected, rtol=1e-9, atol=1e-14)


def test_matrix_and_trace(case):
    model, x = case
    expected = oracle(model, x, pspace.PMatDense)
    f = wb.WeightFisher(model, x)
    assert torch.allclose(f.matrix(), expected.to_torch(), rtol=1e-9, atol=1e-13)
    assert f.trace().value == pytest.approx(float(expected.trace()), rel=1e-10)


def test_product(case):
    model, x = case
    expected = oracle(model, x, pspace.PMatDense).to_torch()
    v = torch.randn(len(expected), dtype=torch.float64)
    assert torch.allclose(wb.WeightFisher(model, x).matvec(v), expected @ v, rtol=1e-9, atol=1e-13)
