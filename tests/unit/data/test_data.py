import gzip
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import waterbed as wb
from waterbed.data.augment import augmentation, random_crop, random_flip
from waterbed.data.catalog import CATALOG
from waterbed.data.encoded import common_size
from waterbed.data.images import adapt
from waterbed.data.loading import batches, stack
from waterbed.errors import UsageWarning


@pytest.mark.parametrize("name", ["fashion-mini", "digits"])
def test_embedded_sets_are_as_the_catalogue_says(name):
    data, source = wb.load_dataset(name), CATALOG[name]
    assert (len(data.train), len(data.test), data.num_classes) == (source.train_size, source.test_size, source.classes)
    x, y = data.train[0]
    assert x.dtype == torch.float32
    assert type(y) is int
    images, labels = stack(data.test)
    assert images.min() == 0
    assert images.max() == 1
    if name == "fashion-mini":
        assert labels.bincount().tolist() == [200] * 10


def test_folder_of_images(folder):
    data = wb.load_dataset(folder)
    assert data.classes == ("bright", "dark")
    assert data.shape == (3, 12, 12)
    assert (len(data.train), len(data.test)) == (24, 8)
    image = np.array(Image.open(folder / "train/bright/0.png"))
    assert torch.equal(data.train[0][0], torch.from_numpy(image).permute(2, 0, 1) / 255)
    grey = wb.load_dataset(folder, size=8, channels=1)
    assert grey.shape == (1, 8, 8)
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert float(grey.train[0][0].mean()) == pytest.approx(luma.mean() / 255, abs=0.01)


def test_sixteen_bit_and_turned_pictures(folder):
    ramp = np.linspace(0, 65535, 144).astype(np.uint16).reshape(12, 12)
    for path in folder.rglob("*.png"):
        Image.fromarray(ramp).save(path)
    data = wb.load_dataset(folder)
    assert data.shape == (1, 12, 12)
    assert torch.allclose(data.train[0][0][0], torch.from_numpy(ramp / 65535).float(), atol=1 / 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture = np.zeros((8, 20), np.uint8)
    picture[:, :10] = 255
    for path in folder.rglob("*.png"):
        Image.fromarray(picture).save(path, exif=exif)
    turned = wb.load_dataset(folder).train[0][0][0]
    assert turned.shape == (20, 8)
    assert bool((turned[:10] == 1).all())
    assert bool((turned[10:] == 0).all())


def test_large_folder_is_decoded_on_demand_with_the_same_pixels(folder, monkeypatch):
    held = wb.load_dataset(folder, size=8)
    monkeypatch.setattr("waterbed.data.folders.IN_MEMORY_BYTES", 0)
    lazy = wb.load_dataset(folder, size=8)
    assert type(lazy.train).__name__ == "FolderImages"
    for (x, y), (x2, y2) in zip(batches(held.train, 5), batches(lazy.train, 5), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_images_of_several_sizes_get_one(folder):
    Image.new("RGB", (20, 9)).save(folder / "train/dark/odd.png")
    with pytest.warns(
        UsageWarning, match="such as 9 x 20 and 12 x 12; all are resized and cropped to 12 x 12: pass si"
    ):
        data = wb.load_dataset(folder)
    assert data.shape == (3, 12, 12)
    assert torch.equal(wb.stack(data.train)[0], wb.stack(wb.load_dataset(folder, size=12).train)[0])
    with pytest.warns(UsageWarning, match="to 224 x 224"):
        assert common_size([(500, 400), (300, 400)]) == 224
    assert wb.load_dataset(folder, size=10).shape == (3, 10, 10)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folder(tmp_path, zipped):
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    for prefix in ("train", "t10k"):
        images = b"\0\0\x08\x03" + np.array([6, 5, 4], ">i4").tobytes() + expected.tobytes()
        labels = b"\0\0\x08\x01" + np.array([6], ">i4").tobytes() + bytes([0, 1, 2, 0, 1, 2])
        for kind, raw in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            name = f"{prefix}-{kind}" + (".gz" if zipped else "")
            (tmp_path / name).write_bytes(gzip.compress(raw) if zipped else raw)
    data = wb.load_dataset(tmp_path)
    assert data.shape == (1, 5, 4)
    assert data.num_classes == 3
    assert torch.equal(data.test[4][0] * 255, torch.from_numpy(expected[4][None]).float())
    assert data.test[4][1] == 1


def test_named_set_is_found_as_a_folder_below_root(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(CATALOG, "cifar10", replace(CATALOG["cifar10"], classes=2, train_size=24, test_size=8))
    folder.rename(tmp_path / "cifar10")
    data = wb.load_dataset("cifar10", root=tmp_path)
    assert data.name == "cifar10"
    assert data.flip


def test_resizing_is_antialiased_and_keeps_constants():
    stripes = torch.zeros(1, 1, 32, 32)
    stripes[..., ::2] = 1
    small = adapt(stripes, 8, None)
    assert small[..., 1:-1, 1:-1].std() < 0.02  # without antialiasing it would be 0s and 1s
    assert adapt(torch.full((1, 1, 9, 30), 0.5), 6, 3).shape == (1, 3, 6, 6)
    assert torch.allclose(adapt(torch.full((1, 1, 9, 30), 0.5), 6, 3), torch.tensor(0.5))


def test_take_draws_a_part_in_order():
    data = wb.load_dataset("digits").take(50, 1000, seed=3)
    assert len(data.train) == 50
    assert len(data.test) == 360
    with pytest.raises(wb.UsageError, match="train=-5"):
        data.take(-5, 10)


def test_batches_check_labels_and_pixels():
    bad = [(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 4, 4), 7)]
    with pytest.raises(wb.UsageError, match="labels from 0 to 7"):
        list(batches(bad, 2, num_classes=5))
    with pytest.raises(wb.UsageError, match="255"):
        list(batches([(torch.full((1, 4, 4), 200.0), 0)], 1))
    with pytest.raises(wb.UsageError, match="NaN"):
        list(batches([(torch.full((1, 4, 4), float("nan")), 0)], 1))


def test_crop_shifts_by_whole_pixels_and_fills_black():
    x = torch.rand(64, 1, 8, 8)
    cropped = random_crop(x)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    shifts = [padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    matches = torch.stack([(cropped == s).flatten(1).all(1) for s in shifts])
    assert bool(matches.any(0).all())
    assert bool(matches.any(1).all()), "every shift occurs"


def test_automatic_augmentation_flips_clothes_but_not_digits():
    x = torch.rand(64, 1, 8, 8)
    auto = wb.TrainConfig(augment="auto")
    assert augmentation(auto, wb.load_dataset("digits")).changes == (random_crop,)
    assert augmentation(auto, wb.load_dataset("fashion-mini")).changes == (random_crop, random_flip)
    assert augmentation(wb.TrainConfig(augment="none"), None)(x) is x
