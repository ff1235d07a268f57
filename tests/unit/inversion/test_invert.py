import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

import waterbed as wb
from waterbed.information.per_example import WeightRows
from waterbed.inversion.optimizers import OPTIMIZERS


@pytest.fixture
def orthonormal():
    """Features are a rotation of the pixels: the inverse is exact."""
    q, _ = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))
    rotation = nn.Linear(16, 16, bias=False).double()
    rotation.weight.data = q
    return wb.FeatureClassifier(nn.Sequential(nn.Flatten(), rotation), nn.Linear(16, 2).double())


@pytest.fixture
def images():
    return torch.rand(3, 1, 4, 4, dtype=torch.float64)


def test_orthonormal_map_is_inverted(orthonormal, images):
    found = wb.invert(orthonormal, images, steps=200)
    assert float((found.images - images).abs().max()) < 1e-4
    assert found.losses.shape == found.clean_losses.shape == (200, 3)
    assert torch.equal(found.losses, found.clean_losses)


def test_a_bare_representation_is_inverted(orthonormal, images):
    z = orthonormal.features(images).detach()
    found = wb.invert(orthonormal, z, steps=200, image_shape=(1, 4, 4))
    assert found.originals is None
    assert float((found.images - images).abs().max()) < 1e-4
    with pytest.raises(wb.UsageError, match="image_shape"):
        wb.invert(orthonormal, z)


def test_sgd_step_is_the_printed_one(orthonormal, images):
    first = wb.invert(orthonormal, images, steps=1, lr=0.1, init_scale=0)
    r0 = torch.full_like(images, 0.5)
    # The gradient of |Q r - Q x|^2 is 2 (r - x) for an orthonormal Q.
    assert torch.allclose(first.images, r0 - 0.1 * 2 * (r0 - images))
    assert torch.allclose(first.losses[0], (r0 - images).square().sum((1, 2, 3)))


def test_unsquared_loss_is_the_norm(orthonormal, images):
    first = wb.invert(orthonormal, images, steps=1, lr=0.1, init_scale=0, squared=False)
    assert torch.allclose(first.losses[0], (0.5 - images).square().sum((1, 2, 3)).sqrt())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_descends_and_stays_in_range(tiny, optimizer):
    x = torch.rand(2, 1, 8, 8)
    found = wb.invert(tiny, x, steps=60, optimizer=optimizer)
    assert bool((found.final_losses < 0.5 * found.losses[0]).all())
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    assert not bool(found.diverged.any())


@pytest.mark.parametrize("mode", ["plain", "variational", "effective"])
def test_an_image_does_not_depend_on_its_batch(convnet, mode):
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    noise = None if mode == "plain" else wb.WeightNoise(wb.WeightFisher(convnet, x), 1e-4, 1e-3)
    together = wb.invert(convnet, x, mode, noise, steps=20)
    alone = wb.invert(convnet, x[1:2], mode, noise, steps=20)
    assert torch.allclose(together.images[1], alone.images[0], atol=1e-9)
    assert torch.allclose(together.losses[:, 1], alone.losses[:, 0], rtol=1e-7)


def test_weights_modes_and_generator_are_untouched(convnet):
    convnet.train()
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    before = {k: v.clone() for k, v in convnet.state_dict().items()}
    state = torch.get_rng_state()
    noise = wb.WeightNoise(wb.WeightFisher(convnet, x), 1e-4, 1e-3)
    wb.invert(convnet, x, "effective", noise, steps=3)
    assert all(torch.equal(v, before[k]) for k, v in convnet.state_dict().items())
    assert convnet.training
    assert torch.equal(state, torch.get_rng_state())


def test_variational_noise_is_one_draw_and_effective_many(convnet):
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    noise = wb.WeightNoise(wb.WeightFisher(convnet, x), 1e-3, 1e-2)
    runs = {m: wb.invert(convnet, x, m, noise, steps=8, lr=1e-12) for m in ("variational", "effective")}
    # With (almost) no step the image stays, so only the noise can change the loss.
    assert float(runs["variational"].losses.std(0).max()) < 1e-6
    assert float(runs["effective"].losses.std(0).min()) > 1e-4
    assert torch.allclose(runs["effective"].losses[0], runs["variational"].losses[0])
    assert float(runs["effective"].clean_losses.std(0).max()) < 1e-6
    other = wb.invert(convnet, x, "variational", noise, steps=1, lr=1e-12, seed=1)
    assert not torch.allclose(other.losses[0], runs["variational"].losses[0])


