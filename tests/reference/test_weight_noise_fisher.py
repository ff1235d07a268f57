"""F_{z|x} under weight noise, effective information, Prop. 3.2, Lemma 5.1, eq. 11: against dense answers."""

import math

import pytest
import torch
from tests.conftest import make_convnet, make_mlp
from torch import nn

import waterbed as wb
from waterbed.information.influence import dataset_influence

BETA, PRIOR = 0.05, 0.4


@pytest.fixture
def mlp():
    model = make_mlp().eval()
    return model, torch.randn(6, 4, dtype=torch.float64)


def dense_parts(model, x, params):
    """J_x (d, n) and J_w (d, k) of one example by autograd, with the weights flat."""
    names = [n for n, _ in model.named_parameters() if params(n)]

    def features(one, *weights):
        full = {f"m.{n}": w for n, w in zip(names, weights, strict=True)}
        return torch.func.functional_call(Features(model), full, (one[None],))[0]

    weights = tuple(dict(model.named_parameters())[n].detach() for n in names)
    jx = torch.autograd.functional.jacobian(lambda r: features(r, *weights), x).flatten(1)
    jw = torch.autograd.functional.jacobian(lambda *w: features(x, *w), weights)
    return jx, torch.cat([j.flatten(1) for j in jw], dim=1)


class Features(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, x):
        return self.m.features(x)


def is_feature(name):
    return not name.startswith("head")


def sigma(fisher, diagonal=False):
    f = fisher.matrix()
    f = torch.diag(f.diagonal()) if diagonal else f
    return BETA * torch.linalg.inv(f + BETA / PRIOR * torch.eye(len(f), dtype=torch.float64))


@pytest.mark.parametrize("noise", ["exact", "diagonal"])
@pytest.mark.parametrize("params", ["features", "all"])
def test_weight_noise_fisher_equals_the_definition(mlp, noise, params):
    model, x = mlp
    s = wb.InputFisher(
        model, x, "weight-noise", 1.0, wb.WeightFisher(model, x, params=params), BETA, PRIOR, noise=noise
    )
    covariance = sigma(wb.WeightFisher(model, x, params="features"), noise == "diagonal")
    expected = []
    for one in x:
        jx, jw = dense_parts(model, one, is_feature)
        expected.append(jx.T @ torch.linalg.inv(jw @ covariance @ jw.T) @ jx)
    expected = torch.stack(expected)
    assert torch.allclose(s.matrix(), expected.mean(0), rtol=1e-8)
    assert torch.allclose(s.per_example_trace(), expected.diagonal(dim1=1, dim2=2).sum(1), rtol=1e-8)
    assert torch.equal(s.moving_features(), torch.full((6,), 5))


def test_weight_noise_on_a_convnet_leaves_dead_features_out():
    model = make_convnet().eval()
    with torch.no_grad():
        model.backbone[4].bias[0] = -100.0  # the first of four channels is dead: 4 of 16 features
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    f = wb.WeightFisher(model, x, params="features")
    s = wb.InputFisher(model, x, "weight-noise", 1.0, f, BETA, PRIOR)
    moving = s.moving_features()
    assert bool((moving <= 12).all())
    assert bool(torch.isfinite(s.per_example_trace()).all())
    covariance = sigma(f)
    jx, jw = dense_parts(model, x[0], is_feature)
    alive = jw.square().sum(1) > 0
    assert int(alive.sum()) == int(moving[0])
    inverse = torch.linalg.inv((jw @ covariance @ jw.T)[alive][:, alive])
    expected = (jx[alive].T @ inverse @ jx[alive]).trace()
    assert float(s.per_example_trace()[0]) == pytest.approx(float(expected), rel=1e-6)


