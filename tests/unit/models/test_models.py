import copy
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

import waterbed as wb
from waterbed.models.states import evaluating, frozen


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_full_width_network_is_torchvisions(name):
    ours = wb.create_model(name, 1000, stem="imagenet")
    theirs = getattr(torchvision.models, name)(weights=None)
    state = {f"backbone.{k}": v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    state |= {"head.weight": theirs.fc.weight, "head.bias": theirs.fc.bias}
    ours.load_state_dict(state)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_width_scales_and_cifar_stem_keeps_resolution():
    model = wb.create_model("resnet18", 7, width=4, in_channels=1)
    assert model.head.in_features == 32
    assert model.backbone.conv1.stride == (1, 1)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 7)


def test_seed_gives_the_same_weights_and_leaves_the_generator():
    state = torch.get_rng_state()
    a, b = (wb.create_model("resnet10", 10, width=2, seed=3) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_normalisation_is_inside():
    model = wb.FeatureClassifier(nn.Flatten(), nn.Linear(4, 2), mean=[0.5], std=[0.25])
    x = torch.rand(3, 1, 2, 2)
    assert torch.allclose(model(x), model.head((x.flatten(1) - 0.5) / 0.25))


def test_modes_and_gradients_come_back_after_an_exception(tiny):
    tiny.train()
    tiny.backbone.layer1.eval()
    tiny.head.weight.requires_grad_(False)
    modes = [m.training for m in tiny.modules()]
    for context in (frozen, evaluating):
        with pytest.raises(RuntimeError), context(tiny):
            tiny(torch.rand(1, 3, 8, 8) if not tiny.training else torch.rand(1, 1, 8, 8))
        assert [m.training for m in tiny.modules()] == modes
    assert [p.requires_grad for p in tiny.head.parameters()] == [False, True]


def test_weights_survive_a_round_trip(tiny, tmp_path):
    tiny.set_normalisation([0.2], [0.4])
    tiny.input_shape = (1, 8, 8)
    wb.save_model(tiny, tmp_path / "net.safetensors")
    again = wb.load_model(tmp_path / "net.safetensors")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(again(x), tiny(x))
    assert again.input_shape == (1, 8, 8)
    assert again.architecture == tiny.architecture


def test_own_module_is_loaded_into_an_instance(tmp_path):
    model = wb.FeatureClassifier(nn.Flatten(), nn.Linear(4, 2))
    wb.save_model(model, tmp_path / "own.safetensors")
    with pytest.raises(wb.UsageError, match="pass model="):
        wb.load_model(tmp_path / "own.safetensors")
    again = wb.load_model(tmp_path / "own.safetensors", model=copy.deepcopy(model))
    assert torch.equal(again.head.weight, model.head.weight)


def test_a_file_that_is_no_card_is_not_overwritten(tiny, tmp_path):
    (tmp_path / "net.json").write_text('{"my": "notes"}')
    with pytest.raises(wb.UsageError, match=r"net.json. exists and was not written"):
        wb.save_model(tiny, tmp_path / "net.safetensors")
    assert (tmp_path / "net.json").read_text() == '{"my": "notes"}'
    (tmp_path / "file").write_text("")
    with pytest.raises(wb.UsageError, match="cannot be"):
        wb.save_model(tiny, tmp_path / "file" / "net.safetensors")


def test_damaged_weights_and_foreign_cards_are_refused(tiny, tmp_path):
    path = tmp_path / "net.safetensors"
    wb.save_model(tiny, path)
    card = path.with_suffix(".json")
    card.write_text(card.read_text().replace('"schema": 1', '"schema": 9'))
    with pytest.raises(wb.UsageError, match="schema 9"):
        wb.load_model(path)
    with pytest.raises(wb.UsageError, match="was not written"):
        wb.save_model(tiny, path)
    card.unlink()
    with pytest.raises(wb.UsageError, match="was not written"):
        wb.save_model(tiny, path)
    wb.save_model(tiny, path, force=True)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(wb.UsageError, match="checksum in their card"):
        wb.load_model(path)


def test_importing_loads_no_torch():
    code = "import sys, waterbed; waterbed.UsageError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there():
    for name in wb.__all__:
        assert getattr(wb, name).__doc__
    assert callable(wb.transfer)
    assert callable(wb.report)
