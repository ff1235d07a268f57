"""Random changes of training images: drawn for each image, within [0, 1], and equal to torchvision's."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

import waterbed as wb
from waterbed.cli.options import from_config
from waterbed.cli.train import Train
from waterbed.data.augment import (
    augmentation,
    color_jitter,
    jittered,
    lighting_noise,
    random_crop,
    random_flip,
    random_resized_crop,
    rotate,
)
from waterbed.data.images import check_images
from waterbed.training.config import AUGMENTATIONS, OF_IMAGES, TrainConfig

COLOURS = SimpleNamespace(shape=(3, 16, 16), flip=True)
GREY = SimpleNamespace(shape=(1, 16, 16), flip=False)


def augment(data=COLOURS, **settings):
    return augmentation(TrainConfig(**{"augment": "none", **settings}), data)


def seeded(change, x):
    torch.manual_seed(3)
    return change(x)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_what_a_name_stands_for(name):
    x = torch.rand(8, 3, 16, 16)
    parts = {
        "none": lambda x: x,
        "flip": random_flip,
        "crop": random_crop,
        "crop-flip": lambda x: random_flip(random_crop(x)),
        "resized-crop-flip": lambda x: random_flip(random_resized_crop(x)),
    }
    parts["auto"] = parts["crop-flip"]
    assert torch.equal(seeded(augment(augment=name), x), seeded(parts[name], x))
    if name == "auto":
        assert torch.equal(seeded(augment(GREY, augment=name), x), seeded(random_crop, x))


@pytest.mark.parametrize(
    "settings",
    [
        *({"augment": name} for name in AUGMENTATIONS if name != "none"),
        {"randaugment": 9},
        {"randaugment": 30},
        {"color_jitter": 0.25},
        {"color_jitter": 1.5},
        {"rotation": 30.0},
        {"lighting": 0.5},
        {"augment": v2.RandomAffine(10, (0.2, 0.2))},
        {"augment": "crop-flip", "color_jitter": 0.25, "rotation": 2.0},
    ],
    ids=str,
)
def test_each_image_has_draws_of_its_own_and_stays_in_range(settings):
    """Sixty-four times one image: a single draw for the batch would leave them all the same."""
    image = torch.rand(1, 3, 16, 16)
    changed = seeded(augment(**settings), image.expand(64, -1, -1, -1))
    assert changed.shape == (64, 3, 16, 16)
    assert changed.dtype == torch.float32
    check_images(changed, "changed")
    fewest = 2 if settings.get("augment") == "flip" else 20
    assert len(changed.flatten(1).unique(dim=0)) >= fewest
    assert torch.equal(changed, seeded(augment(**settings), image.expand(64, -1, -1, -1)))


def test_jitter_is_torchvisions_for_every_order():
    orders = torch.tensor(list(itertools.permutations(range(3))))
    operations = (tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation)
    for channels in (1, 3):
        x, factors = torch.rand(6, channels, 8, 9), 0.5 + torch.rand(6, 3)
        expected = x.clone()
        for i, order in enumerate(orders.tolist()):
            for kind in order:
                expected[i] = operations[kind](expected[i], float(factors[i, kind]))
        assert torch.allclose(jittered(x, factors, orders), expected, atol=1e-6)


def test_jitter_draws_factors_within_its_strength_and_every_order():
    grey = torch.full((4000, 1, 1, 1), 0.5)  # contrast and saturation leave it alone
    factors = color_jitter(grey, 0.25).flatten() / 0.5
    assert float(factors.min()) == pytest.approx(0.75, abs=0.01)
    assert float(factors.max()) == pytest.approx(1.25, abs=0.01)
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("shape", [(5, 3, 16, 16), (5, 1, 9, 14)])
def test_rotation_is_torchvisions(shape):
    x, degrees = torch.rand(*shape), torch.tensor([-40.0, -1.7, 0.0, 2.0, 33.0])
    expected = torch.stack([tvf.rotate(image, float(angle)) for image, angle in zip(x, degrees, strict=True)])
    assert torch.equal(rotate(x, degrees), expected)


def test_rotation_stays_within_its_degrees():
    """The angle of each image, from where a far pixel has gone."""
    x = torch.zeros(200, 1, 101, 101)
    x[:, 0, 50, 90:] = 1.0
    angles = []
    for image in augment(GREY, rotation=10.0)(x)[:, 0]:
        rows, columns = image.nonzero().T
        angles.append(float(torch.atan2(50.0 - rows.float().mean(), columns.float().mean() - 50.0).rad2deg()))
    assert 9 < max(angles) < 11
    assert -11 < min(angles) < -9


def test_lighting_shifts_a_colour_along_imagenets_components():
    shifts = (lighting_noise(torch.full((20_000, 3, 1, 1), 0.5), 0.1) - 0.5).flatten(1)
    values, vectors = torch.linalg.eigh(shifts.T.cov())
    assert torch.allclose(values.flip(0).sqrt(), 0.1 * torch.tensor([0.2175, 0.0188, 0.0045]), rtol=0.03)
    assert torch.allclose(vectors[:, -1].abs(), torch.tensor([0.5675, 0.5808, 0.5836]), atol=0.01)


def test_the_order_is_crop_randaugment_jitter_rotation_lighting():
    x = torch.rand(4, 3, 16, 16)
    settings = {"augment": "crop", "randaugment": 9, "color_jitter": 0.2, "rotation": 5.0, "lighting": 0.1}
    torch.manual_seed(3)
    expected = x
    for name in OF_IMAGES:
        expected = augment(**{name: settings[name]})(expected)
    assert torch.equal(seeded(augment(**settings), x), expected)


def test_colours_that_images_do_not_have():
    many = SimpleNamespace(shape=(4, 8, 8))
    for settings, data in (
        ({"lighting": 0.1}, GREY),
        ({"color_jitter": 0.1}, many),
        ({"randaugment": 9}, many),
    ):
        with pytest.raises(wb.UsageError, match=f"{next(iter(settings))}=.* these have {data.shape[0]} channel"):
            augment(data, **settings)
    for settings in ({"color_jitter": 0.1}, {"randaugment": 9}, {"rotation": 5.0}):
        check_images(augment(GREY, **settings)(torch.rand(20, 1, 16, 16)), "changed")


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (v2.Normalize([0.5] * 3, [0.2] * 3), wb.UsageError, r"what augment= returned has values .* lie in \[0, 1\]"),
        (v2.Resize(8), wb.UsageError, r"augment=Resize.*returned .*\(3, 8, 8\) .* for an image .*\(3, 16, 16\)"),
        (v2.ToDtype(torch.float64), wb.UsageError, r"returned torch\.float64"),
        (lambda image: image.numpy(), TypeError, r"returned ndarray for an image"),
    ],
)
def test_what_an_own_transform_returns_is_checked(transform, error, message):
    with pytest.raises(error, match=message):
        augment(augment=transform)(torch.rand(2, 3, 16, 16))


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        # What robustness/data_augmentation.py has: TRAIN_TRANSFORMS_DEFAULT and TRAIN_TRANSFORMS_IMAGENET.
        ("robustness-cifar10", {"augment": "crop-flip", "color_jitter": 0.25, "rotation": 2.0, "lighting": 0.0}),
        ("imagenet", {"augment": "resized-crop-flip", "color_jitter": 0.1, "rotation": 0.0, "lighting": 0.05}),
    ],
)
def test_recipes_change_images_as_robustness_does(recipe, expected):
    config = from_config(Train, Path(__file__).parents[3] / f"recipes/{recipe}.toml").config()
    assert config.of_images() == {**expected, "randaugment": 0}
    x = torch.rand(4, 3, 32, 32)
    check_images(augmentation(config, SimpleNamespace(shape=(3, 32, 32)))(x), "changed")
    # Its crop of 32 pixels pads by 4: of shifted copies, none is farther away.
    assert float(random_crop(torch.ones(500, 1, 32, 32)).mean((1, 2, 3)).min()) == (28 / 32) ** 2


def test_settings_out_of_range():
    for settings, message in (
        ({"augment": "rotate"}, "augment='rotate' is unknown; choose one of 'auto'"),
        ({"randaugment": 31}, "randaugment=31 must be below 31"),
        ({"randaugment": 0.5}, "randaugment=0.5 must be a whole number"),
        ({"color_jitter": -0.1}, "color_jitter=-0.1 must be a finite number >= 0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 must be below 1"),
        ({"mixup": -1.0}, "mixup=-1.0"),
    ):
        with pytest.raises((wb.UsageError, TypeError), match=message):
            TrainConfig(**settings)
