"""wrap: the same function with its features and head apart, for the ordinary architectures and for odd ones."""

import copy

import pytest
import torch
import torchvision
from tests.unit.models.networks import NETWORKS, CosineHead, small_cnn, timm_network
from torch import nn

import waterbed as wb


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay_the_same_bit_for_bit(name):
    make, side = NETWORKS[name]
    network = make()
    before = copy.deepcopy(network.state_dict())
    x = torch.rand(3, 3, side, side)
    model = wb.wrap(network, image_shape=(3, side, side))
    assert network.training
    assert model.training
    for mode in (True, False):
        with torch.no_grad():
            torch.manual_seed(0)
            expected = network.train(mode)(x)
            network.load_state_dict(before)
            torch.manual_seed(0)
            assert torch.equal(model.train(mode)(x), expected)
            network.load_state_dict(before)
    with torch.no_grad():
        assert torch.equal(model.head(model.features(x)), expected)
    assert model.features(x).ndim == 2
    assert isinstance(model.head, nn.Linear) == (name != "non-linear head")
    if "timm" in name:
        with torch.no_grad():
            pooled = network.forward_head(network.forward_features(x), pre_logits=True)
            assert torch.equal(model.features(x), pooled)
            assert model.head is not network.get_classifier()
    assert {id(p) for p in model.parameters()} == {id(p) for p in network.parameters()}, "the weights are shared"


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_found(name):
    make, side = NETWORKS[name]
    model = wb.wrap(make().eval())
    assert model(torch.rand(2, 3, side, side)).shape == (2, 10)
    assert model.input_shape in (None, (3, side, side))


def test_shapes_that_a_network_fixes():
    assert wb.wrap(nn.Sequential(nn.Flatten(), nn.Linear(784, 5))).input_shape == (1, 28, 28)
    assert wb.wrap(small_cnn()).input_shape is None
    assert wb.wrap(NETWORKS["timm vit_tiny"][0]()).input_shape == (3, 64, 64)


def test_only_what_it_is_asked_for_changes():
    model = wb.FeatureClassifier(nn.Flatten(), nn.Linear(12, 3))
    assert wb.wrap(model) is model
    x = torch.rand(2, 3, 2, 2)
    normalised = wb.wrap(model, [0.5] * 3, [0.25] * 3)
    assert model.mean is None
    assert torch.equal(normalised(x), model((x - 0.5) / 0.25))
    assert normalised.head.weight is model.head.weight
    with pytest.raises(wb.UsageError, match=r"normalise twice"):
        wb.wrap(normalised, [0.5] * 3, [0.25] * 3)


def test_normalisation_of_timm_only_where_asked():
    network = timm_network("resnet10t")().eval()
    x = torch.rand(2, 3, 32, 32)
    assert wb.wrap(network).mean is None
    model = wb.wrap(network, "pretrained_cfg")
    mean, std = (torch.tensor(network.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    assert torch.equal(model(x), network((x - mean) / std))
    with pytest.raises(wb.UsageError, match=r"model=Sequential has none; pass numbers"):
        wb.wrap(small_cnn(), "pretrained_cfg")
    with pytest.raises(wb.UsageError, match=r"leave std out"):
        wb.wrap(network, "pretrained_cfg", [1.0] * 3)


def test_a_head_by_name():
    network = nn.Sequential(small_cnn(6), nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))).eval()
    x = torch.rand(2, 3, 32, 32)
    assert wb.wrap(network).features(x).shape == (2, 4), "the last linear layer"
    model = wb.wrap(network, head="1")
    assert torch.equal(model.features(x), network[0](x))
    assert torch.equal(model(x), network(x))
    with pytest.raises(wb.UsageError, match="head='5x' is unknown"):
        wb.wrap(network, head="5x")
    with pytest.raises(wb.UsageError, match=r"when '1\.0' is taken as the head"):
        wb.wrap(network, head="1.0")


class Raw(nn.Module):
    """The last layer's output goes through one operation more."""

    def __init__(self, change):
        super().__init__()
        self.fc, self.change = nn.Linear(12, 3), change

    def forward(self, x):
        return self.change(self.fc(x.flatten(1)))


class Distilled(nn.Module):
    """The mean of two heads."""

    def __init__(self):
        super().__init__()
        self.head, self.head_dist = nn.Linear(3072, 3), nn.Linear(3072, 3)

    def forward(self, x):
        return (self.head(x.flatten(1)) + self.head_dist(x.flatten(1))) / 2


class Tied(nn.Module):
    """The last layer is also called earlier."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 12)

    def forward(self, x):
        return self.fc(self.fc(x.flatten(1)).relu())


SHAPE = (3, 2, 2)
REFUSED = {
    "softmax": (lambda: wb.wrap(Raw(lambda y: y.softmax(1)), image_shape=SHAPE), "not that of an nn.Linear"),
    "in place": (lambda: wb.wrap(Raw(lambda y: y.relu_()), image_shape=SHAPE), "not that of an nn.Linear"),
    "two heads": (lambda: wb.wrap(Distilled()), "not that of an nn.Linear"),
    "called twice": (lambda: wb.wrap(Tied(), image_shape=SHAPE), "its output changes"),
    "a tuple": (lambda: wb.wrap(Raw(lambda y: (y, y)), image_shape=SHAPE), "gives tuple for two images"),
    "no logits": (lambda: wb.wrap(nn.Conv2d(3, 2, 1)), "not logits"),
    "no weights": (lambda: wb.wrap(nn.Flatten()), "has no weights"),
    "no module": (lambda: wb.wrap(torch.relu), "must be an nn.Module"),
    "no such images": (lambda: wb.wrap(nn.Linear(7, 3)), "takes no images of the shapes tried"),
    "wrong shape": (lambda: wb.wrap(small_cnn(), image_shape=(1, 8, 8)), "takes no images"),
    "maps of any size": (lambda: wb.wrap(torchvision.models.squeezenet1_1(num_classes=3)), r"pass image_shape="),
    "mean alone": (lambda: wb.wrap(small_cnn(), [0.5] * 3), "belong together"),
    "Lemma 5.1": (
        lambda: wb.fisher_bounds(wb.wrap(CosineHead()), torch.rand(2, 3, 8, 8)),
        "Lemma 5.1 is about a linear one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_split_is_refused_in_one_line(case):
    action, message = REFUSED[case]
    with pytest.raises((wb.UsageError, TypeError), match=message) as caught:
        action()
    assert "\n" not in str(caught.value)


def test_a_head_of_maps_when_the_size_is_known():
    network = torchvision.models.squeezenet1_1(num_classes=3).eval()
    model = wb.wrap(network, image_shape=(3, 64, 64))
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(model(x), network(x))
    assert model.features(x).shape == (2, 512 * 3 * 3)


def test_buffers_and_modes_are_left_alone():
    network = small_cnn()
    before = copy.deepcopy(network.state_dict())
    network[1].eval()
    model = wb.wrap(network)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), network.state_dict().values(), strict=True))
    assert [m.training for m in network] == [True, False, *[True] * 5]
    assert not network._modules["6"]._forward_hooks
    assert model.backbone[1].running_mean is network[1].running_mean
