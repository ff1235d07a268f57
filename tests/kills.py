"""Train in a child that is killed at random moments and started again until it ends; used by the tests of resuming.

python kills.py OUT KILLS SEED EPOCHS: prints the number of kills that struck. torch is imported once and children are
forked before it has done any work, so that a start costs little.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import waterbed as wb
from waterbed.data.images import TensorImages


def train(out, epochs):
    torch.set_num_threads(1)
    data = wb.load_dataset("digits")
    data = type(data)(
        "few digits",
        TensorImages(data.train.images[:256], data.train.labels[:256]),
        TensorImages(data.test.images[:40], data.test.labels[:40]),
        data.classes,
    )
    model = wb.create_model("resnet10", 10, width=2, in_channels=1, seed=0)
    attack = wb.AdversarialTraining(wb.PGD(eps=0.3, steps=1))
    # Saved after every batch: kills strike within epochs and within writing.
    settings = {"batch_size": 32, "watch": 20, "checkpoint_minutes": 0, "ema": 0.9, "progress": False}
    wb.fit(model, data, attack, out, epochs=epochs, **settings)


def child(out, epochs):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            train(out, epochs)
            status = 0
        finally:
            os._exit(status)
    return pid


def main(out, kills, seed, epochs):
    draw, struck = random.Random(seed), 0
    while True:
        pid = child(out, epochs)
        if struck < kills:
            before = states(out)
            while states(out) == before and os.waitpid(pid, os.WNOHANG) == (0, 0):
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.15))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                break
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            break
        if os.WIFSIGNALED(status):
            struck += 1
            continue
        assert status == 0, "the training failed"
        break
    print(struck)


def states(out):
    """Changes with every state that is written."""
    file = Path(out) / "state.pt"
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
