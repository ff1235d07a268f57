import copy
import math

import pytest
import torch
from tests.conftest import make_convnet, make_mlp
from torch import nn

import waterbed as wb
from waterbed.information.likelihood import sample_labels
from waterbed.information.per_example import WeightRows

MODELS = {"mlp3": (make_mlp, 3, (4,)), "mlp10": (make_mlp, 10, (4,)), "conv3": (make_convnet, 3, (1, 6, 6))}


def scores(model, x):
    """d log p(y|x) / dw of each example and label, (N, K, k), one backward pass each."""
    rows = []
    for one in x:
        logp = model(one[None]).log_softmax(1)[0]
        for value in logp:
            grads = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows).reshape(len(x), -1, sum(p.numel() for p in model.parameters()))


def dense(model, x):
    """E_x E_{y~p} of score outer products, each example apart: (N, k, k)."""
    g, p = scores(model, x), model(x).softmax(1).detach()
    return torch.einsum("nk,nki,nkj->nij", p, g, g)


@pytest.fixture(params=MODELS)
def case(request):
    make, classes, shape = MODELS[request.param]
    return make(classes).eval(), torch.randn(7, *shape, dtype=torch.float64)


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_exact_labels_equal_the_definition(case, chunk_size):
    model, x = case
    each = dense(model, x)
    f = wb.WeightFisher(model, x, chunk_size=chunk_size)
    traces = each.diagonal(dim1=1, dim2=2).sum(1)
    assert torch.allclose(f.matrix(), each.mean(0), rtol=1e-10, atol=1e-14)
    assert torch.allclose(f.diagonal(), each.mean(0).diagonal(), rtol=1e-10, atol=1e-14)
    assert f.trace().value == pytest.approx(float(traces.mean()), rel=1e-10)
    assert f.trace().stderr == pytest.approx(float(traces.std()) / math.sqrt(7), rel=1e-9)
    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    invariant = (each.diagonal(dim1=1, dim2=2) * w.square()).sum(1)
    assert f.rescaling_invariant_trace().value == pytest.approx(float(invariant.mean()), rel=1e-10)


def test_empirical_labels_are_the_data_s(case):
    model, x = case
    y = torch.arange(7) % 3
    g = scores(model, x)[torch.arange(7), y]
    f = wb.WeightFisher(model, x, y, labels="empirical")
    assert torch.allclose(f.matrix(), g.T @ g / 7, rtol=1e-10, atol=1e-14)


def test_sampled_labels_are_unbiased_and_belong_to_the_examples(case):
    model, x = case
    exact = wb.WeightFisher(model, x).trace().value
    draws = torch.tensor([wb.WeightFisher(model, x, labels="sampled", seed=s).trace().value for s in range(300)])
    assert abs(float(draws.mean()) - exact) < 4 * float(draws.std()) / math.sqrt(300)
    a, b = (wb.WeightFisher(model, x, labels="sampled", seed=1, chunk_size=c).diagonal() for c in (2, 7))
    assert torch.allclose(a, b, rtol=1e-10)


def test_labels_are_drawn_from_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5)[None] / 10_000
    counts = sample_labels(logits, u)[0].bincount()
    assert torch.allclose(counts.double() / 10_000, logits.softmax(1)[0], atol=2e-4)


def test_layers_and_vmap_agree_on_a_residual_network():
    model = wb.create_model("resnet18", 5, width=2, in_channels=3, seed=0).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_()
    x = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    names = [n for n, _ in model.named_parameters()]

    def v(logits):
        return torch.eye(5, dtype=torch.float64).expand(len(logits), 5, 5)

    a, b = (dict(WeightRows(model, names, x[:1], method=m)(x, v)) for m in ("layers", "vmap"))
    assert a.keys() == b.keys() == set(names)
    assert all(torch.allclose(a[n], b[n], rtol=1e-9, atol=1e-12) for n in names)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2, bias=False),
        nn.Conv2d(4, 5, (1, 3), padding=(0, 1)),
        nn.Conv2d(4, 5, 3, padding="same"),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)),
    ],
)
def test_other_layers(layer):
    model = wb.FeatureClassifier(nn.Sequential(layer, nn.AdaptiveAvgPool2d(1)), nn.LazyLinear(3)).double()
    x = torch.randn(4, 4, 7, 7, dtype=torch.float64)
    model(x)
    assert torch.allclose(wb.WeightFisher(model, x).matrix(), dense(model, x).mean(0), rtol=1e-9, atol=1e-14)


