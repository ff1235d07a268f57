"""A ResNet-50 with the ImageNet stem on a made-up tree of ImageNet's layout, by the commands of the real one."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from waterbed.__main__ import main
from waterbed.data.catalog import CATALOG


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two classes of photographs of several sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name in ("n01440764", "n01443537"):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (70 + 10 * i, 90, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}_{i}.JPEG")
    monkeypatch.setitem(CATALOG, "imagenet", replace(CATALOG["imagenet"], classes=2, train_size=12, test_size=6))
    return tmp_path


def test_resnet50_by_the_commands_of_the_real_thing(root, tmp_path, capsys):
    common = f"--root {root} --size 64 --model resnet50 --stem imagenet --width 8 --batch-size 4 --attack-steps 1"
    train = f"train imagenet --out {tmp_path}/run --epochs 1 --eps 3 --workers 1 {common}"
    assert main([*train.split(), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "peak memory" in printed
    assert "3 an epoch" in printed
    assert main(train.split()) == 0
    words = f"evaluate {tmp_path}/run --steps 1 --eps 3 --out {tmp_path}/e.json --root {root}"
    assert main(words.split()) == 0
    assert json.loads((tmp_path / "e.json").read_text())["run"]["n"] == 6
    words = f"measure {tmp_path}/run --num-samples 2 --out {tmp_path}/m.json --root {root}"
    assert main(words.split()) == 0