def test_covariance_term(mlp):
    """The Fisher information of a Gaussian whose mean and covariance both depend on x."""
    model, x = mlp
    f = wb.WeightFisher(model, x, params="features")
    covariance = sigma(f)
    with_term = wb.InputFisher(model, x[:2], "weight-noise", 1.0, f, BETA, PRIOR, covariance_term=True).matrix()
    expected = []
    for one in x[:2]:
        jx = dense_parts(model, one, is_feature)[0]

        def sigma_z(r):
            j = dense_parts(model, r, is_feature)[1]
            return j @ covariance @ j.T

        inverse = torch.linalg.inv(sigma_z(one))
        step = 1e-5
        change = []
        for i in range(4):
            e = torch.zeros(4, dtype=torch.float64)
            e[i] = step
            change.append(inverse @ (sigma_z(one + e) - sigma_z(one - e)) / (2 * step))
        term = torch.stack([torch.stack([0.5 * (a @ b).trace() for b in change]) for a in change])
        expected.append(jx.T @ inverse @ jx + term)
    assert torch.allclose(with_term, torch.stack(expected).mean(0), rtol=1e-6)


def test_printed_form_scales_wrongly_and_the_checked_one_does_not(mlp):
    """z -> 3z leaves the information unchanged and multiplies eq. 9 as printed by 81."""
    model, x = mlp

    class Tripled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return 3 * self.inner(x)

    head = nn.Linear(5, 3).double()
    head.load_state_dict({"weight": model.head.weight / 3, "bias": model.head.bias})
    tripled = wb.FeatureClassifier(Tripled(model.backbone), head).eval()
    values = {}
    for name, m in (("once", model), ("tripled", tripled)):
        f = wb.WeightFisher(m, x, params="features")
        for form in ("inverse", "printed"):
            s = wb.InputFisher(m, x, "weight-noise", 1.0, f, BETA, PRIOR, form=form)
            values[name, form] = s.trace().value
    assert values["tripled", "inverse"] == pytest.approx(values["once", "inverse"], rel=1e-8)
    assert values["tripled", "printed"] == pytest.approx(81 * values["once", "printed"], rel=1e-8)
    jx, jw = dense_parts(model, x[0], is_feature)
    f = wb.WeightFisher(model, x, params="features")
    printed = jx.T @ jw @ f.matrix() @ jw.T @ jx / BETA
    one = wb.InputFisher(model, x[:1], "weight-noise", 1.0, f, BETA, PRIOR, form="printed")
    assert torch.allclose(one.matrix(), printed, rtol=1e-8, atol=1e-10)


class Affine(nn.Module):
    """Features B x + b with a trainable b only: the weight noise on z does not depend on x."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.shift = nn.Parameter(torch.zeros(len(matrix), dtype=matrix.dtype))

    def forward(self, x):
        return x @ self.matrix.T + self.shift


@pytest.mark.parametrize("d", [2, 3])
def test_effective_information_of_a_linear_gaussian_model(d):
    """x ~ N(0, s^2 I), z = B x + n: I(x; z) = 1/2 log det(I + s^2 Sigma^-1 B B^T)."""
    torch.manual_seed(0)
    b = torch.randn(d, 3, dtype=torch.float64)
    model = wb.FeatureClassifier(Affine(b), nn.Linear(d, 3).double())
    x = torch.randn(8, 3, dtype=torch.float64)
    f = wb.WeightFisher(model, x, params="features")
    noise = sigma(f)
    expected = 0.5 * torch.logdet(torch.eye(d, dtype=torch.float64) + 2.5 * torch.linalg.inv(noise) @ b @ b.T)
    got = wb.effective_information(model, x, f, BETA, PRIOR, input_variance=2.5)
    assert got.value == pytest.approx(float(expected), rel=1e-9)
    assert got.stderr == pytest.approx(0, abs=1e-9)
    entropy = 1.5 * math.log(2 * math.pi * math.e * 2.5)
    if d < 3:
        with pytest.raises(wb.UsageError, match="-infinity"):
            wb.effective_information(model, x, f, BETA, PRIOR, form="eq8", input_entropy=entropy)
        return
    gaps = []
    for beta in (1.0, 1e-2, 1e-4):
        exact, printed = (
            wb.effective_information(model, x, f, beta, PRIOR, 2.5, form=form, input_entropy=entropy).value
            for form in ("perturbation", "eq8")
        )
        gaps.append(exact - printed)
    assert gaps[0] > gaps[1] > gaps[2] > 0, "eq. 8 is lower and tends to the truth as the noise vanishes"


def test_curvature_ratios_tend_to_one(mlp):
    model, x = mlp
    for function in (wb.kl_curvature_ratio, wb.gaussian_curvature_ratio):
        errors = [abs(function(model, x, eps).value - 1) for eps in (1e-1, 1e-3)]
        bound = 1e-3 if function is wb.kl_curvature_ratio else 0.1
        assert errors[1] < bound
    far = wb.kl_curvature_ratio(model, x, 3.0)
    assert abs(far.value - 1) > 0.05
    assert far.n == 6


def test_inputs_without_curvature_are_left_out_and_it_is_said():
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 3)).double()
    x = torch.tensor([[1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64)
    for function in (wb.kl_curvature_ratio, wb.gaussian_curvature_ratio):
        estimate = function(model, x, 0.1)
        assert estimate.n == 1
        assert "1 inputs with S = 0 left out" in estimate.method
        with pytest.raises(wb.UsageError, match="S = 0"):
            function(model, -x.abs(), 0.1)


def test_curvature_maximum_is_the_maximum(mlp):
    """In two dimensions the sphere can be searched."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    eps = 1.0
    angles = torch.linspace(0, 2 * math.pi, 2000, dtype=torch.float64)
    circle = eps * torch.stack([angles.cos(), angles.sin()], dim=1)
    largest = []
    tops = wb.InputFisher(model, x).per_example_lambda_max()
    with torch.no_grad():
        for one in x:
            p, q = model(one + circle).log_softmax(1), model(one).log_softmax(0)
            largest.append((p.exp() * (p - q)).sum(1).max())
    kl, form = torch.stack(largest), eps**2 / 2 * tops
    assert wb.kl_curvature_ratio(model, x, eps, steps=60).value == pytest.approx(float((kl / form).mean()), rel=2e-3)
    whole = wb.kl_curvature_ratio(model, x, eps, steps=60, of="means")
    assert whole.value == pytest.approx(float(kl.mean() / form.mean()), rel=2e-3)
    residuals = (kl - kl.mean() / form.mean() * form) / form.mean()
    assert whole.stderr == pytest.approx(float(residuals.std() / 5**0.5), rel=2e-2)
    with pytest.raises(wb.UsageError, match="of='mean'"):
        wb.kl_curvature_ratio(model, x, eps, of="mean")


