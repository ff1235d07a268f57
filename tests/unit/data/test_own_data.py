"""A user's own data sets and loaders, at every door."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import waterbed as wb
from waterbed.data.map_style import map_style
from waterbed.data.samples import collate
from waterbed.data.task import as_task

SHORT = {"epochs": 1, "batch_size": 32, "watch": 10, "progress": False, "precision": "fp32"}
TO_TENSOR = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def tensors(n=64, classes=3):
    return TensorDataset(torch.rand(n, 1, 8, 8), torch.arange(n) % classes)


class Squares(Dataset):
    """Own images, drawn anew at each reading, of two classes."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        image = 0.2 * torch.rand(1, 8, 8)
        image[:, : 4 if index % 2 else 8] += 0.7
        return image, index % 2


def new_model(classes, channels=1):
    return wb.create_model("resnet10", classes, width=2, in_channels=channels, seed=0)


def loader(dataset, **options):
    return DataLoader(dataset, batch_size=16, **options)


PAIRS = {
    "tensors": lambda: (tensors(), tensors(12)),
    "subsets": lambda: (Subset(tensors(), range(40)), Subset(tensors(), range(40, 64))),
    "own": lambda: (Squares(), Squares()),
    "lists": lambda: ([Squares()[i] for i in range(40)],) * 2,
    "loaders": lambda: [loader(tensors(), shuffle=True), loader(tensors(12))],
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_fit_evaluate_and_measure_take_them(pair, tmp_path):
    train, test = pair()
    state = torch.get_rng_state()
    task = as_task((train, test))
    assert torch.equal(state, torch.get_rng_state())
    run = wb.fit(new_model(task.num_classes), (train, test), out=tmp_path / "run", **SHORT)
    assert run.config["data"]["classes"] == list(task.classes)
    assert "test_clean" in run.history[0]
    assert wb.evaluate(run.model, test, [wb.PGD(0.1, steps=1)]).n == len(task.test)
    pairwise = wb.measure(run.model, (train, test), 10, quantities=["input_fisher_trace"])
    alone = wb.measure(run.model, test, 10, quantities=["input_fisher_trace"])
    if not isinstance(train, Squares):
        assert pairwise == alone


def test_a_pair_of_tensors_is_the_task_it_was_made_from(digits):
    pair = [TensorDataset(*wb.stack(part)) for part in (digits.train, digits.test)]
    ours, own = (wb.fit(new_model(10), data, **SHORT) for data in (digits, pair))
    for p, q in zip(ours.model.state_dict().values(), own.model.state_dict().values(), strict=True):
        assert torch.equal(p, q)
    assert ours.history[0]["test_clean"] == own.history[0]["test_clean"]


def test_image_folders(folder):
    train, test = (ImageFolder(folder / part, TO_TENSOR) for part in ("train", "test"))
    task = as_task((train, test), name="pictures")
    assert (task.classes, task.shape, task.name) == (("bright", "dark"), (3, 12, 12), "pictures")
    run = wb.fit(new_model(2, 3), (train, test), **SHORT)
    assert wb.evaluate(run.model, DataLoader(test, batch_size=3)).n == len(test)
    tuned = wb.finetune(run.model, (train, test), "linear", epochs=1, lr=0.1)
    assert tuned.config["data"]["name"] == "ImageFolder"
    table = wb.transfer({"a": run.model}, [(train, test)], "linear", seeds=[0], epochs=1, lr=0.1)
    assert table.rows[0]["target"] == "ImageFolder"


def test_folders_without_a_transform_say_which_to_add(folder):
    plain = [ImageFolder(folder / part) for part in ("train", "test")]
    message = r"images of type PIL.*pass its data set transform=Compose\(\[Resize\(64\)"
    model = new_model(2, 3)
    for call in (
        lambda: wb.fit(model, plain, **SHORT),
        lambda: wb.evaluate(model, plain[1]),
        lambda: wb.evaluate(model, DataLoader(plain[1])),
        lambda: wb.measure(model, plain),
        lambda: wb.finetune(model, plain, 2, epochs=1, lr=0.1),
    ):
        with pytest.raises(TypeError, match=message):
            call()


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_several_sizes_say_which_transform_to_add(folder, workers):
    Image.fromarray(np.zeros((20, 16, 3), np.uint8)).save(folder / "train/dark/odd.png")
    train, test = (ImageFolder(folder / part, TO_TENSOR) for part in ("train", "test"))
    with pytest.raises(wb.UsageError, match=r"several sizes, such as \(3, .*a transform that makes them one, such as"):
        wb.fit(new_model(2, 3), (train, test), **SHORT, workers=workers)
    with pytest.raises(wb.UsageError, match="several sizes"):
        wb.evaluate(new_model(2, 3), loader(train))
    resized = v2.Compose([v2.Resize(12), v2.CenterCrop(12), TO_TENSOR])
    assert wb.fit(new_model(2, 3), (ImageFolder(folder / "train", resized), test), **SHORT).history


def test_what_a_loader_does_beside_batches_is_said_to_be_lost():
    data = tensors()
    for options, lost in (
        ({"batch_size": 4, "sampler": SubsetRandomSampler(range(5))}, r"sampler \(SubsetRandomSampler\)"),
        ({"batch_size": 4, "collate_fn": list}, "collate_fn"),
        ({"batch_sampler": [[0, 1], [2]]}, r"batch_sampler \(list\)"),
    ):
        with pytest.warns(UserWarning, match=f"its {lost} ha(s|ve) no effect here"):
            assert map_style(DataLoader(data, **options)) is data
    for options in ({"shuffle": True}, {"drop_last": True}, {"batch_size": None}, {"num_workers": 2}):
        assert map_style(DataLoader(data, **options)) is data  # no warning: it would be an error here


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: tensors(), r"data=TensorDataset is one data set; pass \(train, test\)"),
        (lambda: loader(tensors()), r"data=DataLoader is one data set; pass \(train, test\)"),
        (lambda: 3, "data=int must be what load_dataset returns, a pair"),
        (lambda: (Stream(), Stream()), r"data\[0\]=Stream must be a map-style data set"),
        (lambda: (tensors(), loader(Stream())), r"data\[1\]=Stream must be a map-style data set"),
        (lambda: (tensors(0), tensors()), "data has no train images"),
        (
            lambda: (TensorDataset(torch.rand(4, 1, 8, 8)),) * 2,
            r"must give pairs \(image, label\), not tuple of length 1",
        ),
        (lambda: (TensorDataset(255 * torch.rand(4, 1, 8, 8), torch.arange(4)),) * 2, "divide 8-bit values by 255"),
        (lambda: (TensorDataset(torch.rand(4, 1, 8, 8), torch.arange(4) - 1),) * 2, "labels from -1 to 2"),
        (lambda: (TensorDataset(torch.rand(4, 1, 8, 8), torch.rand(4)),) * 2, r"must have integer labels \(N,\)"),
        (lambda: ([(torch.rand(1, 8, 8), "cat")],) * 2, "the label 'cat'; labels are whole numbers from 0"),
    ],
)
def test_what_is_no_task_is_refused(data, message):
    with pytest.raises((wb.UsageError, TypeError), match=message):
        wb.fit(new_model(3), data(), **SHORT)


