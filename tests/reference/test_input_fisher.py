import math

import pytest
import torch
from tests.conftest import make_convnet, make_mlp
from torch import nn
from torch.func import jacrev, vmap

import waterbed as wb


def dense(model, x, observation="label", sigma=1.0):
    """S(z|x) of each example from the definition E_y grad log p grad log p^T, by autograd."""
    matrices = []
    for one in x:
        one = one[None]
        if observation == "gaussian":
            j = torch.autograd.functional.jacobian(lambda r: model.features(r)[0], one).flatten(1)
            matrices.append(j.T @ j / sigma**2)
            continue
        scores = torch.autograd.functional.jacobian(lambda r: model(r).log_softmax(1)[0], one).flatten(1)
        p = model(one).softmax(1)[0].detach()
        matrices.append((scores.T * p) @ scores)
    return torch.stack(matrices)


MODELS = {"mlp3": (make_mlp, 3, (4,)), "mlp10": (make_mlp, 10, (4,)), "conv3": (make_convnet, 3, (1, 6, 6))}


@pytest.fixture(params=MODELS)
def case(request):
    make, classes, shape = MODELS[request.param]
    return make(classes).eval(), torch.randn(7, *shape, dtype=torch.float64)


@pytest.mark.parametrize(("observation", "sigma"), [("label", 1.0), ("gaussian", 1.0), ("gaussian", 0.3)])
@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_equals_the_definition(case, observation, sigma, chunk_size):
    model, x = case
    s = wb.InputFisher(model, x, observation, sigma, chunk_size=chunk_size)
    expected = dense(model, x, observation, sigma)
    traces = expected.diagonal(dim1=1, dim2=2).sum(1)
    tops = torch.linalg.eigvalsh(expected)[:, -1]
    assert torch.allclose(s.per_example_trace(), traces, rtol=1e-10)
    assert torch.allclose(s.matrix(), expected.mean(0), rtol=1e-10, atol=1e-14)
    assert torch.allclose(s.per_example_lambda_max(), tops, rtol=1e-9)
    trace, top = s.trace(), s.lambda_max()
    assert trace.value == pytest.approx(float(traces.mean()), rel=1e-10)
    assert trace.stderr == pytest.approx(float(traces.std()) / math.sqrt(7), rel=1e-10)
    assert top.value == pytest.approx(float(tops.mean()), rel=1e-9)
    of_mean = s.lambda_max(of="mean")
    assert of_mean.value == pytest.approx(float(torch.linalg.eigvalsh(expected.mean(0))[-1]), rel=1e-9)
    assert of_mean.value <= top.value + 1e-12


def test_gaussian_kl_is_exact_and_label_kl_to_second_order(case):
    model, x = case
    d = 1e-4 * torch.randn_like(x)
    with torch.no_grad():
        p, q = (model(v).log_softmax(1) for v in (x, x + d))
        kl = (q.exp() * (q - p)).sum(1)
    s = dense(model, x)
    quadratic = 0.5 * torch.einsum("ni,nij,nj->n", d.flatten(1), s, d.flatten(1))
    assert torch.allclose(kl, quadratic, rtol=0.02, atol=1e-13)


def test_example_3_3_binary_logistic():
    """F = c w w^T, c = E[p(1-p)], for logits (0, w.x)."""
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    model = nn.Linear(3, 2, bias=False).double()
    model.weight.data = torch.stack([torch.zeros(3, dtype=torch.float64), w])
    x = torch.randn(50, 3, dtype=torch.float64)
    p = torch.sigmoid(x @ w)
    expected = (p * (1 - p)).mean() * torch.outer(w, w)
    assert torch.allclose(wb.InputFisher(model, x).matrix(), expected, rtol=1e-12)


def test_relative_trace_does_not_change_with_the_scale_of_features(case):
    model, x = case
    scaled = wb.FeatureClassifier(nn.Sequential(model.backbone, Scale(3.0)), model.head, model.mean, model.std)
    scaled = scaled.double().eval()
    a, b = (wb.InputFisher(m, x, "gaussian").relative_trace() for m in (model, scaled))
    assert a.value == pytest.approx(b.value, rel=1e-10)
    assert a.stderr == pytest.approx(b.stderr, rel=1e-10)
    trace = [wb.InputFisher(m, x, "gaussian").trace().value for m in (model, scaled)]
    assert trace[1] == pytest.approx(9 * trace[0], rel=1e-10)


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x.flatten(1)


def test_mode_is_restored_and_one_example_has_no_error(convnet):
    convnet.train()
    estimate = wb.InputFisher(convnet, torch.rand(1, 1, 6, 6, dtype=torch.float64)).trace()
    assert convnet.training
    assert math.isnan(estimate.stderr)
    assert estimate.n == 1


def test_interval_covers_the_full_value():
    """95 % intervals over resampled examples cover the value of all examples in 90 to 99 % of 200 repetitions."""
    model = make_mlp().eval()
    x = torch.randn(20_000, 4, dtype=torch.float64)
    full = float(wb.InputFisher(model, x).trace())
    covered = 0
    for i in range(200):
        low, high = wb.InputFisher(model, x[100 * i : 100 * (i + 1)]).trace().interval()
        covered += low <= full <= high
    assert 180 <= covered <= 198


def test_matrix_is_refused_for_large_inputs():
    model = nn.Sequential(nn.Flatten(), nn.Linear(5000, 2))
    with pytest.raises(wb.UsageError, match="5000 values"):
        wb.InputFisher(model, torch.rand(1, 5000)).matrix()


def test_vmap_jacobian_agrees(case):
    """A second, independent way to the label matrix: L_x^T (diag p - p p^T) L_x."""
    model, x = case
    model.requires_grad_(False)
    jac = vmap(jacrev(lambda r: model(r[None])[0]))(x).flatten(2)
    p = model(x).softmax(1)
    c = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    assert torch.allclose(wb.InputFisher(model, x).matrix(), (jac.mT @ c @ jac).mean(0), rtol=1e-10, atol=1e-14)
