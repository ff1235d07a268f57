"""Networks of other projects: the same function after loading, the architecture and the normaliser found."""

import sys

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import waterbed as wb
from waterbed.models.conversion import convert

MEAN, STD = torch.tensor([0.49, 0.48, 0.44]).double(), torch.tensor([0.2, 0.21, 0.19]).double()


class Block(nn.Module):
    """A residual block as networks for CIFAR have it; ``planes`` inside, ``expansion`` times as many outside."""

    def __init__(self, inputs, planes, stride, expansion):
        super().__init__()
        outputs = planes * expansion
        kernels = [(3, stride), (3, 1)] if expansion == 1 else [(1, 1), (3, stride), (1, 1)]
        widths = [inputs, *[planes] * (len(kernels) - 1), outputs]
        self.depth = len(kernels)
        for i, (kernel, step) in enumerate(kernels):
            conv = nn.Conv2d(widths[i], widths[i + 1], kernel, step, kernel // 2, bias=False)
            setattr(self, f"conv{i + 1}", conv)
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = x
        for i in range(1, self.depth + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            out = F.relu(out) if i < self.depth else F.relu(out + self.shortcut(x))
        return out


class CifarNet(nn.Module):
    """conv1, bn1, layer1 to layer4, linear."""

    def __init__(self, depths=(2, 2, 2, 2), width=4, expansion=1, channels=3, classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                planes = width * 2**stage
                blocks.append(Block(inputs, planes, 2 if stage and not i else 1, expansion))
                inputs = planes * expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return self.linear(F.avg_pool2d(out, 4).flatten(1))


class PreActNet(nn.Module):
    """A small network that create_model does not build, with its normaliser inside."""

    def __init__(self, classes=5):
        super().__init__()
        self.register_buffer("mu", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("sigma", torch.full((1, 3, 1, 1), 0.25))
        self.conv1, self.bn = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        x = self.conv1((x - self.mu) / self.sigma)
        return self.fc(F.silu(self.bn(x)).mean((2, 3)))


class TwoHeads(nn.Module):
    """Its logits are not those of one linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        return self.a(x) + self.b(x)


def trained(network):
    """Double precision, with statistics that training leaves."""
    network = network.double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return network


def prefixed(network, *prefixes):
    return {prefix + name: tensor for prefix in prefixes for name, tensor in network.state_dict().items()}


def madry(network, shape=(3, 1, 1)):
    """The state dict of a ``robustness`` model: twice the network, twice the normaliser."""
    state = prefixed(network, "module.model.", "module.attacker.model.")
    for place in ("module.normalizer.", "module.attacker.normalizer."):
        state |= {place + "new_mean": MEAN.reshape(shape), place + "new_std": STD.reshape(shape)}
    return state


def saved(content, path, **settings):
    torch.save(content, path, **settings)
    return path


@pytest.fixture
def images():
    return torch.rand(4, 3, 32, 32, dtype=torch.float64)


def agree(loaded, network, images, mean=MEAN, std=STD):
    """Whether the loaded network normalises and then computes what the foreign one does."""
    with torch.no_grad():
        expected = network((images - mean[:, None, None]) / std[:, None, None])
        got = loaded(images)
    assert not loaded.training
    assert isinstance(loaded, wb.FeatureClassifier)
    return torch.allclose(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("key", ["model", "state_dict"])
@pytest.mark.parametrize(
    ("depths", "expansion", "name"),
    [((2, 2, 2, 2), 1, "resnet18"), ((3, 4, 6, 3), 1, "resnet34"), ((3, 4, 6, 3), 4, "resnet50")],
)
def test_robustness_checkpoint_of_a_cifar_network(tmp_path, images, key, depths, expansion, name):
    network = trained(CifarNet(depths, 4, expansion))
    path = saved({key: madry(network), "epoch": 150, "optimizer": {"state": {}}}, tmp_path / "best.pt")
    loaded = wb.load_model(path)
    assert agree(loaded, network, images)
    assert loaded.architecture == {"name": name, "num_classes": 10, "stem": "cifar", "width": 4, "in_channels": 3}
    assert loaded.loading["source"] == "robustness"
    assert loaded.loading["normaliser"] == "checkpoint"
    assert "second copy" in loaded.loading["notes"][0]
    assert loaded.features(images).shape == (4, loaded.head.in_features)


def test_a_network_passed_to_robustness_as_a_module(tmp_path, images):
    network = trained(CifarNet())
    state = {name.replace(".model.", ".model.model."): tensor for name, tensor in madry(network).items()}
    assert agree(wb.load_model(saved({"model": state}, tmp_path / "a.pt"), "robustness"), network, images)


def test_checkpoint_in_the_older_file_format(tmp_path, images):
    network = trained(CifarNet())
    path = saved({"state_dict": madry(network)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert agree(wb.load_model(path), network, images)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (3, 1, 1)])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_robustbench_state_dict(tmp_path, images, shape, prefix):
    network = trained(CifarNet())
    state = {**prefixed(network, prefix), "mu": MEAN.reshape(shape), "sigma": STD.reshape(shape)}
    loaded = wb.load_model(saved(state, tmp_path / "a.pt"))
    assert agree(loaded, network, images)
    assert loaded.loading["source"] == "robustbench"
    assert loaded.loading["normaliser"] == "checkpoint"


def test_normalising_module_before_the_network(tmp_path, images):
    network = trained(CifarNet())
    state = prefixed(network, "model.") | {
        "normalize.mean": MEAN.reshape(1, 3, 1, 1),
        "normalize.std": STD.reshape(1, 3, 1, 1),
    }
    loaded = wb.load_model(saved(state, tmp_path / "a.pt"))
    assert agree(loaded, network, images)
    assert loaded.loading["source"] == "robustbench"


def test_torchvision_network_and_its_robust_twin(tmp_path):
    network = trained(torchvision.models.resnet18(weights=None, num_classes=7))
    images = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    plain = wb.load_model(saved(network.state_dict(), tmp_path / "a.pth"), mean=MEAN.tolist(), std=STD.tolist())
    assert agree(plain, network, images)
    assert plain.architecture["stem"] == "imagenet"
    assert plain.loading == {"source": "torchvision", "normaliser": "given", "notes": []}
    assert agree(wb.load_model(saved({"model": madry(network)}, tmp_path / "b.pt")), network, images)


def test_timm_resnet_is_torchvisions(tmp_path):
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet18", pretrained=False, num_classes=4)
    path = saved(network.state_dict(), tmp_path / "a.pth")
    images = torch.rand(2, 3, 64, 64)
    for architecture in (None, "resnet18"):
        loaded = wb.load_model(path, "timm", architecture=architecture)
        assert loaded.architecture["name"] == "resnet18"
        with torch.no_grad():
            assert torch.allclose(loaded(images), network.eval()(images), atol=1e-5)
    with pytest.raises(wb.UsageError, match=r"timm's 'resnet34' \(the file lacks 'backbone.layer1.2.conv1.weight'"):
        wb.load_model(path, architecture="resnet34")


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_timm_networks_by_name_and_back(tmp_path, name, suffix):
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, pretrained=False, num_classes=6).eval()
    path = tmp_path / f"a{suffix}"
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(network.state_dict(), path)
    with pytest.raises(wb.UsageError, match="architecture=, its name in timm"):
        wb.load_model(path)
    with pytest.raises(wb.UsageError, match="is unknown"):
        wb.load_model(path, architecture="no_such_network")
    images = torch.rand(2, 3, 160, 160)
    convert(path, tmp_path / "net.safetensors", architecture=name, mean=0, std=1)
    for loaded in (wb.load_model(path, architecture=name), wb.load_model(tmp_path / "net.safetensors")):
        with torch.no_grad():
            assert torch.allclose(loaded(images), network(images), atol=1e-5)


def test_timm_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    path = saved(prefixed(PreActNet(), ""), tmp_path / "a.pt")
    with pytest.raises(wb.UsageError, match="pip install timm"):
        wb.load_model(path, architecture="vit_tiny_patch16_224")


def test_our_own_state_dict_below_data_parallel(tmp_path, tiny):
    tiny.set_normalisation([0.2], [0.4])
    loaded = wb.load_model(saved(prefixed(tiny, "module."), tmp_path / "a.pt"))
    assert loaded.architecture == tiny.architecture
    assert loaded.loading["source"] == "plain"
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded(x), tiny(x))


@pytest.mark.parametrize("layout", ["foreign", "ours"])
def test_safetensors_without_a_card(tmp_path, images, layout):
    network = trained(CifarNet())
    state = network.state_dict()
    if layout == "ours":
        twin = wb.load_model(saved(state, tmp_path / "a.pt"), mean=MEAN.tolist(), std=STD.tolist())
        state = twin.state_dict()
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    given = {} if layout == "ours" else {"mean": MEAN, "std": STD}
    loaded = wb.load_model(tmp_path / "a.safetensors", "safetensors", **given)
    assert agree(loaded, network, images)
    assert loaded.loading["normaliser"] == ("checkpoint" if layout == "ours" else "given")


@pytest.mark.parametrize("name", ["resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2"])
@pytest.mark.parametrize(("stem", "width", "channels"), [("cifar", 2, 1), ("imagenet", 6, 3)])
def test_architecture_is_inferred(tmp_path, name, stem, width, channels):
    model = wb.create_model(name, 11, stem, width, channels, seed=1)
    state = model.backbone.state_dict() | {"fc.weight": model.head.weight, "fc.bias": model.head.bias}
    loaded = wb.load_model(saved(state, tmp_path / "a.pt"))
    assert loaded.architecture == model.architecture
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), loaded.parameters(), strict=True))


def test_old_half_precision_and_biasless_tensors(tmp_path, images):
    network = CifarNet().eval()
    state = {n: t.half() for n, t in network.state_dict().items() if "num_batches" not in n and n != "linear.bias"}
    loaded = wb.load_model(saved(state, tmp_path / "a.pt"))
    assert loaded.head.weight.dtype == torch.float32
    assert not loaded.head.bias.any()
    nn.init.zeros_(network.linear.bias)
    with torch.no_grad():
        assert torch.allclose(loaded(images.float()), network(images.float()), atol=1e-2)


def wide(groups=4):
    names = [f"block{b}.layer.{i}.conv1.weight" for b in (1, 2, 3) for i in range(groups)]
    return {"conv1.weight": torch.ones(16, 3, 3, 3), **{n: torch.ones(160, 16, 3, 3) for n in names}}


def preact():
    state = CifarNet().state_dict()
    return {n: t for n, t in state.items() if not n.startswith("bn1.") and "shortcut.1" not in n}


def grouped():
    state = CifarNet((3, 4, 6, 3), expansion=4).state_dict()
    return state | {"layer1.0.conv2.weight": torch.ones(4, 1, 3, 3)}


UNKNOWN = {
    "wide": (wide, r"a wide residual network \(WideResNet-28-10\)"),
    "pre-activation": (preact, r"pre-activation residual network \(PreActResNet\) with 2, 2, 2, 2 basic blocks"),
    "deep": (lambda: CifarNet((3, 8, 36, 3), 2, 4).state_dict(), "3, 8, 36, 3 bottleneck blocks"),
    "grouped": (grouped, r"look like 'resnet50' .* 'layer1.0.conv2.weight' \(4, 1, 3, 3\) in place of"),
    "transformer": (lambda: {"pos_embed": torch.ones(1, 5, 4)}, "a vision transformer"),
    "no head": (
        lambda: {n: t for n, t in CifarNet().state_dict().items() if not n.startswith("linear")},
        "without a linear head",
    ),
    "odd stem": (lambda: CifarNet().state_dict() | {"conv1.weight": torch.ones(4, 3, 5, 5)}, "with a stem that"),
    "attention in blocks": (
        lambda: CifarNet().state_dict() | {"layer1.0.se.fc1.weight": torch.ones(2, 4, 1, 1)},
        "has 'layer1.0.se.fc1.weight' besides",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_other_networks_are_described_and_refused(tmp_path, case):
    make, said = UNKNOWN[case]
    with pytest.raises(wb.UsageError, match=said) as caught:
        wb.load_model(saved(make(), tmp_path / "a.pt"))
    assert "pass model=, an instance" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_instance_is_filled_and_its_normaliser_moves_out(tmp_path, images):
    network = trained(PreActNet())
    network.mu.fill_(0.4)
    path = saved({"model": prefixed(network, "module.")}, tmp_path / "a.pt")
    with pytest.raises(wb.UsageError, match="pass model="):
        wb.load_model(path)
    mine = PreActNet().double()
    loaded = wb.load_model(path, model=mine)
    with torch.no_grad():
        assert torch.allclose(loaded(images), network(images), atol=1e-12)
        assert torch.allclose(mine.eval()(images), network(images), atol=1e-12)
    assert loaded.mean.flatten().tolist() == pytest.approx([0.4] * 3)
    assert loaded.features(images).shape == (4, 6)
    assert not loaded.backbone.mu.any()
    assert loaded.loading["normaliser"] == "checkpoint"


def test_an_instance_keeps_the_normaliser_that_its_file_lacks(tmp_path, images):
    network = trained(PreActNet())
    path = saved({n: t for n, t in network.state_dict().items() if n not in ("mu", "sigma")}, tmp_path / "a.pt")
    loaded = wb.load_model(path, model=PreActNet().double())
    with torch.no_grad():
        assert torch.allclose(loaded(images), network(images), atol=1e-12)
    assert loaded.loading["normaliser"] == "given"
    with pytest.raises(wb.UsageError, match="model=PreActNet has a normaliser"):
        wb.load_model(path, model=PreActNet(), mean=0.5, std=0.5)


def test_a_feature_classifier_instance_takes_foreign_names(tmp_path, images):
    network = trained(CifarNet())
    path = saved({"model": madry(network)}, tmp_path / "a.pt")
    mine = wb.create_model("resnet18", 10, width=4).double()
    loaded = wb.load_model(path, model=mine)
    assert loaded is mine
    assert agree(mine, network, images)
    backbone = trained(CifarNet())
    backbone.linear = nn.Identity()
    loaded = wb.load_model(path, model=wb.FeatureClassifier(backbone, nn.Linear(32, 10).double()))
    assert agree(loaded, network, images)


def test_instances_that_do_not_fit(tmp_path):
    path = saved(TwoHeads().state_dict(), tmp_path / "a.pt")
    with pytest.raises(wb.UsageError, match=r"model=TwoHeads cannot be taken apart .*FeatureClassifier\(backbone"):
        wb.load_model(path, model=TwoHeads())
    mine = PreActNet()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    with pytest.raises(wb.UsageError, match="do not fit model=PreActNet"):
        wb.load_model(path, model=mine)
    assert all(torch.equal(before[name], tensor) for name, tensor in mine.state_dict().items())
