"""The experiment of the probe study on a tiny network and embedded digits."""

from dataclasses import replace

import pytest
import torch

import waterbed as wb
from waterbed.errors import UsageError
from waterbed.models.checkpoints import save_model
from waterbed_paper.experiments_probe import features_of, probe_study
from waterbed_paper.graph import Place
from waterbed_paper.plan import plan_nodes
from waterbed_paper.scale import read_scale


@pytest.fixture(scope="module")
def node():
    """The first node of the demo's study, with a short recipe."""
    node = next(n for n in plan_nodes(read_scale("demo")) if n.id.startswith("probe/"))
    more = {"sizes": (20, 100), "held": 50, "test": 80, "epochs": 6, "milestones": (2, 4), "strengths": (1e-3, 1e-1)}
    return replace(node, config=node.config | more)


@pytest.fixture(scope="module")
def place(node, tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("study"))
    place.network(node.config["file"]).parent.mkdir()
    model = wb.create_model("resnet10", 10, width=2)
    save_model(model, place.network(node.config["file"]))
    return place


def test_every_probe_is_recorded_once_at_its_size(node, place):
    result = probe_study(place, node.config)
    assert (result["held"], result["test"], result["classes"]) == (50, 80, 10)
    seen = [(r["solver"], r["standardised"], r["size"], r.get("lr"), r["weight_decay"]) for r in result["probes"]]
    assert len(set(seen)) == len(seen)
    few = [r for r in result["probes"] if r["size"] == 20]
    assert [(r["solver"], r.get("lr"), r.get("length")) for r in few if r["solver"] == "sgd"] == [
        ("sgd", 0.01, 0.0004),
        ("sgd", 25.0, 1.0),  # 0.01 on 50,000 images
    ]
    longest = max(r["length"] for r in result["probes"] if "length" in r)
    assert longest == 4.0
    assert sum(r["solver"] == "logistic" for r in result["probes"]) == 2 * 2
    assert all(0 <= r[part] <= 100 for r in result["probes"] for part in ("held", "test"))
    assert max(r["test"] for r in result["probes"]) > 20, "better than chance"


def test_parts_are_disjoint_and_kept(node, place):
    first = features_of(place, node.config)
    (file,) = (place.out / "features").iterdir()
    before = file.stat().st_mtime_ns
    again = features_of(place, node.config)
    assert file.stat().st_mtime_ns == before
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert [len(first[part]) for part in ("train", "held", "test")] == [100, 50, 80]
    both = torch.cat([first["train"], first["held"]])
    assert len(both.unique(dim=0)) == 150
    order = torch.randperm(1437, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([wb.load_dataset("digits").train[int(i)][1] for i in order[:150]])
    assert torch.equal(torch.cat([first["train_labels"], first["held_labels"]]), labels)


def test_too_few_images(node, place):
    with pytest.raises(UsageError, match="'digits' has 1437 training images, and sizes and held ask for 1550"):
        features_of(place, node.config | {"sizes": (1500,)})
