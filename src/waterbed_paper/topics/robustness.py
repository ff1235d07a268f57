"""Robustness of what is built on a robust backbone."""

from __future__ import annotations

from collections.abc import Iterator

from waterbed_paper.claims import OVER_IMAGES, OVER_SEEDS, Claim
from waterbed_paper.evidence import Evidence
from waterbed_paper.results import Results


def _lemma(results: Results) -> Iterator[Evidence]:
    yield from results.theory("lemma", "noise on the features alone, as in the proof")
    yield from results.theory("lemma_unit_noise", "unit noise on features and logits alike", beside=True)
    yield from results.theory("lemma_labels", "softmax labels, with the bound 1/2 |A|^2 tr F_z", beside=True)


def _robust_heads(results: Results) -> Iterator[Evidence]:
    eps = max(results.scale.transfers.attack_eps, default=None)
    if eps is None:
        return
    for source in results.scale.sources:
        for target in results.targets(source):
            value = results.reader("transfer", lambda r: r[f"pgd-20 l2 eps={eps:g}"], target, "mode-linear")
            yield from results.difference(f"to {target}, PGD-20 at {eps:g}", source, value)


CLAIMS = (
    Claim(
        id="lemma-5.1",
        where="Lemma 5.1; appendix B",
        sentence="A linear layer on the features has no more Fisher information about the input than the features.",
        quantity="tr F_{z|x} - tr F_{y|x} for y = A (z + noise) + b",
        test=OVER_IMAGES
        + " This is the reading of the proof (data processing), and cannot be below 0. The lemma names "
        "no noise: with unit noise on y = A z + b as on z it is false where A stretches what the input moves. "
        "That stands beside; so does 1/2 |A|^2 tr F_{z|x} - tr F_{y|x} for softmax labels, never below 0.",
        identity=True,
        evidence=_lemma,
    ),
    Claim(
        id="robust-features",
        where="Sec. 5 and 1, after Lemma 5.1",
        sentence="A new head on a robust backbone is robust on the new task.",
        quantity="robust accuracy [points] on the target, at the largest eps of attack that was run, of the robust "
        "backbone with a new head, less that of the standard one",
        test="Linear layer alone, so that the features stay as they are. " + OVER_SEEDS,
        evidence=_robust_heads,
    ),
)
