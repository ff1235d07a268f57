"""The official file lists and labels of sets of photographs, read from the annotation files they come with.

Each reader takes the folder that holds the marker of its :class:`~waterbed.data.catalog.Source` and opens no image.
Torchvision reads some of these sets, too, but keeps its file lists private and hashes the annotations on every start.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from waterbed.data.folders import Files, LabelledFiles, class_folders, list_classes, list_folder
from waterbed.files import digest


def imagenet(folder: Path) -> Files:
    """``train/<WordNet id>/*`` and ``val/<WordNet id>/*``."""
    return list_folder(folder, ("train", "val"))


def oxford_flowers(folder: Path) -> Files:
    """``imagelabels.mat`` gives the class of each image, from 1; ``setid.mat`` the image numbers of each split."""
    from torchvision.datasets import Flowers102

    labels = _mat(folder / "imagelabels.mat", "labels")

    def listed(*splits: str) -> LabelledFiles:
        numbers = [int(i) for split in splits for i in _mat(folder / "setid.mat", split)]
        return [(folder / "jpg" / f"image_{i:05d}.jpg", int(labels[i - 1]) - 1) for i in numbers]

    names = getattr(Flowers102, "classes", range(1, 103))  # older versions of torchvision have none
    return Files(listed("trnid", "valid"), listed("tstid"), tuple(str(name) for name in names))


def cub(folder: Path) -> Files:
    """Lines ``<image> <value>`` in four files; 1 in ``train_test_split.txt`` marks the training images."""
    images, labels, training, classes = (
        dict(line.split(maxsplit=1) for line in _lines(folder / f"{name}.txt"))
        for name in ("images", "image_class_labels", "train_test_split", "classes")
    )

    def listed(mark: str) -> LabelledFiles:
        return [(folder / "images" / images[i], int(labels[i]) - 1) for i in images if training[i] == mark]

    return Files(listed("1"), listed("0"), tuple(_words(name.partition(".")[2]) for name in classes.values()))


def fgvc_aircraft(folder: Path) -> Files:
    """Lines ``<image> <variant>`` in one file per split."""
    classes = tuple(_lines(folder / "data/variants.txt"))
    numbers = {name: i for i, name in enumerate(classes)}

    def listed(split: str) -> LabelledFiles:
        pairs = (line.split(maxsplit=1) for line in _lines(folder / f"data/images_variant_{split}.txt"))
        return [(folder / "data/images" / f"{image}.jpg", numbers[variant]) for image, variant in pairs]

    return Files(listed("trainval"), listed("test"), classes)


def stanford_cars(folder: Path) -> Files:
    """Fields ``fname`` and ``class`` (from 1) of two annotation files, and the class names of the devkit."""

    def listed(annotations: str, images: str) -> LabelledFiles:
        rows = _mat(folder / annotations, "annotations")
        return [(folder / images / str(row["fname"]), int(row["class"]) - 1) for row in rows]

    classes = tuple(str(name) for name in _mat(folder / "devkit/cars_meta.mat", "class_names"))
    return Files(
        listed("devkit/cars_train_annos.mat", "cars_train"),
        listed("cars_test_annos_withlabels.mat", "cars_test"),
        classes,
    )


def stanford_dogs(folder: Path) -> Files:
    """Paths ``<WordNet id>-<breed>/<image>`` in two .mat files; the classes are the sorted folders."""
    files = _by_folder(
        folder / "Images", *(map(str, _mat(folder / f"{part}_list.mat", "file_list")) for part in ("train", "test"))
    )
    return files._replace(classes=tuple(_words(name.partition("-")[2]) for name in files.classes))


def mit_indoor(folder: Path) -> Files:
    """Paths ``<scene>/<image>`` in two text files."""
    files = _by_folder(folder / "Images", *(_lines(folder / f"{part}Images.txt") for part in ("Train", "Test")))
    return files._replace(classes=tuple(_words(name) for name in files.classes))


def cinic_imagenet(folder: Path) -> Files:
    """``train/<class>`` and ``test/<class>``: only files named after a WordNet id, such as ``n02130308_4895.png``."""
    classes = class_folders(folder / "train")
    train, test = (list_classes(folder / part, classes, "n[0-9]*") for part in ("train", "test"))
    return Files(train, test, classes)


def caltech101(folder: Path) -> Files:
    """30 training images per class, drawn by the digest of their names: the same split for everyone."""
    images = folder / "101_ObjectCategories"
    classes = tuple(name for name in class_folders(images) if name != "BACKGROUND_Google")
    files = Files([], [], classes)
    for label, name in enumerate(classes):
        listed = [(path, label) for path, _ in list_classes(images, (name,))]
        listed.sort(key=lambda item: digest([f"{item[0].parent.name}/{item[0].name}"]))
        files.train.extend(listed[:30])
        files.test.extend(listed[30:])
    return files


def gtsrb(folder: Path) -> Files:
    """``GTSRB/Training/<class>/*`` and a table of the test images with ``Filename`` and ``ClassId``."""
    classes = class_folders(folder / "GTSRB/Training")
    with (folder / "GT-final_test.csv").open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter=";"))
    test = [(folder / "GTSRB/Final_Test/Images" / row["Filename"], int(row["ClassId"])) for row in rows]
    return Files(list_classes(folder / "GTSRB/Training", classes), test, tuple(str(int(name)) for name in classes))


READERS: dict[str, Callable[[Path], Files]] = {
    "imagenet": imagenet,
    "oxford-flowers": oxford_flowers,
    "cub-200-2011": cub,
    "fgvc-aircraft": fgvc_aircraft,
    "stanford-cars": stanford_cars,
    "stanford-dogs": stanford_dogs,
    "mit-indoor": mit_indoor,
    "cinic-imagenet": cinic_imagenet,
    "caltech101": caltech101,
    "gtsrb": gtsrb,
    "tiny-imagenet-100": list_folder,
    "omniglot": list_folder,
}


def _by_folder(images: Path, train: Iterable[str], test: Iterable[str]) -> Files:
    """Files from paths ``<class>/<image>``; the classes are the sorted folders."""
    parts = [list(train), list(test)]
    classes = tuple(sorted({path.split("/")[0] for part in parts for path in part}))
    numbers = {name: i for i, name in enumerate(classes)}
    listed = [[(images / path, numbers[path.split("/")[0]]) for path in part] for part in parts]
    return Files(*listed, classes)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _mat(path: Path, variable: str) -> np.ndarray:
    """One variable (N,) of a MATLAB file; :class:`OSError` if it cannot be read."""
    from scipy.io import loadmat

    with path.open("rb") as file:
        try:
            return np.atleast_1d(loadmat(file, squeeze_me=True)[variable])
        except Exception as error:  # scipy raises almost anything on a truncated file
            raise OSError(f"{path} is not a MATLAB file with {variable!r}") from error
