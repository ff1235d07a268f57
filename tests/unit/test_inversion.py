import copy

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.descent import OPTIMIZERS


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
