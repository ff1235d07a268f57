"""Fine-tuning the head, alone or with the batch norm before it, by the paper's protocol and by a tuned one."""

from __future__ import annotations

from typing import Any

from waterbed.transfer_learning.finetune import finetune
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk
from waterbed.transfer_learning.transfer import row_of
from waterbed_paper.experiments import load_data, opened
from waterbed_paper.graph import Place, experiment


@experiment(version=1)
def protocols(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Protocol -> accuracy and settings of one backbone on one task, in a mode that trains on a cache (Tables 1, 2, 5).

    Both protocols share the trunk's outputs and the images.
    """
    model = opened(place, config)
    channels, side, _ = model.input_shape or (3, 32, 32)
    data = load_data(place, {"data": config["data"], "size": side, "channels": channels, "train": config["train"]})
    mode = config["mode"] if config["mode"] == "linear" else int(config["mode"])
    trunk = FrozenTrunk(model, data, mode)
    rows = {}
    for name in config["protocols"]:
        run = finetune(model, data, mode, protocol=name, seed=config["seed"], trunk=trunk)
        rows[name.partition("-")[0]] = row_of(run, mode, config["seed"], data, trunk)
    return rows
