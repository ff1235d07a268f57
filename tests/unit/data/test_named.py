"""Named data sets, on made-up trees of the layouts that the real ones unpack to."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

import waterbed as wb
from waterbed.__main__ import main
from waterbed.data.catalog import CATALOG, METRICS
from waterbed.data.named import locate
from waterbed.data.readers import READERS

# Table 4 of the paper as printed: classes, training size, test size.
TABLE_4 = {
    "imagenet": (1000, 1281167, 50000),
    "cifar10": (10, 50000, 10000),
    "cifar100": (100, 50000, 10000),
    "mnist": (10, 60000, 10000),
    "fashion-mnist": (10, 60000, 10000),
    "svhn": (10, 73257, 26032),
    "oxford-flowers": (102, 2040, 6149),
    "cub-200-2011": (200, 5994, 5794),
    "fgvc-aircraft": (100, 6667, 3333),
    "stanford-cars": (196, 8144, 8041),
    "stanford-dogs": (120, 12000, 8580),
    "mit-indoor": (67, 5360, 1340),
}
EMBEDDED = {"fashion-mini", "digits"}
LEVEL = 60  # an image of class k is of the constant grey 60 k + 30


def picture(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (11, 9), (LEVEL * label + 30,) * 3).save(path)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def cells(*words):
    """A MATLAB cell array of words, as a column."""
    return np.array([[word] for word in words], dtype=object)


def imagenet(root):
    for part, names in (("train", "ab"), ("val", "c")):
        for label, wnid in enumerate(("n01440764", "n01443537")):
            for name in names:
                picture(root / f"imagenet/{part}/{wnid}/{wnid}_{name}.JPEG", label)


def oxford_flowers(root):
    base, labels = root / "flowers-102", [2, 1, 2, 1, 1]
    for i, label in enumerate(labels, 1):
        picture(base / f"jpg/image_{i:05d}.jpg", label - 1)
    savemat(base / "imagelabels.mat", {"labels": [labels]})
    savemat(base / "setid.mat", {"trnid": [[5, 1]], "valid": [[2, 3]], "tstid": [[4]]})


def cub(root):
    base = root / "CUB_200_2011"
    files = ["001.Black_footed_Albatross/a b.jpg", "002.Laysan_Albatross/a.jpg", "002.Laysan_Albatross/b.jpg"]
    for name in files:
        picture(base / "images" / name, int(name[2]) - 1)
    text(base / "images.txt", *(f"{i} {name}" for i, name in enumerate(files, 1)))
    text(base / "image_class_labels.txt", "1 1", "2 2", "3 2")
    text(base / "train_test_split.txt", "1 1", "2 0", "3 1")
    text(base / "classes.txt", "1 001.Black_footed_Albatross", "2 002.Laysan_Albatross")


def fgvc_aircraft(root):
    data = root / "fgvc-aircraft-2013b/data"
    for name, label in (("0034309", 1), ("0034958", 0), ("0037511", 1)):
        picture(data / f"images/{name}.jpg", label)
    text(data / "variants.txt", "707-320", "Boeing 717")
    text(data / "images_variant_trainval.txt", "0034309 Boeing 717", "0034958 707-320")
    text(data / "images_variant_test.txt", "0037511 Boeing 717")


def stanford_cars(root):
    base = root / "stanford_cars"
    kind = [("bbox_x1", object), ("class", object), ("fname", object)]
    for part, labels in (("train", [2, 1]), ("test", [2, 1])):
        for i, label in enumerate(labels, 1):
            picture(base / f"cars_{part}/{i:05d}.jpg", label - 1)
        rows = np.array([[(30, label, f"{i:05d}.jpg") for i, label in enumerate(labels, 1)]], dtype=kind)
        name = "devkit/cars_train_annos.mat" if part == "train" else "cars_test_annos_withlabels.mat"
        (base / "devkit").mkdir(exist_ok=True)
        savemat(base / name, {"annotations": rows})
    names = np.array([["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"]], dtype=object)
    savemat(base / "devkit/cars_meta.mat", {"class_names": names})


def stanford_dogs(root):
    base = root / "stanford-dogs"
    parts = {
        "train": ["n02085620-Chihuahua/n02085620_5927.jpg", "n02116738-African_hunting_dog/n02116738_1.jpg"],
        "test": ["n02116738-African_hunting_dog/n02116738_2.jpg"],
    }
    for part, files in parts.items():
        for name in files:
            picture(base / "Images" / name, int("African" in name))
        savemat(base / f"{part}_list.mat", {"file_list": cells(*files), "labels": [[1]] * len(files)})


def mit_indoor(root):
    base = root / "mit-indoor"
    parts = {"Train": ["mall/shopping mall.jpg", "airport_inside/a.jpg"], "Test": ["mall/b.jpg"]}
    for part, files in parts.items():
        for name in files:
            picture(base / "Images" / name, int("mall" in name))
        text(base / f"{part}Images.txt", *files)
    picture(base / "Images/mall/in_no_list.jpg", 3)


def cinic_imagenet(root):
    for part in ("train", "valid", "test"):
        for label, name in enumerate(("airplane", "automobile")):
            place = root / "cinic-imagenet" / part / name
            picture(place / f"n02690373_{label}.png", label)
            picture(place / f"cifar10-train-{label}.png", 3)


def in_parts(name):
    """Builds train/<class>/* and test/<class>/*, the layout of a set that has no other."""

    def build(root):
        for part in ("train", "test"):
            for label, class_name in enumerate(("a", "b")):
                picture(root / name / part / class_name / f"{part}-{label}.png", label)

    return build


def caltech101(root):
    for label, name in enumerate(("Faces", "accordion")):
        for i in range(1, 33 + label):
            picture(root / f"caltech101/101_ObjectCategories/{name}/image_{i:04d}.jpg", label)
    picture(root / "caltech101/101_ObjectCategories/BACKGROUND_Google/image_0001.jpg", 3)


def gtsrb(root):
    base = root / "gtsrb"
    for label in range(2):
        picture(base / f"GTSRB/Training/0000{label}/00000_00000.ppm", label)
        text(base / f"GTSRB/Training/0000{label}/GT-0000{label}.csv", "Filename;ClassId")
    picture(base / "GTSRB/Final_Test/Images/00000.ppm", 1)
    text(base / "GT-final_test.csv", "Filename;Width;ClassId", "00000.ppm;11;1")


# Builder, training and test size, the names of classes 0 and 1, one of the images.
TREES = {
    "imagenet": (imagenet, 4, 2, ("n01440764", "n01443537"), "imagenet/val/n01443537/n01443537_c.JPEG"),
    "oxford-flowers": (oxford_flowers, 4, 1, None, "flowers-102/jpg/image_00004.jpg"),
    "cub-200-2011": (
        cub,
        2,
        1,
        ("Black footed Albatross", "Laysan Albatross"),
        "CUB_200_2011/images/001.Black_footed_Albatross/a b.jpg",
    ),
    "fgvc-aircraft": (fgvc_aircraft, 2, 1, ("707-320", "Boeing 717"), "fgvc-aircraft-2013b/data/images/0034309.jpg"),
    "stanford-cars": (
        stanford_cars,
        2,
        2,
        ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"),
        "stanford_cars/cars_test/00001.jpg",
    ),
    "stanford-dogs": (
        stanford_dogs,
        2,
        1,
        ("Chihuahua", "African hunting dog"),
        "stanford-dogs/Images/n02085620-Chihuahua/n02085620_5927.jpg",
    ),
    "mit-indoor": (mit_indoor, 2, 1, ("airport inside", "mall"), "mit-indoor/Images/mall/b.jpg"),
    "cinic-imagenet": (
        cinic_imagenet,
        2,
        2,
        ("airplane", "automobile"),
        "cinic-imagenet/test/airplane/n02690373_0.png",
    ),
    "caltech101": (
        caltech101,
        60,
        5,
        ("Faces", "accordion"),
        "caltech101/101_ObjectCategories/accordion/image_0007.jpg",
    ),
    "gtsrb": (gtsrb, 2, 1, ("0", "1"), "gtsrb/GTSRB/Final_Test/Images/00000.ppm"),
    **{
        name: (in_parts(name), 2, 2, ("a", "b"), f"{name}/test/a/test-0.png")
        for name in ("tiny-imagenet-100", "omniglot")
    },
}


@pytest.fixture
def tree(request, tmp_path, monkeypatch):
    """A root with the made-up copy of one set, complete by a catalogue that was changed to say so."""
    name = request.param
    build, train, test, *_ = TREES[name]
    classes = 102 if name == "oxford-flowers" else 2
    changed = replace(CATALOG[name], classes=classes, train_size=train, test_size=test)
    monkeypatch.setitem(CATALOG, name, changed)
    build(tmp_path)
    return name, tmp_path


def every(function):
    return pytest.mark.parametrize("tree", TREES, indirect=True)(function)


def test_every_named_set_has_a_reader_and_the_metric_of_its_field():
    assert set(TREES) == set(READERS)
    for name, source in CATALOG.items():
        assert source.metric in METRICS
        assert source.obtain
        assert (source.obtain == "embedded") == (name in EMBEDDED)
        assert name in EMBEDDED or name in READERS or hasattr(datasets, source.torchvision)
        assert source.torchvision is None or hasattr(datasets, source.torchvision)
        assert (source.size is None) == (name not in READERS)
    per_class = {name for name, source in CATALOG.items() if source.metric == "mean per-class"}
    assert per_class == {"oxford-flowers", "fgvc-aircraft", "mit-indoor", "caltech101"}


@pytest.mark.parametrize("name", TABLE_4)
def test_the_catalogue_has_the_counts_of_table_4(name):
    source = CATALOG[name]
    assert (source.classes, source.train_size, source.test_size) == TABLE_4[name]


@every
def test_official_split_and_labels(tree):
    name, root = tree
    _, train, test, classes, _ = TREES[name]
    data = wb.load_dataset(name, root=root, size=8)
    assert data.shape == (1 if name == "omniglot" else 3, 8, 8)
    assert (len(data.train), len(data.test)) == (train, test)
    assert (data.metric, data.flip, data.name) == (CATALOG[name].metric, CATALOG[name].flip, name)
    if classes is not None:
        assert data.classes == classes
    seen = set()
    for part in (data.train, data.test):
        for x, y in part:
            assert float(x.mean() * 255) == pytest.approx(LEVEL * y + 30, abs=1.5), "the image of another class"
            seen.add(y)
    assert seen == {0, 1}


@pytest.mark.parametrize("tree", ["fgvc-aircraft", "stanford-cars", "gtsrb"], indirect=True)
def test_lists_agree_with_torchvision(tree):
    name, root = tree
    reader = {"fgvc-aircraft": "FGVCAircraft", "stanford-cars": "StanfordCars", "gtsrb": "GTSRB"}[name]
    files = READERS[name](locate(CATALOG[name], root))
    for listed, split in ((files.train, "trainval" if name == "fgvc-aircraft" else "train"), (files.test, "test")):
        theirs = [(image.tobytes(), label) for image, label in getattr(datasets, reader)(str(root), split=split)]
        assert [(Image.open(path).convert("RGB").tobytes(), label) for path, label in listed] == theirs


@pytest.mark.parametrize("tree", ["mit-indoor", "cinic-imagenet"], indirect=True)
def test_size_channels_and_part(tree):
    name, root = tree
    side = {"mit-indoor": 224, "cinic-imagenet": 32}[name]
    data = wb.load_dataset(name, root=root)
    assert data.shape == (3, side, side)
    assert data.take(1, 1).metric == data.metric
    assert wb.load_dataset(name, root=root, size=8, channels=1).shape == (1, 8, 8)


@every
def test_half_a_set_is_refused(tree):
    name, root = tree
    (root / TREES[name][-1]).unlink()
    with pytest.raises(wb.UsageError, match=r"training and .* test images of .* a complete one has") as caught:
        wb.load_dataset(name, root=root, size=8)
    for part in (repr(name), str(locate(CATALOG[name], root)), CATALOG[name].instructions(root)):
        assert part in str(caught.value)


ANNOTATIONS = {
    "oxford-flowers": "flowers-102/setid.mat",
    "cub-200-2011": "CUB_200_2011/classes.txt",
    "fgvc-aircraft": "fgvc-aircraft-2013b/data/images_variant_trainval.txt",
    "stanford-cars": "stanford_cars/devkit/cars_meta.mat",
    "stanford-dogs": "stanford-dogs/train_list.mat",
    "mit-indoor": "mit-indoor/TrainImages.txt",
    "gtsrb": "gtsrb/GT-final_test.csv",
}


@pytest.mark.parametrize("damage", ["cut", "no text", "missing"])
@pytest.mark.parametrize("tree", ANNOTATIONS, indirect=True)
def test_damaged_annotations_are_refused(tree, damage):
    name, root = tree
    path = root / ANNOTATIONS[name]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\xff\xfe\x00 \n\xff")
    if damage == "missing":
        path.unlink()
    with pytest.raises(wb.UsageError, match=f"the data set '{name}'") as caught:
        wb.load_dataset(name, root=root, size=8)
    assert CATALOG[name].instructions(root) in str(caught.value)


def test_a_missing_set_says_how_to_get_it(tmp_path):
    with pytest.raises(wb.UsageError, match=r"'cub-200-2011' is not in root=.*CUB_200_2011.tgz of https://"):
        wb.load_dataset("cub-200-2011", root=tmp_path)
    with pytest.raises(wb.UsageError, match=r"download=True cannot fetch the data set 'stanford-cars'.*from a mirror"):
        wb.load_dataset("stanford-cars", root=tmp_path, download=True)
    (tmp_path / "CUB_200_2011/images").mkdir(parents=True)
    with pytest.raises(wb.UsageError, match=r"CUB_200_2011' is not complete: train_test_split.txt is missing; remove"):
        wb.load_dataset("cub-200-2011", root=tmp_path)


@pytest.mark.parametrize("tree", ["oxford-flowers", "gtsrb", "caltech101", "imagenet"], indirect=True)
def test_torchvision_is_asked_only_with_download(tree, monkeypatch):
    name, root = tree
    calls = []

    def reader(**arguments):
        calls.append(arguments)
        TREES[name][0](root)

    monkeypatch.setattr(datasets, CATALOG[name].torchvision, reader)
    wb.load_dataset(name, root=root, download=True, size=8)
    assert calls == [], "it is there"
    shutil.rmtree(root / CATALOG[name].folder)
    with pytest.raises(wb.UsageError, match="download=True"):
        wb.load_dataset(name, root=root, size=8)
    assert calls == []
    assert len(wb.load_dataset(name, root=root, download=True, size=8).train) == TREES[name][1]
    common = {"root": str(root / "imagenet")} if name == "imagenet" else {"root": str(root), "download": True}
    splits = {"gtsrb": ["train", "test"], "imagenet": ["train", "val"]}.get(name)
    assert calls == ([{**common, "split": s} for s in splits] if splits else [common])


def test_failed_download_is_an_error_of_use(tmp_path, monkeypatch):
    def reader(**_):
        raise OSError("no route to host\nand more")

    for name in ("fgvc-aircraft", "svhn"):
        monkeypatch.setattr(datasets, CATALOG[name].torchvision, reader)
        with pytest.raises(wb.UsageError, match=rf"'{name}' .*\(no route to host\); download=True fetches it"):
            wb.load_dataset(name, root=tmp_path, download=True)


class InMemory:
    """What torchvision's CIFAR-10 looks like: images (N, H, W, C)."""

    classes = ("airplane", "automobile")

    def __init__(self, root, train, download):
        count = 3 if train else 2
        self.data = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(8, 1).repeat(8, 2).repeat(3, 3)
        self.targets = [i % 2 for i in range(count)]


def test_sets_that_torchvision_reads_are_counted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "CIFAR10", InMemory)
    with pytest.raises(wb.UsageError, match=r"'cifar10'.* has 3 training and 2 test images of 2 classes.*50,000"):
        wb.load_dataset("cifar10", root=tmp_path)
    monkeypatch.setitem(CATALOG, "cifar10", replace(CATALOG["cifar10"], classes=2, train_size=3, test_size=2))
    data = wb.load_dataset("cifar10", root=tmp_path)
    assert data.shape == (3, 8, 8)
    assert float(data.train[2][0].mean() * 255) == pytest.approx(2)


def test_a_set_arranged_by_hand(folder, tmp_path, monkeypatch):
    folder.rename(tmp_path / "stanford-cars")
    with pytest.raises(wb.UsageError, match=r"24 training and 8 test images of 2 classes.*pass that folder"):
        wb.load_dataset("stanford-cars", root=tmp_path)
    assert len(wb.load_dataset(tmp_path / "stanford-cars").train) == 24
    changed = replace(CATALOG["stanford-cars"], classes=2, train_size=24, test_size=8)
    monkeypatch.setitem(CATALOG, "stanford-cars", changed)
    data = wb.load_dataset("stanford-cars", root=tmp_path, size=8)
    assert (data.name, data.flip, data.shape) == ("stanford-cars", True, (3, 8, 8))


@pytest.mark.parametrize("place", ["CUB_200_2011", "cub-200-2011", "cub-200-2011/CUB_200_2011"])
def test_a_set_is_found_where_it_was_unpacked(place, tmp_path):
    assert locate(CATALOG["cub-200-2011"], tmp_path) is None
    cub(tmp_path / "made")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "made/CUB_200_2011").rename(tmp_path / place)
    assert locate(CATALOG["cub-200-2011"], tmp_path) == tmp_path / place


def test_caltech_split_is_the_same_for_all(tmp_path):
    """A change of the draw would change every published number, so the drawn images are written out here."""
    caltech101(tmp_path)
    files = READERS["caltech101"](tmp_path / "caltech101")
    drawn = [
        "Faces/image_0032.jpg",
        "Faces/image_0010.jpg",
        "accordion/image_0010.jpg",
        "accordion/image_0007.jpg",
        "accordion/image_0011.jpg",
    ]
    assert [f"{p.parent.name}/{p.name}" for p, _ in files.test] == drawn
    assert len(files.train) == 60
    assert not {p for p, _ in files.train} & {p for p, _ in files.test}


def test_the_list_tells_what_is_there(tmp_path, capsys):
    mit_indoor(tmp_path)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/train-images-idx3-ubyte").touch()
    assert main(["data", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    assert set(rows) == set(CATALOG)
    for name, state in (("mit-indoor", "yes"), ("mnist", "in part"), ("svhn", "no"), ("digits", "yes")):
        assert rows[name].split("│")[-2].strip() == state
    assert "mean per-class" in rows["mit-indoor"]
    assert f"mit-indoor: {tmp_path / 'mit-indoor'}" in out
    assert "stanford-dogs: missing; unpack images.tar" in out
    assert max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 100


def test_description_of_a_named_set(tmp_path, monkeypatch, capsys):
    gtsrb(tmp_path)
    monkeypatch.setitem(CATALOG, "gtsrb", replace(CATALOG["gtsrb"], classes=2, train_size=2, test_size=1))
    assert main(["data", "gtsrb", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "3 x 32 x 32" in out
    assert "split: torchvision's" in out