def test_lemma_5_1_in_its_true_forms_and_its_false_one(mlp):
    model, x = mlp
    with torch.no_grad():
        model.head.weight *= 5
    bounds = wb.fisher_bounds(model, x)
    assert bounds.labels.value <= bounds.labels_bound.value
    assert bounds.noisy_logits.value <= bounds.features.value
    a = model.head.weight.detach()
    logits = 0.0
    for one in x:
        jx, _ = dense_parts(model, one, is_feature)
        inner = jx.T @ a.T @ torch.linalg.inv(a @ a.T) @ a @ jx
        assert float(torch.linalg.eigvalsh(jx.T @ jx - inner)[0]) > -1e-10, "Loewner order"
        logits += float((a @ jx).square().sum()) / 6
    assert bounds.unit_noise.value == pytest.approx(logits)
    assert logits > bounds.features.value, "with unit noise on both, the lemma as printed fails"


def test_hutchinson_on_the_output_side(mlp):
    model, x = mlp
    for observation in ("label", "gaussian"):
        exact = wb.InputFisher(model, x, observation)
        probes = wb.InputFisher(model, x, observation, method="hutchinson", num_probes=4000)
        estimate = probes.trace()
        assert abs(estimate.value - exact.trace().value) < 4 * estimate.probe_stderr
        assert estimate.stderr == pytest.approx(exact.trace().stderr, rel=0.05)
        assert torch.allclose(probes.per_example_lambda_max(), exact.per_example_lambda_max(), rtol=1e-8)
        assert probes.lambda_max("mean").value == pytest.approx(exact.lambda_max("mean").value, rel=1e-8)
        assert torch.allclose(exact.eigenvalues(2), exact.eigenvalues()[:2])
        with pytest.raises(wb.UsageError, match="method='exact'"):
            probes.matrix()


def test_hutchinson_intervals_cover(mlp):
    model, x = mlp
    dense = wb.InputFisher(model, x).trace().value
    intervals = [
        wb.InputFisher(model, x, method="hutchinson", num_probes=20, seed=s).trace().interval(over="probes")
        for s in range(200)
    ]
    assert 180 <= sum(low <= dense <= high for low, high in intervals) <= 198


