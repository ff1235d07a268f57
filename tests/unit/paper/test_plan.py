"""The plan of experiments, and that the results in the repository are those of its settings."""

from collections import Counter
from pathlib import Path

import pytest

from waterbed.data.catalog import CATALOG
from waterbed_paper.graph import Graph, Place
from waterbed_paper.plan import plan_nodes
from waterbed_paper.scale import SCALES, read_scale

RESULTS = Path(__file__).parents[3] / "results/cpu"


@pytest.mark.skipif(not RESULTS.is_dir(), reason="only in a checkout")
def test_no_experiment_of_the_cpu_scale_is_left():
    """A changed name, version or setting of an experiment would run it again: about half a day in all."""
    graph = Graph(plan_nodes(read_scale("cpu")), Place(RESULTS))
    begun = ("protocols/", "convergence-")
    missing = [id for id in graph.missing() if not id.startswith(begun)]
    assert len(graph.nodes) == 403 + 173 + 140 + 14 + 14
    assert missing == []


@pytest.mark.parametrize("name", SCALES)
def test_every_scale_makes_a_graph(name):
    scale = read_scale(name)
    graph = Graph(plan_nodes(scale), Place("nowhere"))
    kinds = {id.split("/")[0] for id in graph.nodes}
    assert kinds >= {"network", "accuracy", "measures", "theory", "features", "inversions", "transfer", "distance"}
    for source in scale.sources:
        assert source.data in CATALOG
        assert source.larger_than is None or scale.source(source.larger_than).data == source.data
        assert source.seeds_at(0.0) >= 1, "gaps are taken to the standard network"
    assert all(target in CATALOG for target in (*scale.transfers.targets, *scale.probes.targets))
    assert set(scale.transfers.modes) == set(scale.transfers.epochs)
    files = [n.config["file"] for id, n in graph.nodes.items() if id.startswith("network/")]
    assert len(set(files)) == len(files), "each network has a file of its own"


@pytest.mark.parametrize(("name", "papers"), [("cpu", {"paper"}), ("full", {"paper", "paper-imagenet"})])
def test_the_paper_s_protocol_and_a_tuned_one_are_run_side_by_side(name, papers):
    nodes = [node for node in plan_nodes(read_scale(name)) if node.id.startswith("protocols/")]
    assert {node.config["mode"] for node in nodes} == {"linear", "0"}
    assert {node.config["protocols"][0] for node in nodes} == {"tuned"}
    assert {node.config["protocols"][1] for node in nodes} == papers
    for node in nodes:
        assert (node.config["protocols"][1] == "paper-imagenet") == ("imagenet" in node.id.split("/")[1])
    assert not any("lr" in node.config or "weight_decay" in node.config for node in nodes)


def test_a_source_has_its_own_number_of_images_and_modes():
    scale = read_scale("cpu")
    kinds = {source.name: nodes_of(scale, source.name) for source in scale.sources}
    assert kinds["cifar10"]["measures/cifar10/eps-1/seed-2"].config["measured"] == scale.measured == 500
    assert kinds["cifar100"]["measures/cifar100/eps-1/seed-2"].config["measured"] == 100
    assert "transfer/cifar10/eps-1/seed-0/mnist/mode-linear" in kinds["cifar10"]
    assert not any(id.startswith("transfer/") and id.endswith("mode-linear") for id in kinds["cifar100"])
    assert "transfer/cifar100/eps-1/seed-2/mnist/mode-0" in kinds["cifar100"]


@pytest.mark.parametrize("name", ["demo", "cpu"])
def test_theory_is_run_for_one_seed_unless_trainings_with_noise_are_compared(name):
    scale = read_scale(name)
    several = Counter(node.id.rpartition("/")[0] for node in plan_nodes(scale) if node.id.startswith("theory/"))
    assert several[f"theory/{scale.sources[0].name}/eps-1"] == 3
    for source in scale.sources:
        compared = {float(eps): seeds for eps, seeds in source.gaussian_noise.items()}
        trained = Counter((network.name.rpartition("/")[0], network.eps) for network in source.networks())
        for (name, eps), seeds in trained.items():
            assert several[f"theory/{name}"] == min(seeds, compared.get(eps, 1)), name


def test_distances_are_by_the_standard_network_of_the_first_seed():
    scale = read_scale("cpu")
    graph = Graph(plan_nodes(scale), Place("nowhere"))
    for source in scale.sources:
        ids = [id for id in graph.nodes if id.startswith(f"distance/{source.name}/")]
        probed = (*scale.probes.targets, *scale.probes.further) if source.name in scale.probes.sources else ()
        own = [source.data, *(t for t, of in scale.probes.further.items() if of == source.data)]
        assert len(ids) == len({*scale.transfers.targets, *probed} - {*own})
        for id in ids:
            node = graph.nodes[id]
            assert node.config["file"] == f"{source.name}-standard.safetensors"
            assert node.config["pair"] == (source.data, id.rsplit("/", 1)[1])
            assert node.needs == (f"network/{source.name}/standard/seed-0",)


def nodes_of(scale, source):
    return {node.id: node for node in plan_nodes(scale) if node.id.split("/")[1:2] == [source]}
