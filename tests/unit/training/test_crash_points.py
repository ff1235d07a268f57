"""A training that stops before any write, fsync or rename of its files ends as if it had not been stopped."""

import os
import shutil
from io import BytesIO

import pytest
import torch
from torch import nn

import waterbed as wb
from waterbed.data.images import TensorImages
from waterbed.files import digest
from waterbed.training.run_folder import Run, RunFolder


class Killed(BaseException):
    """What SIGKILL is: nothing after it runs."""


class CrashPoints:
    """Counts the calls through which files change. The one at number ``at`` and all after it do nothing but raise, and
    what was being written is left torn."""

    def __init__(self, monkeypatch, at=None):
        self.at, self.count = at, 0
        for name in ("fsync", "replace", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name, call):
        def counted(*args, **options):
            self.count += 1
            if self.at is not None and self.count > self.at:
                if name == "fsync" and self.count == self.at + 1:
                    os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
                raise Killed
            return call(*args, **options)

        return counted


def few():
    images = torch.randint(0, 256, (24, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24) % 2
    return TensorImages(images[:16], labels[:16]), TensorImages(images[16:], labels[16:])


def train(out, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    return wb.fit(model, few(), out=out, **{"epochs": 2, "batch_size": 8, "watch": 0, "progress": False, **settings})


def files(folder):
    """What the run folder holds of the run, by name: weights, and records without their seconds."""
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in RunFolder(folder).history()]
    return (folder / "weights.safetensors").read_bytes(), records, sorted(f.name for f in folder.iterdir())


@pytest.mark.parametrize("more", [{}, {"validation": 0.25, "checkpoint_minutes": 0}], ids=["plain", "within epochs"])
def test_a_training_stopped_before_any_write_goes_on_to_the_same_end(tmp_path, monkeypatch, more):
    whole = train(tmp_path / "whole", **more)
    with monkeypatch.context() as patch:
        points = CrashPoints(patch)
        train(tmp_path / "counted", **more)
    assert points.count > 20
    for at in range(points.count):
        out = tmp_path / f"stopped-{at}"
        with monkeypatch.context() as patch:
            CrashPoints(patch, at)
            with pytest.raises(Killed):
                train(out, **more)
        again = train(out, **more)
        assert files(out) == files(tmp_path / "whole"), f"stopped at {at}"
        assert [r["epoch"] for r in again.history] == [r["epoch"] for r in whole.history]
        shutil.rmtree(out)


def test_a_finished_run_without_its_weights_is_restored_from_its_state(tmp_path):
    train(tmp_path / "run", validation=0.25)
    before = files(tmp_path / "run")
    for damage in ("weights.safetensors", "weights.json", "metrics.jsonl"):
        (tmp_path / "run" / damage).unlink()
        train(tmp_path / "run", validation=0.25)
        assert files(tmp_path / "run") == before
    whole = before[0]
    (tmp_path / "run/weights.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    train(tmp_path / "run", validation=0.25)
    assert files(tmp_path / "run") == before


def test_one_flipped_bit_is_found_when_weights_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    run = wb.fit(
        wb.create_model("resnet10", 10, width=2, in_channels=1), wb.load_dataset("digits").take(32, 8),
        out=tmp_path / "run", epochs=1, watch=0, progress=False,
    )  # fmt: skip
    run.export(tmp_path / "exported.safetensors")
    for file, name in ((tmp_path / "run/weights.safetensors", "run"), (tmp_path / "exported.safetensors", None)):
        whole = bytearray(file.read_bytes())
        whole[-5] ^= 4
        file.write_bytes(whole)
        with pytest.raises(wb.UsageError, match="checksum in their card"):
            Run.load(file if name is None else tmp_path / name)
    card = tmp_path / "exported.json"  # one of version 0.1 has no checksum
    card.write_text(card.read_text().replace('"sha256"', '"other"'))
    assert Run.load(tmp_path / "exported.safetensors").history


@pytest.mark.parametrize("content", [b"", b"\n", None], ids=["empty", "a line", "another type"])
def test_a_file_that_is_no_state_is_named_and_the_one_before_used(tmp_path, content):
    train(tmp_path / "run")
    before = files(tmp_path / "run")
    if content is None:
        buffer = BytesIO()
        torch.save([1, 2], buffer)
        content = digest([buffer.getvalue()]).encode() + b"\n" + buffer.getvalue()
    (tmp_path / "run/state.pt").write_bytes(content)
    with pytest.warns(UserWarning, match="torn or no state"):
        train(tmp_path / "run")
    assert files(tmp_path / "run") == before


def test_a_foreign_folder_is_still_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").write_text("mine")
    with pytest.raises(wb.UsageError, match="not a run folder"):
        train(tmp_path / "theirs")
    assert [f.name for f in (tmp_path / "theirs").iterdir()] == ["thesis.txt"]
