"""Hugging Face data sets, at every door."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.hub_server import Hub

import waterbed as wb
from waterbed.errors import UsageWarning

datasets = pytest.importorskip("datasets")
SHORT = {"epochs": 1, "batch_size": 8, "watch": 4, "progress": False, "precision": "fp32"}
NAMES = ["bright", "dark"]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there


def table(n=12, sizes=((8, 8),), label="label", **more):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (*sizes[i % len(sizes)], 3), dtype=np.uint8)) for i in range(n)]
    features = {"image": datasets.Image(), label: datasets.ClassLabel(names=NAMES), "row": datasets.Value("int64")}
    columns = {"image": images, label: [i % 2 for i in range(n)], "row": list(range(n))}
    for name, feature in more.items():
        features[name], columns[name] = feature, columns["image" if name.startswith("image") else label]
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def new_model():
    return wb.create_model("resnet10", 2, width=2, in_channels=3, seed=0)


def pixels(rows, i):
    return torch.from_numpy(np.array(rows[i]["image"])).permute(2, 0, 1) / 255


def test_every_door_takes_them():
    train, test = table(), table(6)
    task = wb.as_task((train, test))
    assert (task.classes, task.shape, task.num_classes) == (("bright", "dark"), (3, 8, 8), 2)
    assert torch.equal(task.train[3][0], pixels(train, 3))
    assert task.train[3][1] == 1
    tensors = [torch.utils.data.TensorDataset(*wb.stack(part)) for part in (train, test)]
    runs = [
        wb.fit(new_model(), data, **SHORT) for data in ((train, test), datasets.DatasetDict(train=train, test=test))
    ]
    alone = wb.fit(new_model(), tensors, **SHORT)
    for run in runs:
        for p, q in zip(run.model.state_dict().values(), alone.model.state_dict().values(), strict=True):
            assert torch.equal(p, q)
    score = wb.evaluate(alone.model, test, [wb.PGD(0.1, steps=1)])
    assert score == wb.evaluate(alone.model, tensors[1], [wb.PGD(0.1, steps=1)])
    assert score == wb.evaluate(alone.model, test, [wb.PGD(0.1, steps=1)], workers=1)
    assert score == wb.evaluate(alone.model, torch.utils.data.DataLoader(test), [wb.PGD(0.1, steps=1)])
    trace = wb.measure(alone.model, test, 4, quantities=["input_fisher_trace"])
    assert trace == wb.measure(alone.model, tensors[1], 4, quantities=["input_fisher_trace"])
    assert float(wb.InputFisher(alone.model, test).trace()) == float(
        wb.InputFisher(alone.model, tensors[1].tensors[0]).trace()
    )
    assert wb.extract_features(alone.model, test)[1].tolist() == [0, 1] * 3


def test_images_come_in_the_shape_of_the_model():
    mixed = table(6, sizes=((8, 8), (12, 10)))
    with pytest.warns(UsageWarning, match="8 x 8 and 12 x 10; all are resized and cropped to 9 x 9: pass size=9"):
        assert wb.as_task((mixed, table(4))).test[0][0].shape == (3, 9, 9)
    model = wb.fit(new_model(), (table(), table()), **SHORT).model
    assert wb.evaluate(model, mixed).n == 6  # no warning: it would be an error
    assert wb.extract_features(model, mixed)[0].shape == (6, 16)


def test_transforms_and_formats_of_the_table():
    rows = table()
    transformed = rows.with_transform(lambda batch: {"image": [torch.full((3, 8, 8), 0.5) for _ in batch["image"]]})
    assert float(wb.as_task((transformed, rows)).train[0][0].mean()) == 0.5
    assert torch.equal(wb.as_task((rows.with_format("torch"), rows)).train[2][0], pixels(rows, 2))
    lost = rows.with_transform(lambda batch: {"pixel_values": batch["image"]})
    with pytest.raises(wb.UsageError, match="gives pixel_values, without the image column 'image'"):
        wb.evaluate(new_model(), lost)
    with pytest.raises(TypeError, match=r"images of type PIL"):
        wb.evaluate(new_model(), rows.with_transform(lambda batch: batch))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            lambda: table(image2=datasets.Image()),
            r"several image columns \('image', 'image2'\); choose one: .*select_columns\(\['image', 'label'\]\)",
        ),
        (
            lambda: table(label="fine", coarse=datasets.ClassLabel(names=NAMES)),
            r"several label columns \('fine', 'coarse'\); choose one: data\[0\].select_columns\(\['fine', 'image'\]\)",
        ),
        (
            lambda: table().remove_columns("image"),
            r"no image column, only label \(ClassLabel\), row \(Value\); make one",
        ),
        (lambda: table().remove_columns(["label", "row"]), r"no label column.*class_encode_column\(NAME\)"),
        (lambda: table().to_iterable_dataset(), r"data\[0\]=IterableDataset is a stream; load it with streaming=False"),
    ],
)
def test_what_cannot_be_told_is_named(rows, message):
    with pytest.raises((wb.UsageError, TypeError), match=message):
        wb.as_task((rows(), table()))


def test_whole_numbers_are_labels_where_no_column_has_classes():
    task = wb.as_task((table().remove_columns("label"),) * 2)
    assert task.num_classes == 12
    chosen = table(image2=datasets.Image()).select_columns(["image2", "label"])
    assert wb.as_task((chosen, chosen)).classes == ("bright", "dark")


def cached(tmp_path, **splits):
    """The cache as a download of owner/pictures leaves it."""
    source = tmp_path / "pictures"
    for split, rows in splits.items():
        (source / "data").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(source / f"data/{split}-00000-of-00001.parquet")
    datasets.load_dataset(str(source), cache_dir=str(tmp_path / "cache"))
    Path(tmp_path / "cache/pictures").rename(tmp_path / "cache/owner___pictures")
    shutil.rmtree(source)


def test_a_name_of_the_hub_is_read_from_the_cache(tmp_path, monkeypatch):
    cached(tmp_path, train=table(), test=table(4))
    data = wb.load_dataset("hf:owner/pictures")
    assert (data.name, data.classes, data.shape) == ("owner/pictures", ("bright", "dark"), (3, 8, 8))
    assert (len(data.train), len(data.test)) == (12, 4)
    assert torch.equal(data.train[5][0], pixels(table(), 5))
    assert type(data.train).__name__ == "TensorImages"
    monkeypatch.setattr("waterbed.data.folders.IN_MEMORY_BYTES", 0)
    on_access = wb.load_dataset("hf:owner/pictures", root=tmp_path / "cache", size=6, channels=1)
    assert on_access.shape == (1, 6, 6)
    assert type(on_access.train).__name__ == "ColumnImages"
    assert datasets.config.HF_HUB_OFFLINE is False
    with pytest.raises(wb.UsageError, match=r"'hf:owner/other' is not to be read.*pass download=True to fetch it"):
        wb.load_dataset("hf:owner/other")


def test_a_set_is_fetched_once_and_only_when_asked(tmp_path):
    script = "import waterbed as wb; print(len(wb.load_dataset('hf:owner/pictures', download=True).train))"
    home = tmp_path / "home"
    with Hub() as hub:
        files = {}
        for split, count in (("train", 12), ("test", 4)):
            table(count).to_parquet(tmp_path / split)
            files[f"{split}.parquet"] = (tmp_path / split).read_bytes()
        hub.add("owner/pictures", files)
        # A process of its own, since the client reads its environment once.
        environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.stdout == "12\n", done.stderr
    assert wb.load_dataset("hf:owner/pictures", root=home / "datasets").classes == ("bright", "dark")


def test_splits_and_columns_are_chosen_in_the_address(tmp_path):
    unlabelled = table(4).map(lambda row: {"label": -1})
    splits = {"train": table(), "validation": table(6), "test": unlabelled}
    datasets.DatasetDict(**splits).save_to_disk(tmp_path / "saved")
    address = f"hf:{tmp_path}/saved"
    assert len(wb.load_dataset(address).test) == 6
    assert len(wb.load_dataset(f"{address}?train=validation&test=train&label=label").test) == 12
    assert wb.load_dataset(f"{address}?label=row").num_classes == 12
    with pytest.raises(wb.UsageError, match=r"\(test\) has labels from -1 to -1"):
        wb.load_dataset(f"{address}?test=test")
    with pytest.raises(wb.UsageError, match=r"the split of .*='tset' is unknown; choose one of .*did you mean 'test'"):
        wb.load_dataset(f"{address}?test=tset")
    with pytest.raises(wb.UsageError, match=r"the label column of .*='lable' is unknown.*did you mean 'label'"):
        wb.load_dataset(f"{address}?label=lable")
    with pytest.raises(wb.UsageError, match=r"the option of .*='labels' is unknown; choose one of 'config', 'train'"):
        wb.load_dataset(f"{address}?labels=label")
    several = table(label="fine", coarse=datasets.ClassLabel(names=NAMES))
    datasets.DatasetDict(train=several, test=several).save_to_disk(tmp_path / "several")
    with pytest.raises(wb.UsageError, match=rf"choose one: hf:{tmp_path}/several\?label=fine"):
        wb.load_dataset(f"hf:{tmp_path}/several")
    datasets.DatasetDict(a=several, b=several).save_to_disk(tmp_path / "named")
    with pytest.raises(wb.UsageError, match=r"has the splits a, b; name those to train and to test on"):
        wb.load_dataset(f"hf:{tmp_path}/named")
    with pytest.raises(wb.UsageError, match="names no data set; write hf:owner/name"):
        wb.load_dataset("hf:")


def test_commands_open_such_runs_again(tmp_path, capsys):
    from waterbed.__main__ import main

    datasets.DatasetDict(train=table(), test=table(4)).save_to_disk(tmp_path / "saved")
    run = str(tmp_path / "run")
    settings = ["--width", "2", "--epochs", "1", "--model", "resnet10", "--batch-size", "8", "--watch", "0"]
    assert main(["train", f"hf:{tmp_path}/saved", "--out", run, *settings]) == 0
    assert main(["evaluate", run, "--steps", "1", "--workers", "1"]) == 0
    assert "resnet" not in capsys.readouterr().err


def test_data_of_other_classes_are_refused(tmp_path):
    train, test = table(), table(6)
    model = wb.fit(new_model(), (train, test), out=tmp_path / "run", **SHORT).model
    other = test.cast_column("label", datasets.ClassLabel(names=["dark", "bright"]))
    message = "dataset calls class 0 'dark', but the model was trained with 'bright' there"
    for known in (model, wb.load_model(tmp_path / "run")):
        assert wb.evaluate(known, test.cast_column("label", datasets.ClassLabel(names=["Bright", "DARK"]))).n == 6
        with pytest.raises(wb.UsageError, match=message):
            wb.evaluate(known, other)
        with pytest.raises(wb.UsageError, match=message):
            wb.evaluate_standard(known, other, eps=0.1, autoattack="never")
    more = test.cast_column("label", datasets.ClassLabel(names=["bright", "dark", "grey"]))
    with pytest.raises(
        wb.UsageError, match=r"dataset has 3 classes \(bright, dark, grey, ...\), but the model knows 2"
    ):
        wb.evaluate(model, more)
    model.head = torch.nn.Linear(model.head.in_features, 2)
    assert wb.evaluate(model, other).n == 6, "a new head knows no names"
