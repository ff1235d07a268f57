"""Published robust checkpoints of pre-activation networks: key names and forward passes stated once more, plainly."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from tests.unit.models.test_foreign import MEAN, STD, agree, prefixed, saved, trained
from torch import nn

import waterbed as wb


def conv(inputs, outputs, side=3, stride=1, padding=1):
    return nn.Conv2d(inputs, outputs, side, stride, padding, bias=False)


class Parts(nn.Module):
    """Children by name, without a forward pass."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


class Trades(Parts):
    """conv1; block1 to block3 with .layer.N of bn1, conv1, bn2, conv2, convShortcut; bn1; fc. sub_block1 never runs."""

    def __init__(self, blocks=1, factor=2, classes=10, bias=True, spare=True):
        widths = [16, 16 * factor, 32 * factor, 64 * factor]
        super().__init__(conv1=conv(3, 16))
        for i in (1, 2, 3):
            self.add_module(f"block{i}", self.stage(blocks, widths[i - 1], widths[i]))
            if i == 1 and spare:
                self.sub_block1 = self.stage(blocks, widths[0], widths[1])
        self.bn1, self.fc = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], classes, bias)

    def stage(self, blocks, inputs, outputs):
        layers = []
        for i in range(blocks):
            block = Parts(bn1=nn.BatchNorm2d(inputs), conv1=conv(inputs, outputs, stride=1))
            block.add_module("bn2", nn.BatchNorm2d(outputs))
            block.add_module("conv2", conv(outputs, outputs))
            if i == 0:
                block.convShortcut = conv(inputs, outputs, 1, padding=0)
            layers.append(block)
            inputs = outputs
        return Parts(layer=nn.Sequential(*layers))

    def forward(self, x):
        x = self.conv1(x)
        for i in (1, 2, 3):
            for j, block in enumerate(self.get_submodule(f"block{i}").layer):
                stride = 2 if i > 1 and j == 0 else 1
                h = F.relu(block.bn1(x))
                skip = F.conv2d(h, block.convShortcut.weight, stride=stride) if j == 0 else x
                h = F.conv2d(h, block.conv1.weight, stride=stride, padding=1)
                x = block.conv2(F.relu(block.bn2(h))) + skip
        return self.fc(F.avg_pool2d(F.relu(self.bn1(x)), 8).flatten(1))


class PyTorchCifar(Parts):
    """conv1; layer1 to layer4 of bn1, conv1, bn2, conv2, shortcut.0; (bn); linear."""

    def __init__(self, raw=False, normalised=False, classes=10):
        super().__init__(conv1=conv(3, 64))
        self.raw, inputs = raw, 64
        for i, outputs in enumerate((64, 128, 256, 512), start=1):
            layers = []
            for j in (0, 1):
                block = Parts(bn1=nn.BatchNorm2d(inputs), conv1=conv(inputs, outputs))
                block.add_module("bn2", nn.BatchNorm2d(outputs))
                block.add_module("conv2", conv(outputs, outputs))
                if i > 1 and j == 0:
                    block.shortcut = nn.Sequential(conv(inputs, outputs, 1, padding=0))
                layers.append(block)
                inputs = outputs
            self.add_module(f"layer{i}", nn.Sequential(*layers))
        if normalised:
            self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, classes)

    def forward(self, x):
        x = self.conv1(x)
        for i in (1, 2, 3, 4):
            for j, block in enumerate(self.get_submodule(f"layer{i}")):
                first = i > 1 and j == 0
                stride = 2 if first else 1
                h = F.relu(block.bn1(x))
                skip = F.conv2d(x if self.raw else h, block.shortcut[0].weight, stride=stride) if first else x
                h = F.conv2d(h, block.conv1.weight, stride=stride, padding=1)
                x = block.conv2(F.relu(block.bn2(h))) + skip
        if hasattr(self, "bn"):
            x = F.relu(self.bn(x))
        return self.linear(F.avg_pool2d(x, 4).flatten(1))


def same_conv(x, kernel, stride):
    """A 3 x 3 convolution with TensorFlow's padding."""
    return F.conv2d(F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)), kernel, stride=stride)


