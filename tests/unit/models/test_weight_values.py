"""Values that no training leaves in a network are found when weights are loaded, ours and those of others."""

import pytest
import safetensors.torch
import torch
from torch import nn

import waterbed as wb

FAULTS = {
    "negative variance": ("backbone.bn1.running_var", lambda t: t - 2, "a negative variance in"),
    "integers": ("backbone.conv1.weight", lambda t: (100 * t).to(torch.int8), "torch.int8 in"),
    "infinite statistics": ("backbone.bn1.running_mean", lambda t: t / 0 + torch.inf, "that is not finite"),
    "infinite weights": ("head.weight", lambda t: t + torch.inf, "that is not finite"),
    "nan": ("head.bias", lambda t: t * torch.nan, "that is not finite"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ours", [True, False])
def test_impossible_values_are_named(tiny, tmp_path, fault, ours):
    name, change, message = FAULTS[fault]
    tensors = {key: tensor.clone() for key, tensor in tiny.state_dict().items()}
    tensors[name] = change(tensors[name])
    if ours:
        path = tmp_path / "net.safetensors"
        wb.save_model(tiny, path)
        safetensors.torch.save_file(tensors, path)
        card = path.with_suffix(".json")  # of a file without a checksum, as version 0.1 wrote them
        card.write_text(card.read_text().replace('"sha256"', '"other"'))
    else:
        path = tmp_path / "net.pt"
        torch.save({key.replace("backbone.", "").replace("head.", "fc."): t for key, t in tensors.items()}, path)
    with pytest.raises(wb.UsageError, match=message) as caught:
        wb.load_model(path)
    assert str(path) in str(caught.value)
    assert name.removeprefix("backbone.").removeprefix("head.") in str(caught.value)


def test_an_infinite_mask_of_ones_own_network_is_no_fault(tmp_path):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
            self.register_buffer("index", torch.tensor([0, 1]))

    wb.save_model(Masked(), tmp_path / "own.safetensors")
    loaded = wb.load_model(tmp_path / "own.safetensors", model=Masked())
    assert loaded.mask.isinf().any()
