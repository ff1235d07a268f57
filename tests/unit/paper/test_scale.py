"""Scales of reproduction: the files, and the experiments that come of them."""

from collections import Counter

import pytest

import waterbed as wb
from waterbed.data.catalog import CATALOG
from waterbed_paper.nodes import nodes
from waterbed_paper.scale import SCALES, Network, read_scale


@pytest.mark.parametrize("name", SCALES)
def test_every_scale_makes_a_graph(name):
    from waterbed_paper.graph import Graph, Place

    scale = read_scale(name)
    graph = Graph(nodes(scale), Place("nowhere"))
    kinds = {id.split("/")[0] for id in graph.nodes}
    assert kinds >= {"network", "accuracy", "measures", "theory", "features", "inversions", "transfer", "distance"}
    for source in scale.sources:
        assert source.data in CATALOG
        assert source.larger_than is None or scale.source(source.larger_than).data == source.data
        assert source.seeds_at(0.0) >= 1, "gaps are taken to the standard network"
    assert all(target in CATALOG for target in scale.transfers.targets)
    assert set(scale.transfers.modes) == set(scale.transfers.epochs)
    files = [n.config["file"] for id, n in graph.nodes.items() if id.startswith("network/")]
    assert len(set(files)) == len(files), "each network has a file of its own"


def test_names_of_networks():
    assert Network("cifar10", "standard", 0.0, 0).name == "cifar10/standard/seed-0"
    assert Network("cifar10", "standard", 0.0, 0).file == "cifar10-standard.safetensors"
    assert Network("cifar10", "adversarial", 0.25, 2).file == "cifar10-eps-0.25-seed-2.safetensors"
    assert Network("cifar10", "gaussian-noise", 1.0, 0).name == "cifar10/gaussian-noise-eps-1/seed-0"


def test_the_cpu_scale_takes_the_networks_that_are_kept():
    """Its settings are those of the recipe that the networks of results/networks were trained with."""
    from pathlib import Path

    from waterbed.cli.options import from_config
    from waterbed.cli.training import Train

    recipe = from_config(Train, Path(__file__).parents[3] / "recipes/cifar10-narrow.toml")
    source = read_scale("cpu").source("cifar10")
    for key in ("data", "model", "width", "epochs", "lr", "augment", "attack_steps", "batch_size", "weight_decay"):
        assert getattr(source, key) == getattr(recipe, key), key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("about = 'x'", r"has no \[\[sources\]\]"),
        ("sources = 3 = 4", "is not TOML"),
        ("about = 'x'\ncolour = 1\n[[sources]]\nname = 'a'\ndata = 'digits'\nseeds = { 0 = 1 }", "colour"),
        ("about = 'x'\n[[sources]]\nname = 'a'", "is incomplete"),
        ("about = 'x'\n[transfers]\nlr = [0.01]\n[[sources]]\nname = 'a'\ndata = 'digits'", "give a table"),
    ],
)
def test_wrong_files(tmp_path, text, said):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(wb.UsageError, match=said):
        read_scale(file)


def test_wrong_names(tmp_path):
    with pytest.raises(wb.UsageError, match="scale='huge'"):
        read_scale("huge")
    with pytest.raises(wb.UsageError, match="cannot be read"):
        read_scale(tmp_path / "none.toml")


def test_a_source_has_its_own_number_of_images_and_modes():
    scale = read_scale("cpu")
    kinds = {source.name: nodes_of(scale, source.name) for source in scale.sources}
    assert kinds["cifar10"]["measures/cifar10/eps-1/seed-2"].config["measured"] == scale.measured == 500
    assert kinds["cifar100"]["measures/cifar100/eps-1/seed-2"].config["measured"] == 100
    assert "transfer/cifar10/eps-1/seed-0/mnist/mode-linear" in kinds["cifar10"]
    assert not any(id.endswith("mode-linear") for id in kinds["cifar100"])
    assert "transfer/cifar100/eps-1/seed-2/mnist/mode-0" in kinds["cifar100"]


@pytest.mark.parametrize("name", ["demo", "cpu"])
def test_theory_is_run_for_one_seed_unless_trainings_with_noise_are_compared(name):
    scale = read_scale(name)
    several = Counter(node.id.rpartition("/")[0] for node in nodes(scale) if node.id.startswith("theory/"))
    assert several[f"theory/{scale.sources[0].name}/eps-1"] == 3
    for source in scale.sources:
        compared = {float(eps): seeds for eps, seeds in source.gaussian_noise.items()}
        trained = Counter((network.name.rpartition("/")[0], network.eps) for network in source.networks())
        for (name, eps), seeds in trained.items():
            assert several[f"theory/{name}"] == min(seeds, compared.get(eps, 1)), name


def nodes_of(scale, source):
    return {node.id: node for node in nodes(scale) if node.id.split("/")[1:2] == [source]}
