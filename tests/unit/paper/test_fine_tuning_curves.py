"""Evidence on the curves of fine-tuning, from results that are made up."""

from waterbed_paper.register import CLAIMS
from waterbed_paper.verdicts import Judged


def test_curves_of_one_seed_decide_nothing(made_up):
    """However many targets there are: the interval is over seeds."""
    for target in ("cifar100", "mnist", "gtsrb"):
        for backbone, ends in (("standard", (1.0, 2.0)), ("eps-1", (3.0, 4.0))):
            history = [{"test_clean": value} for value in ends]
            made_up.put(
                f"transfer/cifar10/{backbone}/seed-0/{target}/mode-0", {"accuracy": ends[1], "history": history}
            )
    (e,) = made_up.evidence("fig-10")
    assert (e.label, e.n) == ("cifar10, mode 0, mean of 3 targets", 1)
    assert Judged(CLAIMS["fig-10"], [e]).verdict == "undecided"
    assert [e.label for e in made_up.evidence("far-tasks")] == ["cifar10 to mnist, weight decay 0.0005"]
    assert [e.label for e in made_up.evidence("far-tasks-others")] == ["cifar10 to gtsrb, weight decay 0.0005"]