def test_input_logdet_and_eigenvalues(mlp):
    model, x = mlp
    s = wb.InputFisher(model, x, "gaussian")
    eye = torch.eye(4, dtype=torch.float64)
    each = torch.stack([wb.InputFisher(model, one[None], "gaussian").matrix() for one in x])
    assert s.logdet(0.01).value == pytest.approx(float(torch.logdet(each + 0.01 * eye).mean()), rel=1e-9)
    assert s.logdet(0.01, of="mean").value == pytest.approx(float(torch.logdet(each.mean(0) + 0.01 * eye)), rel=1e-9)
    assert torch.allclose(s.eigenvalues(), torch.linalg.eigvalsh(each.mean(0)).flip(0))


def test_dataset_information_matches_ridge_regression():
    torch.manual_seed(0)
    n, k, beta, prior = 12, 3, 0.1, 2.0
    x, y = torch.randn(n, k, dtype=torch.float64), torch.randn(n, 1, dtype=torch.float64)
    damping = beta / prior
    precision = x.T @ x / n + damping * torch.eye(k, dtype=torch.float64)
    model = nn.Linear(k, 1, bias=False).double()
    model.weight.data = torch.linalg.solve(precision, x.T @ y / n).T

    def half_squares(output, target):
        return 0.5 * (output - target).square().mean()

    chosen = [0, 4, 7]
    influence = torch.linalg.solve(precision, x.T[:, chosen] / n)
    posterior = beta * torch.linalg.inv(precision)
    # w_sampled = w(y) + n with y_chosen ~ N(., 2 I): both Gaussian, the information in closed form.
    expected = 0.5 * torch.logdet(posterior + 2.0 * influence @ influence.T) - 0.5 * torch.logdet(posterior)
    got = wb.dataset_information(model, x, y, chosen, beta, prior, 2.0, of="targets", loss=half_squares)
    assert got.value == pytest.approx(float(expected), rel=1e-9)


def test_influence_is_what_retraining_shows():
    torch.manual_seed(0)
    x, y = torch.randn(20, 2, dtype=torch.float64), torch.randint(3, (20,))
    decay = 0.05

    def trained(inputs):
        model = nn.Linear(2, 3).double()
        for p in model.parameters():
            nn.init.zeros_(p)
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16)

        def closure():
            optimizer.zero_grad()
            penalty = sum(p.square().sum() for p in model.parameters())
            loss = nn.functional.cross_entropy(model(inputs), y) + decay / 2 * penalty
            loss.backward()
            return loss

        optimizer.step(closure)
        return model

    def flat(model):
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    base = trained(x)
    moved, _ = dataset_influence(base, x, y, [3], weight_decay=decay)
    for j in range(2):
        shifted = []
        for sign in (1, -1):
            other = x.clone()
            other[3, j] += sign * 1e-3
            shifted.append(flat(trained(other)))
        assert torch.allclose(moved[:, j], (shifted[0] - shifted[1]) / 2e-3, atol=1e-5)


def test_errors(mlp):
    model, x = mlp
    f = wb.WeightFisher(model, x, params="features")
    head_only = wb.WeightFisher(model, x, params=lambda n: n.startswith("head"))
    other = make_mlp()
    for action, match in (
        (lambda: wb.InputFisher(model, x, "weight-noise"), "weight_fisher="),
        (lambda: wb.InputFisher(model, x, "weight-noise", 1.0, f, 0.0, 1.0), "beta"),
        (lambda: wb.InputFisher(model, x, "weight-noise", 1.0, head_only, 1.0, 1.0), "feature extractor"),
        (lambda: wb.InputFisher(other, x, "weight-noise", 1.0, f, 1.0, 1.0), "another model"),
        (lambda: wb.InputFisher(model, x, covariance_term=True), "weight-noise"),
        (lambda: wb.kl_curvature_ratio(model, x, 0.0), "eps"),
        (lambda: wb.effective_information(model, x, f, 0.1, 1.0, form="eq8"), "input_entropy"),
        (lambda: wb.dataset_information(model, x, torch.zeros(6).long(), [9], 0.1, 1.0), "indices"),
    ):
        with pytest.raises(wb.UsageError, match=match):
            action()