def test_noise_on_the_target(convnet):
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    noise = wb.WeightNoise(wb.WeightFisher(convnet, x), 1e-3, 1e-2)
    found = wb.invert(convnet, x, "variational", noise, steps=1, lr=1e-12, noise_side="target", init_scale=0)
    weights = {f"m.{k}": v for k, v in noise.perturbed(0).items()}
    with torch.no_grad():
        start = convnet.features(torch.full_like(x, 0.5))
        noisy = torch.func.functional_call(_Features(convnet), weights, (x,))
        assert torch.allclose(found.losses[0], (start - noisy).square().sum(1))
        assert torch.allclose(found.clean_losses[0], (start - convnet.features(x)).square().sum(1))


class _Features(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, x):
        return self.m.features(x)


def test_tolerance_stops_each_image_and_repeats_the_last_row(orthonormal, images):
    found = wb.invert(orthonormal, images, steps=300, lr=0.2, tolerance=1e-6)
    z = orthonormal.features(images).square().sum(1)
    assert bool((found.final_losses <= 1e-6 * z).all())
    assert torch.equal(found.losses[-1], found.losses[-2])
    assert found.losses.shape == (300, 3)


def test_tolerance_is_of_the_squared_distance_whatever_is_descended(orthonormal, images):
    found = wb.invert(orthonormal, images, steps=300, lr=0.02, tolerance=1e-2, squared=False)
    ratio = found.final_losses.square() / orthonormal.features(images).detach().square().sum(1)
    assert bool((ratio <= 1e-2).all())
    assert float(ratio.max()) > 5e-3


def test_a_diverging_image_keeps_its_best_iterate(images):
    class Cliff(nn.Module):
        """Finite up to a mean pixel of 0.6, infinite beyond."""

        def forward(self, x):
            mean = x.flatten(1).mean(1, keepdim=True)
            return torch.where(mean < 0.6, mean, torch.exp(mean * 1e4))

    model = wb.FeatureClassifier(Cliff(), nn.Linear(1, 2).double())
    bright = torch.full((1, 1, 4, 4), 0.59, dtype=torch.float64)
    found = wb.invert(model, bright, steps=20, lr=20.0, init_scale=0)
    assert found.diverged.tolist() == [True]
    assert torch.equal(found.images, torch.full_like(bright, 0.5))
    assert float(found.final_losses) == pytest.approx(0.09**2)


def test_noise_of_other_weights_is_refused(convnet):
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    noise = wb.WeightNoise(wb.WeightFisher(copy.deepcopy(convnet), x), 1e-4, 1e-3)
    wb.invert(convnet, x, "variational", noise, steps=1)
    with torch.no_grad():
        convnet.head.weight += 1
    with pytest.raises(wb.UsageError, match="another model"):
        wb.invert(convnet, x, "variational", noise, steps=1)


def test_save_draws_a_picture(tiny, tmp_path):
    found = wb.invert(tiny, torch.rand(2, 1, 8, 8), steps=2)
    found.save(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG"


def test_lbfgs_solves_what_sgd_only_approaches():
    """An ill-conditioned linear map, whose inverse lies inside the box."""
    torch.manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))
    linear = nn.Linear(16, 16, bias=False).double()
    linear.weight.data = q * torch.logspace(0, -2, 16, dtype=torch.float64)
    model = wb.FeatureClassifier(nn.Sequential(nn.Flatten(), linear), nn.Linear(16, 2).double())
    x = 0.3 + 0.4 * torch.rand(3, 1, 4, 4, dtype=torch.float64)
    fast, slow = (wb.invert(model, x, steps=400, optimizer=o) for o in ("lbfgs", "sgd"))
    assert float((fast.images - x).abs().max()) < 1e-3
    assert bool((fast.final_losses < 1e-4 * slow.final_losses).all())
    assert bool((fast.final_losses <= fast.losses.min(0).values + 1e-15).all())


def test_lbfgs_is_refused_where_the_objective_moves(convnet):
    noise = wb.WeightNoise(wb.WeightFisher(convnet, torch.rand(2, 1, 6, 6).double()), 1e-4, 1e-3)
    with pytest.raises(wb.UsageError, match="lbfgs"):
        wb.invert(convnet, torch.rand(2, 1, 6, 6).double(), "effective", noise, optimizer="lbfgs")


def test_lbfgs_does_not_depend_on_the_batch(convnet):
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    together = wb.invert(convnet, x, steps=30, optimizer="lbfgs")
    alone = wb.invert(convnet, x[1:2], steps=30, optimizer="lbfgs")
    assert torch.allclose(together.images[1], alone.images[0], atol=1e-9)


def test_any_layer_is_inverted(tiny):
    x = torch.rand(2, 1, 8, 8)
    kept = {}
    hook = tiny.backbone.layer2.register_forward_hook(lambda m, a, out: kept.update(z=out.flatten(1)))
    with torch.no_grad():
        tiny.eval()(torch.full_like(x, 0.5))
        start = kept["z"].clone()
        tiny(x)
    hook.remove()
    found = wb.invert(tiny, x, steps=30, layer="backbone.layer2", init_scale=0)
    assert torch.allclose(found.losses[0], (start - kept["z"]).square().sum(1), rtol=1e-4)
    assert bool((found.final_losses < found.losses[0]).all())
    with pytest.raises(wb.UsageError, match="layer='backbone"):
        wb.invert(tiny, x, layer="backbone.layer9")


