"""WebDataset shards."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import waterbed as wb
from waterbed.data import shards
from waterbed.errors import StoppedError, UsageWarning

SHORT = {"epochs": 2, "batch_size": 5, "watch": 4, "progress": False, "precision": "fp32"}


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def encoded(i, size=(8, 8)):
    rng = np.random.default_rng(i)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def write(path, examples):
    """A shard of (name, {extension: content})."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, files in examples:
            for extension, content in files.items():
                member = tarfile.TarInfo(f"{name}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def example(i, **more):
    return f"photos/{i:04d}", {"png": encoded(i), "cls": str(i % 2).encode(), **more}


@pytest.fixture
def folder(tmp_path):
    """Three shards to train on and one to test on, 12 and 4 images."""
    for shard in range(3):
        write(tmp_path / f"train-{shard:03d}.tar", [example(4 * shard + i, json=b"{}") for i in range(4)])
    write(tmp_path / "val-000.tar", [example(100 + i) for i in range(4)])
    return tmp_path


def new_model():
    return wb.create_model("resnet10", 2, width=2, in_channels=3, seed=0)


@pytest.mark.parametrize(
    "pattern",
    ["*.tar", "{train,val}-*.tar", "train-{000..002}.tar::{0}/val-000.tar", "train-00?.tar::{0}/val*.tar"],
)
def test_patterns_name_the_shards(folder, pattern):
    data = wb.load_dataset(f"{folder}/{pattern.replace('{0}', str(folder))}")
    assert (len(data.train), len(data.test), data.shape, data.classes) == (12, 4, (3, 8, 8), ("0", "1"))
    picture = np.array(Image.open(io.BytesIO(encoded(7))))
    assert torch.equal(data.train[7][0], torch.from_numpy(picture).permute(2, 0, 1) / 255)
    assert data.train[7][1] == 1


def test_large_sets_are_read_from_the_shards_in_any_order_by_workers(folder, monkeypatch):
    held = wb.load_dataset(f"{folder}/*.tar")
    monkeypatch.setattr("waterbed.data.folders.IN_MEMORY_BYTES", 0)
    data = wb.load_dataset(f"{folder}/*.tar")
    assert type(data.train).__name__ == "ShardImages"
    for workers in (0, 2):
        assert all(map(torch.equal, wb.stack(data.train, 9, seed=1, workers=workers), wb.stack(held.train, 9, seed=1)))
    ends = [wb.fit(new_model(), part, workers=workers, **SHORT) for part, workers in ((held, 0), (data, 0), (data, 2))]
    weights = [run.model.state_dict() for run in ends]
    for other in weights[1:]:
        assert all(map(torch.equal, other.values(), weights[0].values()))
    assert wb.evaluate(ends[0].model, data.test, workers=1) == wb.evaluate(ends[0].model, held.test)


def test_a_stopped_training_goes_on_within_the_epoch(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("waterbed.data.folders.IN_MEMORY_BYTES", 0)
    data = wb.load_dataset(f"{folder}/*.tar")
    settings = {**SHORT, "validation": 0.25, "checkpoint_minutes": 0}

    class Stop:
        def on_epoch_end(self, job):
            raise StoppedError("here")

    with pytest.raises(StoppedError):
        wb.fit(new_model(), data, out=tmp_path / "parts", callbacks=[Stop()], workers=1, **settings)
    parts = wb.fit(new_model(), data, out=tmp_path / "parts", workers=2, **settings)
    whole = wb.fit(new_model(), data, **settings)
    assert all(map(torch.equal, parts.model.state_dict().values(), whole.model.state_dict().values()))


def test_the_index_is_made_once(folder, monkeypatch):
    read = []
    monkeypatch.setattr(shards, "read_index", lambda path, real=shards.read_index: read.append(path.name) or real(path))
    for _ in range(2):
        wb.load_dataset(f"{folder}/*.tar")
    assert len(read) == 4
    write(folder / "train-001.tar", [example(i) for i in range(5)])
    assert len(wb.load_dataset(f"{folder}/*.tar").train) == 13
    assert len(read) == 5


def test_images_of_several_sizes_get_one(folder):
    write(folder / "train-003.tar", [("a", {"jpg": encoded(1, (16, 20)), "cls": b" 1\n"})])
    with pytest.warns(UsageWarning, match="such as 8 x 8 and 16 x 20; all are resized and cropped to 8 x 8"):
        assert wb.load_dataset(f"{folder}/*.tar").train[12][0].shape == (3, 8, 8)


def test_the_command_line_opens_such_runs_again(folder, monkeypatch, capsys):
    from waterbed.__main__ import main

    monkeypatch.chdir(folder)
    settings = ["--width", "2", "--epochs", "1", "--model", "resnet10", "--batch-size", "8", "--watch", "0"]
    assert main(["train", "train-*.tar::val-*.tar", "--out", "run", *settings]) == 0
    monkeypatch.chdir("/")
    assert main(["evaluate", f"{folder}/run", "--steps", "1"]) == 0
    assert "4" in capsys.readouterr().out


def test_shards_of_the_package_are_read(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    for part in ("train", "test"):
        with webdataset.TarWriter(str(tmp_path / f"{part}.tar")) as sink:
            for i in range(3):
                picture = np.full((8, 8, 3), 40 * i, np.uint8)
                sink.write({"__key__": f"sample{i}", "png": picture, "cls": i, "json": {"i": i}})
    data = wb.load_dataset(f"{tmp_path}/*.tar")
    assert [label for _, label in (data.train[i] for i in range(3))] == [0, 1, 2]
    assert float(data.test[2][0].max()) == pytest.approx(80 / 255)
    stream = webdataset.WebDataset(str(tmp_path / "train.tar"), shardshuffle=False)
    with pytest.raises(TypeError, match=r"must be a map-style data set.*shards are named to load_dataset"):
        wb.fit(new_model(), (stream, stream))


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (
            [("a", {"png": b"x"})],
            r"the example 'a' in the shard .* has the files png; it must have one image and one .cls",
        ),
        ([("a", {"png": b"x", "jpg": b"x", "cls": b"0"})], "has the files png, jpg, cls; it must have one image"),
        ([("a", {"png": b"x", "cls": b"cat"})], "has the class b'cat'; write whole numbers from 0"),
        ([("a", {"png": b"x", "cls": b"-1"})], r"\(test\) has labels from -1 to -1"),
        ([], "test-9.tar' has no examples; leave it out"),
        ([("a", {"png": b"x", "cls": b"0"})], r"test-9.tar at byte 512' cannot be read \(corrupt, or not an image\)"),
    ],
)
def test_what_is_no_example_is_named(tmp_path, examples, message):
    write(tmp_path / "train-0.tar", [example(i) for i in range(4)])
    write(tmp_path / "test-9.tar", examples)
    with pytest.raises(wb.UsageError, match=message):
        wb.load_dataset(f"{tmp_path}/*.tar")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing-*.tar", r"there is no file '.*nothing-\*.tar'; name shards such as 'shards/\{train,test\}-\*.tar'"),
        ("train-{000..003}.tar", r"there is no file '.*train-003.tar'"),
        ("train-*.tar", "names no test shards; write a pattern of both parts"),
        ("val-*.tar", "names no train shards; write a pattern of both parts"),
        ("other.tar", r"other.tar' has none of the words train, test, val, validation, valid in its name"),
        ("train-000.tar.gz", "is compressed and so not read by position; unpack it to .tar"),
        ("broken-train.tar", "cannot be read .*; write or copy it again"),
    ],
)
def test_patterns_that_name_no_task(folder, pattern, message):
    write(folder / "elsewhere/other.tar", [example(0)])
    (folder / "elsewhere/broken-train.tar").write_bytes((folder / "train-000.tar").read_bytes()[:700])
    if pattern.startswith(("other", "broken")):
        pattern = f"elsewhere/{pattern}::{folder}/val-000.tar"
    with pytest.raises(wb.UsageError, match=message):
        wb.load_dataset(f"{folder}/{pattern}")


def test_addresses_are_downloaded_first():
    with pytest.raises(wb.UsageError, match="is not on this machine; download the shards and name the files"):
        wb.load_dataset("https://example.org/train-000.tar")
