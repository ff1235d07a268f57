"""The scales gpu and full with their own networks, attacks and schedules, for a few steps on made-up images."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from waterbed_paper.graph import Graph, Place
from waterbed_paper.plan import plan_nodes
from waterbed_paper.scale import read_scale


def made_up_data(root, names, side):
    """Folders of images, 2 classes each."""
    rng = np.random.default_rng(0)
    for name in names:
        for part, count in (("train", 8), ("test", 8)):
            for label in ("a", "b"):
                folder = root / name / part / label
                folder.mkdir(parents=True)
                for i in range(count):
                    pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "eps", "target", "side"),
    [("gpu", "cifar10", "eps-1", "svhn", 32), ("full", "imagenet", "eps-3", "fgvc-aircraft", 64)],
)
def test_recipe_runs_for_a_few_steps(tmp_path, name, source, eps, target, side):
    scale = read_scale(name)
    made_up_data(tmp_path / "data", (source, target), side)
    scale = replace(
        scale,
        sources=tuple(
            replace(s, training=replace(s.training, epochs=1, batch_size=8, lr=0.001)) for s in scale.sources
        ),
        transfers=replace(
            scale.transfers, epochs=dict.fromkeys(scale.transfers.modes, 1), attack_eps=(0.25,), bounds=0
        ),
        inversions=replace(scale.inversions, images=2, shown=2, steps=2, num_samples=2),
    )
    graph = Graph(plan_nodes(scale), Place(tmp_path / "out", str(tmp_path / "data")))
    kinds = ["features", "accuracy", *(f"transfer/{source}/{eps}/seed-0/{target}/mode-{mode}" for mode in (0, 1, 2))]
    only = [kind if "/" in kind else f"{kind}/{source}/{eps}/seed-0" for kind in kinds]
    assert graph.run(only, progress=False) == {}
    trained = graph.result(f"network/{source}/{eps}/seed-0")
    assert len(trained["weight_norms"]) == 1
    assert 0 <= graph.result(only[-1])["accuracy"] <= 100
