"""Missing, doubled and contradictory normalisation of networks that are loaded."""

import pytest
import torch
from tests.unit.models.test_foreign import MEAN, STD, CifarNet, agree, madry, prefixed, saved, trained
from torch import nn

import waterbed as wb
from waterbed.models.normalisers import check_normalisation


@pytest.fixture
def images():
    return torch.rand(4, 3, 32, 32, dtype=torch.float64)


def test_missing_normalisation_is_reported(tmp_path, images):
    network = trained(CifarNet())
    path = saved({"net": prefixed(network, "module."), "acc": 93.0}, tmp_path / "a.pt")
    loaded = wb.load_model(path)
    assert loaded.mean is None
    assert loaded.loading["source"] == "plain"
    assert loaded.loading["normaliser"] == "none"
    assert "check_normalisation" in loaded.loading["notes"][0]
    assert agree(loaded, network, images, torch.zeros(3), torch.ones(3))
    for mean, std in ((MEAN, STD), (0.5, 0.25)):
        loaded = wb.load_model(path, mean=mean, std=std)
        assert agree(loaded, network, images, *(torch.as_tensor(v).double().expand(3) for v in (mean, std)))
        assert loaded.loading == {"source": "plain", "normaliser": "given", "notes": []}


def test_doubled_and_contradictory_normalisation_is_refused(tmp_path):
    network = trained(CifarNet())
    path = saved({"model": madry(network)}, tmp_path / "a.pt")
    given = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    with pytest.raises(wb.UsageError, match=r"twice.*\(mean 0.49, 0.48, 0.44, std 0.2, 0.21, 0.19\); leave them out"):
        wb.load_model(path, **given)
    with pytest.raises(wb.UsageError, match="pass both or neither"):
        wb.load_model(path, mean=[0.5])
    with pytest.raises(wb.UsageError, match="a checkpoint of 'robustness'"):
        wb.load_model(path, "robustbench")
    plain = saved(network.state_dict(), tmp_path / "b.pt")
    with pytest.raises(wb.UsageError, match="do not fit 3 channels"):
        wb.load_model(plain, mean=[0.5, 0.5], std=[0.2, 0.2])
    with pytest.raises(TypeError, match="must be numbers"):
        wb.load_model(plain, mean="imagenet", std=1)
    twice = madry(network) | {"mu": MEAN, "sigma": STD}
    with pytest.raises(wb.UsageError, match="normalises twice"):
        wb.load_model(saved(twice, tmp_path / "c.pt"))
    other = prefixed(network, "model.") | prefixed(trained(CifarNet()), "module.")
    with pytest.raises(wb.UsageError, match="two networks that differ"):
        wb.load_model(saved(other, tmp_path / "d.pt"))


def test_normalisation_of_our_own_files(tmp_path, tiny):
    wb.save_model(tiny, tmp_path / "net.safetensors")
    assert wb.load_model(tmp_path / "net.safetensors").loading["normaliser"] == "none"
    loaded = wb.load_model(tmp_path / "net.safetensors", mean=[0.5], std=[0.25])
    assert loaded.loading == {"source": "safetensors", "normaliser": "given", "notes": []}
    wb.save_model(loaded, tmp_path / "net.safetensors")
    assert wb.load_model(tmp_path / "net.safetensors").loading["normaliser"] == "checkpoint"
    with pytest.raises(wb.UsageError, match="twice"):
        wb.load_model(tmp_path / "net.safetensors", mean=[0.5], std=[0.25])
    with pytest.raises(wb.UsageError, match="has a card"):
        wb.load_model(tmp_path / "net.safetensors", architecture="resnet18")


class Brightness(nn.Module):
    """Tells bright images from dark ones by the sign of a feature."""

    def forward(self, x):
        return x.mean((1, 2, 3))[:, None]


def test_check_normalisation_finds_the_right_one():
    head = nn.Linear(1, 2)
    head.weight.data, head.bias.data = torch.tensor([[-1.0], [1.0]]), torch.zeros(2)
    model = wb.FeatureClassifier(Brightness(), head)
    images = torch.rand(200, 3, 4, 4) * 0.1 + torch.tensor([0.2, 0.7]).repeat(100)[:, None, None, None]
    labels = [0, 1] * 100
    check = check_normalisation(model, images, labels)
    assert check.accuracies["none"] == 50.0
    assert check.accuracies["half"] == check.accuracies["imagenet"] == 100.0
    assert check.current == "none"
    assert check.best == "imagenet"
    assert "use 'imagenet' rather than 'none': mean=(0.485, 0.456, 0.406)" in str(check)
    assert model.mean is None
    model.set_normalisation([0.45] * 3, [0.3] * 3)
    check = check_normalisation(model, images, torch.tensor(labels))
    assert (check.current, check.best, check.n) == ("own", "own", 200)
    assert str(check).endswith("keep 'own'")
    assert model.mean.flatten().tolist() == pytest.approx([0.45] * 3)
    for wrong in (images * 255, images[:0], images[:, :, 0]):
        with pytest.raises(wb.UsageError, match="images"):
            check_normalisation(model, wrong, labels)
    with pytest.raises(wb.UsageError, match=r"0 \.\. 1"):
        check_normalisation(model, images, [2] * 200)
    with pytest.raises(TypeError, match="FeatureClassifier"):
        check_normalisation(head, images, labels)
