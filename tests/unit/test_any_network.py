"""Every public function takes every ordinary architecture as it comes; the command line takes them by name."""

import pytest
import torch
from tests.unit.models.networks import NETWORKS

import waterbed as wb
from waterbed.__main__ import main


class Data:
    """Noise of two brightnesses, for networks with 10 classes."""

    classes, num_classes, name = tuple("0123456789"), 10, "noise"

    def __init__(self, side, n=24):
        self.shape = (3, side, side)
        x = torch.rand(n, *self.shape, generator=torch.Generator().manual_seed(0))
        y = torch.arange(n) % 10
        self.train = self.test = [(x[i] * (0.5 + 0.05 * y[i]), int(y[i])) for i in range(n)]


def trained(network, data):
    run = wb.fit(network, data, epochs=1, batch_size=12, lr=0.01, watch=0, progress=False, augment="none")
    return run.history[-1]["loss"]


def evaluated(network, data):
    return float(wb.evaluate(network, data.test).clean)


def measured(network, data):
    quantities = ("input_fisher_trace", "input_fisher_relative_trace")
    return sum(map(float, wb.measure(network, data, num_samples=2, quantities=quantities).values()))


def inverted(network, data):
    images = torch.stack([x for x, _ in data.test[:2]])
    result = wb.invert(network, images, steps=3, lr=1e-3)
    assert result.images.shape == images.shape
    return float(result.losses.mean())


def transferred(network, data):
    table = wb.transfer({"network": network}, [data], "linear", seeds=[0], epochs=1, lr=0.1, augment="none")
    return table.rows[0]["accuracy"]


DOORS = {"train": trained, "evaluate": evaluated, "measure": measured, "invert": inverted, "transfer": transferred}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_function_takes_every_network(name, door):
    make, side = NETWORKS[name]
    network = make().eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert torch.isfinite(torch.tensor(DOORS[door](network, Data(side))))
    same = all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert same == (door != "train"), "only training changes the network"


@pytest.mark.parametrize("name", ["CNN", "non-linear head", "timm vit_tiny"])
def test_features_choose_distance_and_finetune_take_a_network_as_it_comes(name):
    make, side = NETWORKS[name]
    network, data = make().eval(), Data(side, 40)
    model = wb.wrap(network)
    features, labels = wb.extract_features(network, data)
    assert torch.equal(features, wb.extract_features(model, data)[0])
    assert len(labels) == 40
    one, other = (wb.choose({"a": m}, data).candidates[0].scores["logme"].value for m in (network, model))
    assert one == other
    distance = wb.dataset_distance(data, data, network, num_resamples=20)
    assert float(distance) == pytest.approx(0, abs=1e-6)
    assert type(network).__name__ in distance.method
    settings = {"epochs": 1, "lr": 0.1, "cache": "never", "augment": "none"}
    runs = [wb.finetune(m, data, "linear", **settings) for m in (network, model)]
    heads = [run.model.head for run in runs]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert heads[0].in_features == features.shape[1]


def test_layers_keep_their_names_when_one_is_inverted():
    network = NETWORKS["CNN"][0]().eval()
    result = wb.invert(network, torch.rand(1, 3, 32, 32), steps=2, lr=1e-3, layer="0")
    assert torch.isfinite(result.losses).all()


NOISY = "noise belongs to another model .* model = wb.wrap"


def test_noise_of_a_plain_module_says_to_wrap_it():
    network, x = NETWORKS["MLP"][0]().eval(), torch.rand(2, 3, 32, 32)
    noise = wb.WeightNoise(wb.WeightFisher(network, x), beta=1e-8, prior_variance=1e-3)
    with pytest.raises(wb.UsageError, match=NOISY):
        wb.invert(network, x, "effective", noise, steps=1)
    model = wb.wrap(network)
    noise = wb.WeightNoise(wb.WeightFisher(model, x), beta=1e-8, prior_variance=1e-3)
    assert torch.isfinite(wb.invert(model, x, "effective", noise, steps=1, lr=1e-3).losses).all()


OWN = """
from torch import nn

def cosine(num_classes, in_channels, image_size):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.ReLU(), nn.Flatten(),
                         nn.Linear(4 * (image_size - 2)**2, num_classes))
"""


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "wide_resnet10_1", "my_code:cosine"])
def test_the_command_line_opens_the_run_again_by_itself(name, folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("timm")
    (tmp_path / "my_code.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    size = 16
    words = ["train", str(folder), "--out", "run", "--model", name, "--size", str(size), "--epochs", "1"]
    assert main([*words, "--batch-size", "12", "--lr", "0.01", "--augment", "none"]) == 0
    for command in (
        "evaluate run --eps 0.1 --steps 1",
        "measure run --num-samples 2 --quantities input_fisher_trace",
        "invert run --steps 2 --num-images 1 --out inverted",
        f"transfer run --targets {folder} --mode linear --seeds 1 --epochs 1",
    ):
        status = main(command.split())
        assert status == 0, capsys.readouterr().err
    assert name in (tmp_path / "run" / "weights.json").read_text()
    (tmp_path / "my_code.py").unlink()
