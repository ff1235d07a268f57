"""One backbone on one task by both protocols."""

import pytest

import waterbed as wb
from waterbed_paper import experiments_protocols as module


@pytest.mark.parametrize("mode", ["linear", "0"])
def test_each_row_is_that_of_its_protocol(digits, monkeypatch, tmp_path, mode):
    source = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    asked = []

    def load_data(place, config):
        asked.append(config)
        return digits.take(config["train"], 30)

    monkeypatch.setattr(module, "opened", lambda place, config: source)
    monkeypatch.setattr(module, "load_data", load_data)
    config = {"file": "x", "data": "digits", "mode": mode, "seed": 1, "train": 40}
    rows = module.protocols(tmp_path, {**config, "protocols": ("tuned", "paper")})
    assert list(rows) == ["tuned", "paper"]
    assert asked[0] == {"data": "digits", "size": 32, "channels": 3, "train": 40}
    assert [(row["protocol"], row["n"], row["seed"]) for row in rows.values()] == [("tuned", 30, 1), ("paper", 30, 1)]
    assert rows["tuned"]["solver"] == {"linear": "logistic", "0": "sgd"}[mode]
    assert (rows["paper"]["lr"], rows["paper"]["weight_decay"], rows["paper"]["solver"]) == (0.01, 5e-4, "sgd")
    source_on_imagenet = module.protocols(tmp_path, {**config, "protocols": ("paper-imagenet",)})["paper"]
    assert source_on_imagenet["weight_decay"] == 1e-4
