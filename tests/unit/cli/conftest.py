"""What the commands are run on."""

import pytest

from waterbed.__main__ import main


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Two trained runs, standard and robust, on a folder with two classes of 16 x 12 pictures."""
    import numpy as np
    from PIL import Image

    place = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 6)):
        for name, level in (("bright", 150), ("dark", 40)):
            (place / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(level, level + 60, (12, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / "data" / split / name / f"{i}.jpg")
    for name, objective in (("standard", "standard"), ("robust", "trades")):
        words = f"train {place}/data --out {place}/{name} --objective {objective} --model resnet10 --width 2 --size 8"
        assert main([*words.split(), "--epochs", "2", "--batch-size", "16", "--attack-steps", "2"]) == 0
    return place