def test_a_layer_used_twice_adds_up():
    shared = nn.Linear(4, 4)
    model = wb.FeatureClassifier(nn.Sequential(shared, nn.Tanh(), Again(shared)), nn.Linear(4, 3)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    assert torch.allclose(wb.WeightFisher(model, x).matrix(), dense(model, x).mean(0), rtol=1e-9, atol=1e-14)


class Again(nn.Module):
    """Calls a layer that belongs to another module."""

    def __init__(self, layer):
        super().__init__()
        self.layers = [layer]

    def forward(self, x):
        return self.layers[0](x)


def test_weights_used_without_calling_their_layer():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return nn.functional.linear(x, self.inner.weight, self.inner.bias).tanh()

    model = wb.FeatureClassifier(Functional(), nn.Linear(4, 3)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    assert torch.allclose(wb.WeightFisher(model, x).matrix(), dense(model, x).mean(0), rtol=1e-9, atol=1e-14)


def test_params_choose(case):
    model, x = case
    full, features = wb.WeightFisher(model, x), wb.WeightFisher(model, x, params="features")
    head = sum(p.numel() for p in model.head.parameters())
    assert torch.allclose(features.diagonal(), full.diagonal()[:-head])
    bias = wb.WeightFisher(model, x, params=lambda name: name == "head.bias")
    assert torch.allclose(bias.diagonal(), full.diagonal()[-model.head.out_features :])


def test_kl_is_half_the_quadratic_form(case):
    model, x = case
    f = wb.WeightFisher(model, x).matrix()
    d = 1e-4 * torch.randn(len(f), dtype=torch.float64)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for p, part in zip(moved.parameters(), d.split([p.numel() for p in model.parameters()]), strict=True):
            p += part.view_as(p)
        p, q = model(x).log_softmax(1), moved(x).log_softmax(1)
        kl = (p.exp() * (p - q)).sum(1).mean()
    assert float(kl) == pytest.approx(float(0.5 * d @ f @ d), rel=0.02)


def test_rescaling_layers_changes_the_trace_but_not_the_invariant_one():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 5, bias=False), nn.ReLU())
    model = wb.FeatureClassifier(body, nn.Linear(5, 3)).double()
    x = torch.randn(9, 4, dtype=torch.float64)
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.backbone[0].weight *= 5
        scaled.backbone[2].weight /= 5
    assert torch.allclose(model(x), scaled(x))
    a, b = wb.WeightFisher(model, x), wb.WeightFisher(scaled, x)
    assert a.rescaling_invariant_trace().value == pytest.approx(b.rescaling_invariant_trace().value, rel=1e-10)
    assert not math.isclose(a.trace().value, b.trace().value, rel_tol=0.1)


def test_log_variance(case):
    model, x = case
    f = wb.WeightFisher(model, x)
    plain, corrected = f.log_variance(1e-6, target="sample size"), f.log_variance(1e-6)

    def log_variance(diagonals):
        return -(diagonals.mean(0) + 1e-6).log().mean()

    each = dense(model, x).diagonal(dim1=1, dim2=2)
    left_out = torch.stack([log_variance(torch.cat([each[:i], each[i + 1 :]])) for i in range(7)])
    value = float(log_variance(each))
    assert plain.value == pytest.approx(value, rel=1e-12)
    assert corrected.value == pytest.approx(7 * value - 6 * float(left_out.mean()), rel=1e-9)
    error = float(left_out.std(correction=0)) * math.sqrt(6)
    assert (plain.stderr, corrected.stderr) == pytest.approx((error, error), rel=1e-9)
    assert (plain.target, corrected.target) == ("sample size", "population")
    assert "damping 1e-06" in corrected.method


def test_log_variance_of_one_example_has_no_error():
    estimate = wb.WeightFisher(make_mlp().eval(), torch.randn(1, 4, dtype=torch.float64)).log_variance()
    assert math.isnan(estimate.stderr)
    assert math.isfinite(estimate.value)
    assert estimate.target == "sample size"


