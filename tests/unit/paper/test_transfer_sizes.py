"""Evidence on two sizes of network, from results that are made up."""

import pytest

from waterbed_paper.scale import Scale, Source, Transfers

SCALE = Scale(
    "two sizes",
    "",
    (
        Source("small", "cifar100", {"0": 2, "1": 2}),
        Source("large", "cifar100", {"0": 2, "1": 2}, larger_than="small"),
    ),
    Transfers(("mnist", "cifar10", "gtsrb"), {"0": 2}, (0.0, 1.0), epochs={"0": 1}, both_protocols={"0": 2}),
)


def test_gaps_of_two_sizes_are_compared_on_the_paper_s_targets_whatever_comes_out(made_up_of):
    made_up = made_up_of(SCALE)
    gaps = {"mnist": (3.0, 5.0), "cifar10": (-4.0, -1.0), "gtsrb": (1.0, -1.0)}
    for target, sizes in gaps.items():
        for name, gap in zip(("small", "large"), sizes, strict=True):
            for seed in range(2):
                made_up.put(f"transfer/{name}/standard/seed-{seed}/{target}/mode-0", {"accuracy": 50.0})
                made_up.put(f"transfer/{name}/eps-1/seed-{seed}/{target}/mode-0", {"accuracy": 50.0 + gap})
    (better,), (worse,) = made_up.evidence("larger-network"), made_up.evidence("larger-network-near")
    assert (better.label, better.value) == ("large and small to mnist, mode 0, weight decay 0.0005", pytest.approx(2.0))
    assert (worse.label, worse.value) == ("large and small to cifar10, mode 0, weight decay 0.0005", pytest.approx(3.0))


def test_the_tuned_protocol_decides_and_the_paper_s_stands_beside(made_up_of):
    made_up = made_up_of(SCALE)
    for name, gap in (("small", 3.0), ("large", 5.0)):
        for seed in range(2):
            for network, more in (("standard", 0.0), ("eps-1", gap + 0.1 * seed)):
                made_up.put(f"transfer/{name}/{network}/seed-{seed}/mnist/mode-0", {"accuracy": 50.0 - more})
                rows = {"tuned": {"accuracy": 60.0 + more}, "paper": {"accuracy": 50.0}}
                made_up.put(f"protocols/{name}/{network}/seed-{seed}/mnist/mode-0", rows)
    pieces = made_up.evidence("larger-network")
    labels = [e.label.rpartition(", ")[2] for e in pieces]
    assert labels == ["tuned", "the paper's protocol", "weight decay 0.0005"]
    assert [e.beside for e in pieces] == [False, True, True]
    assert [round(e.value, 6) for e in pieces] == [2.0, 0.0, -2.0]
