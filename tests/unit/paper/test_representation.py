"""Evidence on the representation, from results that are made up."""

import pytest


def test_entanglement_is_compared_from_eps_to_eps(made_up):
    for seed in range(2):
        for eps, loss in (("standard", 1.0), ("eps-1", 1.5 + 0.1 * seed), ("eps-2", 1.2)):
            result = {"soft_nearest_neighbour_loss": {"value": loss}}
            made_up.put(f"features/cifar10/{eps}/seed-{seed}", result)
    up, down = made_up.evidence("fig-6")
    assert (up.label, up.value) == (
        "cifar10: soft nearest neighbour loss, from eps 0 to 1",
        pytest.approx(0.55),
    )
    assert down.value == pytest.approx(-0.35)