@pytest.mark.parametrize("layer", [None, "backbone.layer3", "backbone.bn1"])
def test_hooked_layers_leave_no_trace(tiny, layer):
    wb.invert(tiny, torch.rand(1, 1, 8, 8), steps=1, layer=layer, fake_relu=layer is None)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny.modules())


class TwoRelus(nn.Module):
    def __init__(self, inplace):
        super().__init__()
        self.a, self.b = (nn.Linear(16, 16, bias=False).double() for _ in range(2))
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x):
        return self.relu(self.b(self.relu(self.a(x.flatten(1)))))


@pytest.mark.parametrize("inplace", [False, True])
def test_fake_relu_is_the_identity_backwards_in_the_last_relu_only(inplace):
    torch.manual_seed(0)
    model = wb.FeatureClassifier(TwoRelus(inplace), nn.Linear(16, 2).double())
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    start = torch.full_like(x, 0.5)
    a, b = model.backbone.a.weight, model.backbone.b.weight
    with torch.no_grad():
        hidden = (start.flatten(1) @ a.T).relu()
        z = model.features(x)
        residual = 2 * ((hidden @ b.T).relu() - z)
        alive = (hidden > 0).double()
        fake = ((residual @ b) * alive) @ a
        true = ((residual * ((hidden @ b.T) > 0)) @ b * alive) @ a
    for flag, slope in ((True, fake), (False, true)):
        found = wb.invert(model, x, steps=1, lr=1e-3, init_scale=0, fake_relu=flag)
        assert torch.allclose(found.images, start - 1e-3 * slope.view_as(x), atol=1e-12), flag


def test_fake_relu_without_a_relu_is_an_error(orthonormal, images):
    with pytest.raises(wb.UsageError, match="fake_relu"):
        wb.invert(orthonormal, images, fake_relu=True)


@pytest.mark.parametrize("init", ["uniform", "zeros", "ones"])
def test_starts(orthonormal, images, init):
    first = wb.invert(orthonormal, images, steps=1, lr=1e-12, init=init).images
    assert torch.allclose(first[0], first[1], atol=1e-9)
    if init != "uniform":
        assert float((first - float(init == "ones")).abs().max()) < 1e-9


def test_an_own_start(orthonormal, images):
    found = wb.invert(orthonormal, images, steps=1, lr=1e-12, init=images)
    assert float(found.final_losses.max()) < 1e-20
    for wrong in (images[:2], 2 * images + 1):
        with pytest.raises(wb.UsageError, match="init"):
            wb.invert(orthonormal, images, init=wrong)


def test_losses_by_name(orthonormal, images):
    z = orthonormal.features(images).detach()
    start = orthonormal.features(torch.full_like(images, 0.5)).detach()
    expected = {
        "relative": (start - z).square().sum(1) / z.square().sum(1),
        "cosine": 1 - torch.nn.functional.cosine_similarity(start, z),
    }
    for name, value in expected.items():
        found = wb.invert(orthonormal, images, steps=40, init_scale=0, loss=name)
        assert torch.allclose(found.losses[0], value)
        assert bool((found.final_losses < 0.2 * value).all()), name


def test_bf16_descends_and_reports_in_full_precision(tiny):
    x = torch.rand(2, 1, 8, 8)
    found = wb.invert(tiny, x, steps=60, optimizer="adam", precision="bf16")
    with torch.no_grad():
        exact = (tiny.eval().features(found.images) - tiny.features(x)).square().sum(1)
    assert torch.allclose(found.final_losses, exact, rtol=1e-4)
    assert bool((found.final_losses < 0.5 * found.losses[0]).all())
    with pytest.raises(wb.UsageError, match="bf16"):
        wb.invert(tiny.double(), x.double(), precision="bf16")


def test_iterations_to_a_threshold(orthonormal, images):
    found = wb.invert(orthonormal, images, steps=50, lr=0.1)
    steps = found.iterations_to(0.01)
    for i, step in enumerate(steps.long().tolist()):
        assert found.losses[step, i] <= 0.01 * found.scale[i] < found.losses[step - 1, i]
    assert bool(found.iterations_to(1e-30).isnan().all())


