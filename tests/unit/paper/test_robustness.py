"""Evidence on what is built on a robust backbone, from results that are made up."""

from waterbed_paper.register import CLAIMS
from waterbed_paper.verdicts import Judged


def test_the_proof_s_reading_of_the_lemma_decides(made_up):
    values = {"lemma": 1.0, "lemma_unit_noise": -7.0, "lemma_labels": 20.0}
    result = {key: {"value": value, "stderr": 0.1, "n": 50} for key, value in values.items()}
    made_up.put("theory/cifar10/eps-1/seed-0", result)
    pieces = made_up.evidence("lemma-5.1")
    assert [(e.value, e.beside) for e in pieces] == [(1.0, False), (-7.0, True), (20.0, True)]
    judged = Judged(CLAIMS["lemma-5.1"], pieces)
    assert (judged.verdict, judged.verdicts[1]) == ("holds", "does not hold")
