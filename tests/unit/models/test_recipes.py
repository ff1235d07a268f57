"""create_model by the names of other packages' networks, and the networks of published robust checkpoints."""

import sys

import pytest
import torch

import waterbed as wb

NETWORK = """
from torch import nn

def make(num_classes, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, num_classes))

def everything(**settings):
    assert set(settings) == {"num_classes", "in_channels", "image_size"}
    return make(settings["num_classes"], settings["in_channels"])

def nothing():
    return nn.Flatten()

def no_network(num_classes):
    return num_classes

number = 3
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A module of one's own in the working directory, imported by nobody yet."""
    (tmp_path / "own_networks.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_networks", None)


# In millions, with 10 classes: Zagoruyko and Komodakis 2016, RobustBench, and pytorch-cifar's PreActResNet18.
PUBLISHED = {
    "wide_resnet28_10": 36.48,
    "wide_resnet34_10": 46.16,
    "wide_resnet70_16": 266.80,
    "preact_resnet18": 11.17,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_of_weights_are_the_published_ones(name):
    with torch.device("meta"):
        model = wb.create_model(name, 10)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == PUBLISHED[name]
    assert model.architecture == {"name": name, "num_classes": 10, "in_channels": 3}


def test_the_widest_resnet50_has_the_published_number_of_weights():
    with torch.device("meta"):
        model = wb.create_model("wide_resnet50_4", 1000, "imagenet")
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 223


@pytest.mark.parametrize("name", ["wide_resnet10_1", "preact_resnet18", "timm:resnet10t", "own_networks:everything"])
def test_weights_come_back_from_the_name_in_the_card(name, own_code):
    pytest.importorskip("timm")
    model = wb.create_model(name, 5, in_channels=1, image_size=8, seed=0).eval()
    x = torch.rand(2, 1, 8, 8)
    wb.save_model(model, own_code / "model.safetensors")
    sys.modules.pop("own_networks", None)
    loaded = wb.load_model(own_code / "model.safetensors")
    assert torch.equal(loaded(x), model(x))
    assert loaded.architecture == model.architecture
    again = wb.create_model(name, 5, in_channels=1, image_size=8, seed=0).eval()
    assert torch.equal(again(x), model(x)), "the seed decides the weights"


def test_a_network_for_one_size():
    pytest.importorskip("timm")
    model = wb.create_model("timm:vit_tiny_patch16_224", 3, image_size=32)
    assert model.input_shape == (3, 32, 32)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(wb.UsageError, match=r"model=SwinTransformer takes no images .*\(3, 1, 1\)"):
        wb.create_model("timm:swin_tiny_patch4_window7_224", 3, image_size=1)


def test_a_function_takes_what_it_names(own_code):
    model = wb.create_model("own_networks:make", 3, in_channels=1, image_size=8)
    assert model.head.out_features == 3
    assert str(own_code) not in sys.path


REFUSED = {
    "timm:vit_tiny_patch16_22": "did you mean .*'vit_tiny_patch16_224'",
    "own_networks:nowhere": "cannot be imported .*write package.module:function",
    "no_such_module:make": "No module named 'no_such_module'",
    "own_networks:nothing": "cannot be called with 'num_classes' .*, and 'in_channels' and 'image_size' if it likes",
    "own_networks:no_network": "returns int; it must return an nn.Module",
    "own_networks:number": "is int, not a function",
    "own networks:make": "is no name of a function",
    ":": "is no name of a function",
    "wide_resnet29_1": "depth 29, which must be 6n",
    "wide_resnet28_0": "is unknown; choose one of .*timm:NAME",
}


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_build_nothing_are_refused_in_one_line(name, own_code):
    with pytest.raises(wb.UsageError, match=REFUSED[name]) as caught:
        wb.create_model(name, 3, image_size=8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["timm:resnet10t", "preact_resnet18"])
def test_settings_that_would_do_nothing_are_refused(name):
    with pytest.raises(wb.UsageError, match=r"stem='cifar' and width=32 are for resnet10"):
        wb.create_model(name, 3, width=32)


def test_timm_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(wb.UsageError, match="needs timm; pip install timm"):
        wb.create_model("timm:resnet10t", 3)


def test_a_card_of_a_repository_imports_nothing(own_code, monkeypatch):
    wb.save_model(wb.create_model("own_networks:make", 3, image_size=8), own_code / "model.safetensors")
    sys.modules.pop("own_networks", None)
    monkeypatch.setattr(
        "waterbed.models.checkpoints.find_weights", lambda name, download: (own_code / "model.safetensors", {})
    )
    with pytest.raises(wb.UsageError, match="comes from a repository and would import 'own_networks:make'"):
        wb.load_model("owner/name")
    assert "own_networks" not in sys.modules


def test_weights_without_a_recipe_say_what_to_do(tmp_path):
    wb.save_model(torch.nn.Linear(2, 2), tmp_path / "model.safetensors")
    with pytest.raises(wb.UsageError, match=r"pass model=, an instance .*train --model package\.module:function"):
        wb.load_model(tmp_path / "model.safetensors")