class DeepMindWide(Parts):
    """init_conv; layer.S.block.N of batchnorm_0, conv_0, batchnorm_1, conv_1, shortcut; batchnorm; logits."""

    def __init__(self, blocks=1, factor=2, classes=10):
        widths = [16, 16 * factor, 32 * factor, 64 * factor]
        super().__init__(init_conv=conv(3, 16))
        stages = []
        for inputs, outputs in pairwise(widths):
            layers = []
            for j in range(blocks):
                inside = inputs if j == 0 else outputs
                block = Parts(batchnorm_0=nn.BatchNorm2d(inside), conv_0=conv(inside, outputs))
                block.add_module("batchnorm_1", nn.BatchNorm2d(outputs))
                block.add_module("conv_1", conv(outputs, outputs))
                if j == 0:
                    block.shortcut = conv(inputs, outputs, 1, padding=0)
                layers.append(block)
            stages.append(Parts(block=nn.Sequential(*layers)))
        self.layer = nn.Sequential(*stages)
        self.batchnorm, self.logits = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], classes)

    def forward(self, x):
        x = self.init_conv(x)
        for i, stage in enumerate(self.layer):
            for j, block in enumerate(stage.block):
                stride = 2 if i > 0 and j == 0 else 1
                h = F.silu(block.batchnorm_0(x))
                skip = F.conv2d(h, block.shortcut.weight, stride=stride) if j == 0 else x
                h = same_conv(h, block.conv_0.weight, stride)
                x = block.conv_1(F.silu(block.batchnorm_1(h))) + skip
        return self.logits(F.avg_pool2d(F.silu(self.batchnorm(x)), 8).flatten(1))


class DeepMindPreAct(Parts):
    """conv_2d; layer_0 to layer_3 of batchnorm_0, conv_2d_1, batchnorm_1, conv_2d_2, shortcut (3 x 3); ..."""

    def __init__(self, classes=10):
        super().__init__(conv_2d=conv(3, 64))
        inputs = 64
        for i, outputs in enumerate((64, 128, 256, 512)):
            layers = []
            for j in (0, 1):
                block = Parts(batchnorm_0=nn.BatchNorm2d(inputs), conv_2d_1=conv(inputs, outputs))
                block.add_module("batchnorm_1", nn.BatchNorm2d(outputs))
                block.add_module("conv_2d_2", conv(outputs, outputs))
                if i > 0 and j == 0:
                    block.shortcut = conv(inputs, outputs)
                layers.append(block)
                inputs = outputs
            self.add_module(f"layer_{i}", nn.Sequential(*layers))
        self.batchnorm, self.logits = nn.BatchNorm2d(512), nn.Linear(512, classes)

    def forward(self, x):
        x = self.conv_2d(x)
        for i in range(4):
            for j, block in enumerate(self.get_submodule(f"layer_{i}")):
                first = i > 0 and j == 0
                stride = 2 if first else 1
                h = F.silu(block.batchnorm_0(x))
                skip = same_conv(x, block.shortcut.weight, stride) if first else x
                h = same_conv(h, block.conv_2d_1.weight, stride)
                x = block.conv_2d_2(F.silu(block.batchnorm_1(h))) + skip
        return self.logits(F.avg_pool2d(F.silu(self.batchnorm(x)), 4).flatten(1))


# The network and the name under which it is built.
NETWORKS = {
    "wide": (lambda: Trades(), "wide_resnet10_2"),
    "deeper, without the spare stage, without a bias": (lambda: Trades(2, 2, 7, False, False), "wide_resnet16_2"),
    "preact": (lambda: PyTorchCifar(), "preact_resnet18"),
    "preact, normalised": (lambda: PyTorchCifar(normalised=True), "preact_resnet18_bn"),
    "DeepMind": (lambda: DeepMindWide(2, 2, 100), "dm_wide_resnet16_2"),
    "DeepMind, preact": (lambda: DeepMindPreAct(), "dm_preact_resnet18"),
}


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, dtype=torch.float64)