def test_trace_interval_covers_the_full_value():
    model = make_mlp().eval()
    x = torch.randn(12_000, 4, dtype=torch.float64)
    full = float(wb.WeightFisher(model, x).trace())
    intervals = [wb.WeightFisher(model, part).trace().interval() for part in x.split(60)]
    assert 180 <= sum(low <= full <= high for low, high in intervals) <= 198


def test_float32_agrees_with_float64(case):
    model, x = case
    single = wb.WeightFisher(copy.deepcopy(model).float(), x.float()).diagonal()
    assert single.dtype == torch.float64
    exact = wb.WeightFisher(model, x).diagonal()
    assert float((single - exact).norm() / exact.norm()) < 1e-5


def test_frozen_weights_and_train_mode_are_measured_and_restored(case):
    model, x = case
    expected = wb.WeightFisher(model, x).diagonal()
    model.train().requires_grad_(False)
    assert torch.allclose(wb.WeightFisher(model, x).diagonal(), expected)
    assert model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_noise_has_the_covariance_of_the_damped_diagonal(case):
    model, x = case
    f = wb.WeightFisher(model, x)
    noise = wb.WeightNoise(f, beta=0.01, prior_variance=0.1)
    expected = 0.01 / (f.diagonal() + 0.01 / 0.1)
    draws = torch.stack([noise.draw(s) for s in range(4000)])
    assert torch.allclose(draws.var(0) / expected, torch.tensor(1.0, dtype=torch.float64), atol=0.12)
    assert float(draws.mean(0).abs().max() / expected.max().sqrt()) < 0.08
    assert torch.equal(noise.draw(3), noise.draw(3))
    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert noise.relative_size() == pytest.approx(float(expected.sum().sqrt() / w.norm()))
    perturbed = torch.cat([p.flatten() for p in noise.perturbed(5).values()])
    assert torch.allclose(perturbed - w, noise.draw(5))


class Unusual(nn.Module):
    """Weights used in more ways than through their layers: ``how`` says which."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.first, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        z = self.first(input=x) if self.how == "by keyword" else self.first(x)
        if self.how == "also directly":
            z = z + x @ self.first.weight.T.sin()
        if self.how == "penalty in the head":
            return self.head(z) * self.head.weight.square().sum()
        return self.head(self.first(z)) if self.how == "called twice" else self.head(z.tanh())


@pytest.mark.parametrize("how", ["by keyword", "also directly", "penalty in the head", "called twice"])
def test_weights_used_in_unusual_ways(how):
    torch.manual_seed(0)
    model, x = Unusual(how).double(), torch.randn(5, 4, dtype=torch.float64)
    f = wb.WeightFisher(model, x)
    assert torch.allclose(f.matrix(), dense(model, x).mean(0), rtol=1e-9, atol=1e-14)
    assert torch.allclose(f.diagonal(), f.matrix().diagonal(), rtol=1e-9)
    if how in ("also directly", "penalty in the head"):
        with pytest.raises(wb.UsageError, match="method='vmap'"):
            WeightRows(model, list(f.parameters), x[:1], method="layers")


def test_gradients_are_asked_for_where_there_can_be_none():
    model, x = nn.Linear(4, 3), torch.randn(5, 4)
    with torch.inference_mode(), pytest.raises(wb.UsageError, match="inference_mode"):
        wb.WeightFisher(model, x)
    with torch.inference_mode():
        inputs = torch.randn(5, 4)
    assert float(wb.WeightFisher(model, inputs).trace()) > 0
    with torch.no_grad():
        assert float(wb.WeightFisher(model, x).trace()) > 0


def test_the_chunk_holds_what_backward_passes_keep():
    """Large images in a small network: it is the activations that fill the memory, not the rows."""
    model = wb.create_model("resnet10", 10, width=2, in_channels=3, seed=0)
    small, large = (wb.WeightFisher(model, torch.rand(2, 3, side, side)) for side in (16, 128))
    assert small.chunk_size > 4 * large.chunk_size
    assert large.chunk_size >= 1