def test_similarity_is_that_of_the_definitions(orthonormal):
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    found = wb.invert(orthonormal, x, steps=5)
    said = found.similarity()
    mse = (found.images - x).square().flatten(1).mean(1)
    assert torch.allclose(said["rmse"], mse.sqrt())
    assert torch.allclose(said["psnr"], -10 * mse.log10())
    assert said["ssim"].shape == (2,)
    same = wb.invert(orthonormal, x, steps=1, lr=1e-12, init=x).similarity()
    assert torch.allclose(same["ssim"], torch.ones(2, dtype=torch.float64))
    bare = wb.invert(orthonormal, orthonormal.features(x).detach(), steps=1, image_shape=(1, 4, 4))
    with pytest.raises(wb.UsageError, match="originals"):
        bare.similarity()


def test_the_nearest_image_is_found(orthonormal, images):
    found = wb.invert(orthonormal, images, steps=300)
    others = torch.rand(10, 1, 4, 4, dtype=torch.float64)
    index, distance = found.nearest(torch.cat([others, images.flip(0)]))
    assert index.tolist() == [12, 11, 10]
    assert float(distance.max()) < 1e-4


def test_the_way_is_animated(tiny, tmp_path):
    x = torch.rand(2, 1, 8, 8)
    found = wb.invert(tiny, x, steps=10, keep_every=3)
    assert found.frames.shape == (4, 2, 1, 8, 8)
    found.animate(tmp_path / "way.gif", scale=2)
    with Image.open(tmp_path / "way.gif") as picture:
        assert picture.n_frames >= 2  # Pillow drops frames that repeat the one before
        assert picture.size == (2 * 16, 2 * 16)
    with pytest.raises(wb.UsageError, match="keep_every"):
        wb.invert(tiny, x, steps=1).animate(tmp_path / "none.gif")


def test_class_images_descend_the_cross_entropy(tiny):
    labels = torch.tensor([0, 3, 9])
    found = wb.invert_label(tiny, labels, steps=60, image_shape=(1, 8, 8))
    assert bool((found.final_losses < found.losses[0]).all())
    assert found.originals is None
    with pytest.raises(wb.UsageError, match="labels"):
        wb.invert_label(tiny, torch.tensor([10]), image_shape=(1, 8, 8))
    with pytest.raises(wb.UsageError, match="image_shape"):
        wb.invert_label(tiny, labels)


def test_more_noise_leaves_less_of_the_image(convnet):
    x = torch.rand(4, 1, 6, 6, dtype=torch.float64)
    fisher = wb.WeightFisher(convnet, x)
    found = wb.effective_images(convnet, x, fisher, [1e-10, 1.0], 3e-2, steps=60, optimizer="adam")
    little, much = found.values()
    assert little.noise_size < much.noise_size
    assert bool((little.final_clean_losses < much.final_clean_losses).all())


def test_the_expected_loss_of_algorithm_2(convnet):
    """E |f_{w+n}(r) - z|^2 = |f - z|^2 + tr(J_w Sigma J_w^T) + a term of second derivatives, small here."""
    x = torch.rand(1, 1, 6, 6, dtype=torch.float64)
    fisher = wb.WeightFisher(convnet, torch.rand(4, 1, 6, 6, dtype=torch.float64))
    noise = wb.WeightNoise(fisher, 1e-7, 1e-3)
    found = wb.invert(convnet, x, "effective", noise, steps=2000, lr=1e-14, init_scale=0)
    start = torch.full_like(x, 0.5)
    variance = 1e-7 / (fisher.diagonal() + 1e-4)
    rows = WeightRows(convnet, list(fisher.parameters), start, "features")
    identity = dict(rows(start, lambda z: torch.eye(z.shape[1], dtype=z.dtype)[None]))
    jacobian = torch.cat([identity[n].flatten(2)[0] for n in fisher.parameters if n in identity], dim=1)
    spread = float((jacobian.square() * variance[: jacobian.shape[1]]).sum())
    z = convnet.features(x).detach()
    clean = float((convnet.features(start).detach() - z).square().sum())
    noisy = found.losses[:, 0]
    error = float(noisy.std()) / 2000**0.5
    assert float(noisy.mean()) == pytest.approx(clean + spread, abs=4 * error + 0.05 * spread)
    assert spread > 4 * error


def test_lpips_is_asked_in_its_own_range_and_size(orthonormal, monkeypatch):
    class LPIPS(nn.Module):
        def __init__(self, net, verbose):
            super().__init__()

        def forward(self, a, b):
            assert a.shape == b.shape == (2, 3, 64, 64)
            assert float(a.min()) >= -1
            return (a - b).abs().mean((1, 2, 3), keepdim=True)

    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    found = wb.invert(orthonormal, x, steps=1, lr=1e-12, init=(x + 0.1).clamp(0, 1))
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=LPIPS))
    assert torch.allclose(found.lpips(), 2 * ((x + 0.1).clamp(0, 1) - x).mean((1, 2, 3)), atol=1e-6)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(wb.UsageError, match=r"waterbed\[lpips\]"):
        found.lpips()
