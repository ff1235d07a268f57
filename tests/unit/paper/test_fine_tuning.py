"""Evidence on fine-tuning more than the head, from results that are made up."""

import pytest

from waterbed_paper.scale import Scale, Source, Transfers


def test_fine_grained_tasks_and_what_batch_norms_gain(made_up_of):
    sources = (Source("cifar10", "cifar10", {"0": 2, "1": 2}), Source("imagenet", "imagenet", {"0": 2, "3": 2}))
    modes = {"0": 2, "1": 2}
    transfers = Transfers(("mnist", "stanford-cars"), modes, (0.0, 1.0, 3.0), None, {"0": 1, "1": 1})
    scale = Scale("made-up", "", sources, transfers)
    made_up = made_up_of(scale)
    for source, eps, gain in (("cifar10", "eps-1", 30.0), ("imagenet", "eps-3", 20.0)):
        for seed in range(2):
            for backbone, accuracy in (("standard", 50.0), (eps, 44.0 + seed)):
                for target in transfers.targets:
                    for mode, more in (("0", 0.0), ("1", gain)):
                        history = [{"test_clean": 1.0}, {"test_clean": accuracy + more}]
                        result = {"accuracy": accuracy + more, "history": history}
                        made_up.put(f"transfer/{source}/{backbone}/seed-{seed}/{target}/mode-{mode}", result)
    (near,) = made_up.evidence("near-tasks")
    assert (near.label, near.value, near.n) == ("imagenet to stanford-cars, weight decay 0.0005", 5.5, 2)
    assert [e.value for e in made_up.evidence("batch-norm")] == [30.0, 30.0, 20.0, 20.0]
    simple = made_up.evidence("batch-norm-simple")
    assert [(e.value, e.label.split(", ")[-1]) for e in simple] == [(10.0, "mean of 1 targets")] * 2
    assert [e.label for e in made_up.evidence("fig-13")] == [f"imagenet, mode {m}, mean of 1 targets" for m in modes]
    assert [e.value for e in made_up.evidence("fig-12")] == pytest.approx([-0.4, -0.4])
    assert made_up.evidence("table-5") == []
