"""What caching the frozen trunk saves: seconds per epoch and accuracy, with and without the cache.

    python benchmarks/transfer.py NETWORK.safetensors [--data digits] [--train 2000] [--epochs 5] [--out FILE.json]

Both train the same head (and batch norm) from the same start in the same order of data; the trunk is in float32.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

import waterbed as wb
from waterbed.environment import environment
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = wb.load_model(options.network)
    channels, side, _ = model.input_shape
    data = wb.load_dataset(options.data, size=side, channels=channels).take(options.train, options.test)
    rows: dict[str, dict[str, Any]] = {}
    for mode in ("linear", 0):
        settings = {"epochs": options.epochs, "lr": options.lr}
        began = time.perf_counter()
        trunk = FrozenTrunk(model, data, mode)
        _ = trunk.train, trunk.test  # both are computed on first use
        filling = time.perf_counter() - began
        runs = {
            "cached": wb.finetune(model, data, mode, trunk=trunk, **settings),
            "whole network": wb.finetune(model, data, mode, cache="never", precision="fp32", **settings),
        }
        seconds = {name: median(r["seconds"] for r in run.history) for name, run in runs.items()}
        accuracy = {name: float(wb.evaluate(run.model, data.test).clean) for name, run in runs.items()}
        ratio = seconds["whole network"] / seconds["cached"]
        rows[str(mode)] = {"seconds": seconds, "ratio": ratio, "filling": filling, "accuracy": accuracy}
        print(
            f"mode {mode}: {seconds['cached']:.4f} s per epoch cached, {seconds['whole network']:.3f} s for the whole "
            f"network, {ratio:.0f} x (filling {filling:.1f} s, once); accuracy {accuracy['cached']:.2f} and "
            f"{accuracy['whole network']:.2f} %"
        )
    if options.out is not None:
        content = {"modes": rows, "data": data.name, "train": len(data.train), "environment": environment()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