def test_classes_are_named_or_counted(folder):
    assert as_task((tensors(), tensors(2))).classes == ("0", "1", "2")
    assert as_task((tensors(), tensors(2)), classes="abcd").classes == ("a", "b", "c", "d")
    with pytest.raises(wb.UsageError, match=r"data \(train\) has labels from 0 to 2; with num_classes=2"):
        as_task((tensors(), tensors()), classes="ab")
    test = ImageFolder(folder / "test", TO_TENSOR)
    (folder / "train/dark").rename(folder / "train/dim")
    with pytest.raises(wb.UsageError, match=r"other classes in test than in train \(dark, dim\)"):
        as_task((ImageFolder(folder / "train", TO_TENSOR), test))


def test_labels_are_read_without_decoding_images(folder):
    train, test = (ImageFolder(folder / part, TO_TENSOR) for part in ("train", "test"))
    read, load = [], train.loader
    train.loader = test.loader = lambda path: read.append(path) or load(path)
    as_task((train, Subset(test, [0, 1])))
    assert len(read) == 1, "the first image, for the shape"


def test_the_shape_is_read_once():
    task = as_task((Squares(), Squares()))
    state = torch.get_rng_state()
    assert task.shape == task.take(5, 5).shape == (1, 8, 8)
    assert torch.equal(state, torch.get_rng_state())


def test_loaders_elsewhere(tiny):
    data = tensors(8)
    assert torch.equal(wb.stack(loader(data))[0], data.tensors[0])
    of_loader, of_images = (float(wb.InputFisher(tiny, x).trace()) for x in (loader(data), data.tensors[0]))
    assert of_loader == pytest.approx(of_images)
    for source in (loader(data), (data, data)):
        assert torch.equal(wb.extract_features(tiny, source)[0], wb.extract_features(tiny, data)[0])


def test_a_batch_is_that_of_torch():
    samples = [(torch.rand(1, 2, 2), torch.tensor(i)) for i in range(3)]
    images, labels = collate(samples)
    assert torch.equal(images, torch.stack([x for x, _ in samples]))
    assert labels.tolist() == [0, 1, 2]
