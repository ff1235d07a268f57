"""The tasks that a tool makes of fonts and of other tasks."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from tests.programs import ROOT, load_program

from waterbed.data.load import load_dataset
from waterbed_paper.scale import read_scale

FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
pytestmark = pytest.mark.skipif(not (ROOT / "tools").is_dir(), reason="only in a checkout")


@pytest.fixture(scope="module")
def tasks():
    return load_program("tools/make_tasks.py")


def test_letters_are_split_by_family(tasks, tmp_path, monkeypatch):
    found = {name: sorted(files)[:1] for name, files in tasks.families([FONTS]).items()}
    assert set(found) >= {"dejavu"}
    assert not any("Display" in file.stem for files in found.values() for file in files), "no letters, no font of them"
    monkeypatch.setattr(tasks, "families", lambda folders: {f"font{i}": found["dejavu"] for i in range(6)})
    tasks.main(tmp_path, [FONTS])
    data = load_dataset(tmp_path / "letters")
    assert data.classes == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert data.shape == (1, 32, 32)
    names = {part: {p.name.split("-")[0] for p in (tmp_path / "letters" / part).rglob("*.png")} for part in PARTS}
    assert names["train"]
    assert names["test"]
    assert not names["train"] & names["test"]
    before = sorted((tmp_path / "letters").rglob("*"))
    tasks.main(tmp_path, [FONTS])
    assert sorted((tmp_path / "letters").rglob("*")) == before


PARTS = ("train", "test")


def test_a_letter_fills_its_square(tasks):
    i = np.asarray(tasks.draw(FONTS / "DejaVuSans.ttf", "W"))
    assert i.shape == (32, 32)
    assert i[:3].max() == i[:, :3].max() == i[:, -3:].max() == 0, "a margin"
    assert (i.max(0)[3:-3] > 0).all(), "as wide as fits"


def test_coarser_classes_are_links_to_the_same_images(tasks, tmp_path):
    for part in PARTS:
        for name in ("beaver", "whale", "orchid"):
            file = tmp_path / "cifar100" / part / name / "1.png"
            file.parent.mkdir(parents=True)
            Image.new("RGB", (4, 4), (len(name), 0, 0)).save(file)
    assert tasks.join_classes(tmp_path, "coarse", *tasks.VARIANTS["cifar100-superclasses"]) == 6
    data = load_dataset(tmp_path / "coarse")
    assert data.classes == ("aquatic_mammals", "flowers")
    assert np.bincount(data.train.labels).tolist() == [2, 1]
    link = tmp_path / "coarse/train/flowers/orchid-1.png"
    assert link.samefile(tmp_path / "cifar100/train/orchid/1.png")


def test_every_class_of_a_set_has_one_group(tasks):
    counts = {"CIFAR100": (100, 20), "CALTECH101": (101, 12), "GTSRB": (43, 5)}
    for table, (classes, groups) in counts.items():
        lines = [line.partition(": ") for line in getattr(tasks, table).strip().splitlines()]
        names = [name for _, _, rest in lines for name in rest.split()]
        assert (len(names), len(set(names)), len(lines)) == (classes, classes, groups), table


def test_the_scale_names_what_each_is_a_variant_of(tasks):
    further = read_scale("cpu").probes.further
    assert {name: of for name, of in further.items() if of} == {name: of for name, (of, _) in tasks.VARIANTS.items()}
    assert [name for name, of in further.items() if not of] == ["letters"]
