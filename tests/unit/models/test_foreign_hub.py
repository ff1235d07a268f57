"""Networks in Hugging Face repositories, on a server on the loopback address: nothing is downloaded unasked."""

import io
import json
import sys
from argparse import Namespace

import pytest
import torch
import torchvision
from tests.hub_server import Hub, use
from tests.unit.models.test_foreign import MEAN, STD, CifarNet, agree, madry, trained

import waterbed as wb
from waterbed.__main__ import main
from waterbed.models.architectures import infer_architecture
from waterbed.models.hub import find_weights

pytest.importorskip("huggingface_hub")
ROBUST = "madrylab/robust-imagenet-models"


def packed(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with Hub() as server:
        use(server.address, tmp_path / "cache", monkeypatch)
        yield server


def test_repository_is_downloaded_only_when_asked(hub):
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    network = trained(CifarNet())
    config = {"architecture": "resnet18", "pretrained_cfg": {"mean": MEAN.tolist(), "std": STD.tolist()}}
    state = packed({"state_dict": network.state_dict()})
    hub.add("owner/name", {"pytorch_model.bin": state, "config.json": json.dumps(config).encode()})
    for name, source in (("owner/name", "auto"), ("owner/name", "huggingface"), ("hf:owner/name", "auto")):
        with pytest.raises(wb.UsageError, match=rf"'{name}'.*pass download=True"):
            wb.load_model(name, source)
    assert not hub.requests
    loaded = wb.load_model("owner/name", download=True)
    assert agree(loaded, network, images)
    assert loaded.loading["normaliser"] == "checkpoint"
    assert "config.json" in loaded.loading["notes"][0]
    given = wb.load_model("owner/name", "huggingface", mean=0, std=1, download=True)
    assert given.loading == {"source": "huggingface", "normaliser": "given", "notes": []}


def test_cached_repository_needs_no_download_and_keeps_our_card(tmp_path, tiny, hub):
    wb.save_model(tiny, tmp_path / "model.safetensors")
    files = {name: (tmp_path / name).read_bytes() for name in ("model.safetensors", "model.json")}
    hub.add("owner/name", files)
    assert find_weights("owner/name", download=True) is not None
    hub.requests.clear()
    loaded = wb.load_model("owner/name")
    assert torch.equal(loaded.head.weight, tiny.head.weight)
    assert loaded.architecture == tiny.architecture
    assert not hub.requests


@pytest.fixture(scope="module")
def published():
    """Repository as the robust ImageNet networks are published: network and normaliser twice, one file an eps."""
    networks = {
        f"resnet18_l2_eps{eps}.ckpt": trained(torchvision.models.resnet18(weights=None, num_classes=20)).float()
        for eps in (1, 5)
    }
    files = {}
    for name, network in networks.items():
        state = {key: value.float() if value.is_floating_point() else value for key, value in madry(network).items()}
        files[name] = packed({"model": state, "epoch": 90, "optimizer": {"state": {}, "param_groups": []}})
    return networks, {"README.md": b"# Robust networks", **files}


def test_robust_imagenet_networks_by_name(hub, published):
    networks, files = published
    hub.add(ROBUST, files)
    with pytest.raises(wb.UsageError, match=r"has none of model\.safetensors") as caught:
        wb.load_model(f"hf:{ROBUST}", download=True)
    assert "but resnet18_l2_eps1.ckpt, resnet18_l2_eps5.ckpt; name one" in str(caught.value)
    assert f"such as 'hf:{ROBUST}:resnet18_l2_eps1.ckpt'" in str(caught.value)
    images = torch.rand(2, 3, 64, 64)
    normalised = (images - MEAN.float()[:, None, None]) / STD.float()[:, None, None]
    for file, network in networks.items():
        loaded = wb.load_model(f"hf:{ROBUST}:{file}", download=True)
        with torch.no_grad():
            expected = network(normalised)
            assert torch.allclose(loaded(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert loaded.architecture["name"] == "resnet18"
        assert loaded.loading["source"] == "robustness"
        assert loaded.input_shape == (3, 224, 224)
    hub.requests.clear()
    wb.load_model(f"hf:{ROBUST}:resnet18_l2_eps1.ckpt")
    with pytest.raises(wb.UsageError, match=r"no file 'resnet18_l2_eps3\.ckpt' in the local cache, but resnet18_l2"):
        wb.load_model(f"hf:{ROBUST}:resnet18_l2_eps3.ckpt")
    assert not hub.requests, "the cache answers without a connection"
    with pytest.raises(wb.UsageError, match=r"no file 'resnet18_l2_eps3\.ckpt', but resnet18_l2_eps1\.ckpt"):
        wb.load_model(f"hf:{ROBUST}:resnet18_l2_eps3.ckpt", download=True)


@pytest.mark.parametrize(
    ("name", "block", "depths", "width"),
    [
        ("resnet18", "BasicBlock", [2, 2, 2, 2], 64),
        ("resnet50", "Bottleneck", [3, 4, 6, 3], 64),
        ("wide_resnet50_2", "Bottleneck", [3, 4, 6, 3], 128),
        ("wide_resnet50_4", "Bottleneck", [3, 4, 6, 3], 256),
    ],
)
def test_published_sizes_are_recognised(name, block, depths, width):
    resnet = torchvision.models.resnet
    with torch.device("meta"):
        theirs = resnet.ResNet(getattr(resnet, block), depths, width_per_group=width).state_dict()
        architecture = infer_architecture(theirs)
        ours = wb.create_model(**architecture).backbone.state_dict()
    assert architecture["name"] == name
    assert architecture["num_classes"] == 1000
    shapes = {key: tensor.shape for key, tensor in theirs.items() if not key.startswith("fc.")}
    assert {key: tensor.shape for key, tensor in ours.items()} == shapes


def test_a_robust_network_of_other_classes_is_refused_by_file_and_tensor(hub, published):
    hub.add(ROBUST, published[1])
    mine = wb.create_model("resnet18", 10, "imagenet")
    with pytest.raises(
        wb.UsageError, match=r"resnet18_l2_eps1\.ckpt.*'fc\.weight' \(20, 512\) in place of 'head\.weight' \(10, 512\)"
    ):
        wb.load_model(f"hf:{ROBUST}:resnet18_l2_eps1.ckpt", model=mine, download=True)


class Settings(dict):
    """What training scripts leave beside the weights."""


def test_a_file_that_cannot_be_read_without_more_than_weights_says_how_to_convert_it(hub):
    hub.add(ROBUST, {"resnet18_l2_eps0.ckpt": packed({"model": madry(CifarNet()), "args": Settings(lr=1)})})
    with pytest.raises(
        wb.UsageError, match=r"holds more than weights.*`waterbed convert /.*resnet18_l2_eps0\.ckpt --out"
    ):
        wb.load_model(f"hf:{ROBUST}:resnet18_l2_eps0.ckpt", download=True)


def test_timms_networks_by_name(hub):
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=6, img_size=224).eval()
    hub.add("timm/vit", {"pytorch_model.bin": packed(network.state_dict())})
    images = torch.rand(1, 3, 224, 224)
    for name in ("timm:vit_tiny_patch16_224", "vit_tiny_patch16_224"):
        loaded = wb.load_model("hf:timm/vit", architecture=name, mean=0.5, std=0.5, download=True)
        with torch.no_grad():
            assert torch.allclose(loaded(images), network((images - 0.5) / 0.5), atol=1e-5)


def test_repositories_that_cannot_be_had(hub, monkeypatch):
    hub.add("owner/empty", {"README.md": b"nothing"})
    with pytest.raises(wb.UsageError, match=r"has none of model\.safetensors.*and no other weights"):
        wb.load_model("owner/empty", download=True)
    with pytest.raises(wb.UsageError, match=r"cannot be fetched .*check the name"):
        wb.load_model("owner/nowhere", download=True)
    for name, source in (("name", "huggingface"), ("hf:name", "auto"), ("hf:a/b/c", "auto"), ("hf:a/b:", "auto")):
        with pytest.raises(wb.UsageError, match="is no Hugging Face repository"):
            wb.load_model(name, source)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(wb.UsageError, match="pip install huggingface_hub"):
        wb.load_model("owner/name", "huggingface")


def test_commands_fetch_a_network_when_asked(hub, tmp_path, capsys):
    hub.add(ROBUST, {"net.ckpt": packed({"model": madry(CifarNet()), "args": Namespace(eps=1.0)})})
    name, out = f"hf:{ROBUST}:net.ckpt", tmp_path / "found.json"
    words = f"evaluate {name} --data digits --num-samples 8 --steps 1 --out {out}".split()
    assert main(words) == 2
    assert "is not in the local Hugging Face cache; pass --download" in capsys.readouterr().err
    assert not hub.requests
    assert main([*words, "--download"]) == 0
    hub.requests.clear()
    for words in (
        f"measure {name} --data digits --num-samples 2 --quantities input_fisher_trace",
        f"choose --target digits --backbones {name} --num-samples 40",
        f"distance digits digits --extractor {name} --num-samples 20",
        f"invert {name} --data digits --steps 1 --num-images 1 --mode plain --out {tmp_path / 'inverted'}",
        f"transfer {name} --targets digits --mode linear --seeds 0 --num-train 40",
    ):
        assert main(words.split()) == 0, words
    assert not hub.requests, "the cache answers without a connection"
