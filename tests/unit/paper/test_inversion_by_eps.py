"""Evidence on the eps that inverts best, from results that are made up."""

import pytest


def test_the_best_eps_is_sought_among_those_that_all_seeds_have(made_up):
    """One that only one seed has would be another quantity."""
    for seed in range(2):
        similar = {"standard": 0.1, "eps-1": 0.3, "eps-2": 0.2} | ({"eps-0.5": 0.9} if seed == 0 else {})
        for name, ssim in similar.items():
            made_up.put(f"inversions/cifar10/{name}/seed-{seed}", {"own/plain": {"ssim": [ssim] * 4}})
    (e,) = made_up.evidence("fig-9")
    assert e.label.endswith("best eps between 1 (of 0, 1, 2)")
    assert (e.value, e.n) == (pytest.approx(0.1), 2)