@pytest.mark.parametrize("case", NETWORKS)
def test_pre_activation_networks(tmp_path, images, case):
    make, name = NETWORKS[case]
    network = trained(make())
    path = saved({"state_dict": prefixed(network, "module.")}, tmp_path / "a.pt")
    loaded = wb.load_model(path, mean=MEAN.tolist(), std=STD.tolist())
    assert agree(loaded, network, images)
    assert loaded.architecture["name"] == name
    assert loaded.loading["source"] == "plain"
    wb.save_model(loaded, tmp_path / "ours.safetensors")
    assert torch.equal(wb.load_model(tmp_path / "ours.safetensors")(images), loaded(images))


PLACES = {
    "buffers": ("", "mu", "sigma"),
    "buffers under DataParallel": ("module.", "module.mu", "module.sigma"),
    "Sequential": ("1.", "0.mean", "0.std"),
    "Sequential under DataParallel": ("module.1.", "module.0.mean", "module.0.std"),
    "normalize_model": ("model.", "normalize.mean", "normalize.std"),
}


@pytest.mark.parametrize("place", PLACES)
def test_normalisers_of_a_wide_network(tmp_path, images, place):
    prefix, mean, std = PLACES[place]
    network = trained(Trades())
    state = prefixed(network, prefix) | {mean: MEAN.reshape(1, 3, 1, 1), std: STD.reshape(1, 3, 1, 1)}
    loaded = wb.load_model(saved(state, tmp_path / "a.pt"))
    assert agree(loaded, network, images)
    assert loaded.loading["source"] == "robustbench"
    assert any("sub_block1" in note for note in loaded.loading["notes"])


def test_projections_of_the_input_are_chosen_by_name(tmp_path, images):
    network = trained(PyTorchCifar(raw=True))
    path = saved({"last": network.state_dict()}, tmp_path / "a.pt")
    assumed = wb.load_model(path, mean=MEAN, std=STD)
    assert not agree(assumed, network, images)
    assert any("architecture='preact_resnet18_rawskip'" in note for note in assumed.loading["notes"])
    loaded = wb.load_model(path, mean=MEAN, std=STD, architecture="preact_resnet18_rawskip")
    assert agree(loaded, network, images)
    assert loaded.architecture["name"] == "preact_resnet18_rawskip"
    with pytest.raises(wb.UsageError, match=r"a\.pt.*look like 'wide_resnet10_1' but do not fit"):
        wb.load_model(path, architecture="wide_resnet10_1")


def test_deepminds_networks_say_what_their_files_lack(tmp_path):
    path = saved(DeepMindWide().state_dict(), tmp_path / "a.pt")
    notes = wb.load_model(path).loading["notes"]
    assert "SiLU is assumed" in notes
    assert any("std=(0.2471, 0.2435, 0.2616) for CIFAR-10" in note for note in notes)
    assert wb.load_model(path, mean=MEAN, std=STD).loading["notes"] == ["SiLU is assumed"]


def test_an_instance_takes_their_names(tmp_path, images):
    network = trained(DeepMindWide())
    mine = wb.create_model("dm_wide_resnet10_2", 10).double()
    loaded = wb.load_model(saved(network.state_dict(), tmp_path / "a.pt"), model=mine, mean=MEAN, std=STD)
    assert loaded is mine
    assert agree(mine, network, images)


def test_another_number_of_classes_names_file_and_tensor(tmp_path):
    path = saved(Trades(classes=10).state_dict(), tmp_path / "a.pt")
    with pytest.raises(wb.UsageError, match=r"a\.pt.*'fc\.weight' \(10, 128\) in place of 'head\.weight' \(100, 128\)"):
        wb.load_model(path, model=wb.create_model("wide_resnet10_2", 100))


def test_networks_of_deepmind_have_the_published_numbers_of_weights():
    with torch.device("meta"):
        sizes = {name: wb.create_model(name, 10) for name in ("dm_wide_resnet28_10", "dm_wide_resnet70_16")}
    assert [round(sum(p.numel() for p in m.parameters()) / 1e6, 2) for m in sizes.values()] == [36.48, 266.8]
