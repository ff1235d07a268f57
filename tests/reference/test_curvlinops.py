import builtins
import sys

import pytest
import torch
from tests.conftest import make_convnet, make_mlp
from torch import nn

import waterbed as wb
from waterbed.errors import UsageError
from waterbed.information import curvlinops_adapter as adapter

try:
    adapter._curvlinops()
except UsageError:
    installed = False
else:
    installed = True
needs_curvlinops = pytest.mark.skipif(not installed, reason="the optional package curvlinops is not installed")


@needs_curvlinops
@pytest.mark.parametrize("labels", ["exact", "sampled"])
def test_xtrace_is_the_trace_within_its_error(labels):
    model, x = make_mlp(10), torch.randn(40, 4, dtype=torch.float64)
    f = wb.WeightFisher(model, x, labels=labels)
    estimate = adapter.xtrace(f, 12, seed=3, repeats=8)
    exact = float(f.matrix().trace())
    assert 0 < estimate.probe_stderr < 0.05 * exact
    assert abs(estimate.value - exact) < 4 * estimate.probe_stderr
    assert estimate.unit == "nats/weight^2"
    assert adapter.xtrace(f, 12, seed=3, repeats=8).value == estimate.value
    assert adapter.xtrace(f, 12, seed=4, repeats=8).value != estimate.value


@needs_curvlinops
def test_xtrace_is_unbiased():
    f = wb.WeightFisher(make_mlp(), torch.randn(20, 4, dtype=torch.float64))
    draws = adapter.xtrace(f, 4, repeats=60)
    assert abs(draws.value - f.trace().value) < 4 * draws.probe_stderr


@needs_curvlinops
def test_xtrace_leaves_the_callers_generator_alone_and_knows_no_error_of_one_draw():
    f = wb.WeightFisher(make_mlp(), torch.randn(20, 4, dtype=torch.float64))
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    estimate = adapter.xtrace(f, 4, repeats=1)
    assert torch.equal(torch.rand(1), first)
    assert estimate.probe_stderr != estimate.probe_stderr


@needs_curvlinops
@pytest.mark.parametrize("num_matvecs", [3, 40])
def test_xtrace_refuses_more_products_than_the_rank(num_matvecs):
    f = wb.WeightFisher(make_mlp(), torch.randn(5, 4, dtype=torch.float64))
    with pytest.raises(UsageError, match=f"num_matvecs={num_matvecs}.*at most 20"):
        adapter.xtrace(f, num_matvecs)


@needs_curvlinops
def test_ekfac_is_exact_for_a_linear_layer_and_one_example():
    model, x = nn.Linear(4, 3, bias=False).double(), torch.randn(1, 4, dtype=torch.float64)
    dense = wb.WeightFisher(model, x).matrix()
    approximation = adapter.ekfac(model, x)
    columns = torch.stack([approximation.matvec(v) for v in torch.eye(12, dtype=torch.float64)], dim=1)
    assert torch.allclose(columns, dense, rtol=1e-9, atol=1e-14)


@needs_curvlinops
@pytest.mark.parametrize("chunk_size", [3, 64])
@pytest.mark.parametrize(("make", "shape"), [(make_mlp, (4,)), (make_convnet, (1, 6, 6))])
def test_ekfac_keeps_the_trace_of_every_block(make, shape, chunk_size):
    model, x = make(), torch.randn(7, *shape, dtype=torch.float64)
    approximation = adapter.ekfac(model, x, params="linear", chunk_size=chunk_size)
    f = wb.WeightFisher(model, x, params=lambda name: name in approximation.names)
    assert approximation.size == f.size
    assert approximation.trace().value == pytest.approx(f.trace().value, rel=1e-9)
    start = 0
    for p in f.parameters.values():
        block = torch.eye(f.size, dtype=torch.float64)[start : start + p.numel()]
        quadratic = sum(float(v @ approximation.matvec(v)) for v in block)
        assert quadratic == pytest.approx(float(f.diagonal()[start : start + p.numel()].sum()), rel=1e-9)
        start += p.numel()


@needs_curvlinops
def test_ekfac_of_sampled_labels_is_unbiased():
    model, x = make_mlp(), torch.randn(30, 4, dtype=torch.float64)
    draws = torch.tensor([adapter.ekfac(model, x, "sampled", seed=s).trace().value for s in range(30)])
    exact = wb.WeightFisher(model, x).trace().value
    assert abs(float(draws.mean()) - exact) < 4 * float(draws.std()) / 30**0.5


@needs_curvlinops
def test_ekfac_measures_in_eval_mode_and_restores_the_model():
    model, x = make_convnet(), torch.randn(5, 1, 6, 6, dtype=torch.float64)
    expected = adapter.ekfac(model, x, params="linear").trace().value
    model.train().requires_grad_(False)
    assert adapter.ekfac(model, x, params="linear").trace().value == expected
    assert model.training
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


@needs_curvlinops
def test_ekfac_names_the_layers_it_cannot_do():
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    with pytest.raises(UsageError, match=r"BatchNorm2d layer.*params='linear'.*WeightFisher"):
        adapter.ekfac(make_convnet(), x)


@needs_curvlinops
def test_a_wrong_vector_is_refused():
    approximation = adapter.ekfac(make_mlp(), torch.randn(2, 4, dtype=torch.float64))
    with pytest.raises(UsageError, match=r"vector has shape \(3,\)"):
        approximation.matvec(torch.zeros(3))


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("curvlinops"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "curvlinops", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'waterbed\[curvature\]'"):
        adapter.ekfac(make_mlp(), torch.randn(2, 4, dtype=torch.float64))
