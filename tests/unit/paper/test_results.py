"""Results are paired by seed, and only those of the scale's own settings count."""

from waterbed_paper.results import shared_seeds


def test_a_result_of_another_config_is_not_used(made_up):
    made_up.put("transfer/cifar10/standard/seed-0/mnist/mode-0", {"accuracy": 1.0})
    file = made_up.results.graph.file("transfer/cifar10/standard/seed-0/mnist/mode-0")
    file.write_text(
        file.read_text().replace(made_up.results.graph.key("transfer/cifar10/standard/seed-0/mnist/mode-0"), "0")
    )
    made_up.put("transfer/cifar10/eps-1/seed-0/mnist/mode-0", {"accuracy": 2.0})
    assert made_up.evidence("far-tasks") == []


def test_seeds_are_not_mixed_where_one_is_missing(made_up):
    """Seed 0 of one mode failed: seed 1 is compared with seed 1."""
    for seed, mode, gap in ((1, "0", 5.0), (0, "linear", 100.0), (1, "linear", 3.0)):
        made_up.put(f"transfer/cifar10/standard/seed-{seed}/mnist/mode-{mode}", {"accuracy": 40.0})
        made_up.put(f"transfer/cifar10/eps-1/seed-{seed}/mnist/mode-{mode}", {"accuracy": 40.0 + gap})
    gaps = [made_up.results.gaps(made_up.results.scale.sources[0], "mnist", mode) for mode in ("0", "linear")]
    assert gaps == [{1: 5.0}, {0: 100.0, 1: 3.0}]
    assert shared_seeds(gaps) == [1]
    assert shared_seeds([]) == []
