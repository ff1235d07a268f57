"""Accuracy on the source: what robustness costs there."""

from __future__ import annotations

import math
from collections.abc import Iterator

from matplotlib.figure import Figure

from waterbed_paper.claims import OVER_SEEDS, Claim
from waterbed_paper.drawing import against_eps
from waterbed_paper.evidence import Evidence
from waterbed_paper.figures import SEEDS, PaperFigure
from waterbed_paper.plan import EVALUATED
from waterbed_paper.results import Results


def _price(results: Results) -> Iterator[Evidence]:
    value = results.reader("accuracy", lambda r: r["clean"])
    for source in results.scale.sources:
        yield from results.difference("clean accuracy", source, value, robust_less_standard=False)


def _accuracy(results: Results) -> Figure | None:
    """Clean and robust accuracy on the source against eps."""
    return against_eps(results, _accuracies(results))


def _trades(results: Results) -> Figure | None:
    """Eq. 1 against eq. 2: clean and robust accuracy after adversarial training and after TRADES."""
    return against_eps(
        results, _accuracies(results), {"adversarial": "adversarial training (eq. 1)", "trades": "TRADES (eq. 2)"}
    )


def _accuracies(results: Results) -> dict:
    robust = sorted({eps for source in results.scale.sources for eps in source.evaluated_eps})
    quantities = {"clean [%]": lambda s: results.reader("accuracy", lambda r: r["clean"])}
    for eps in robust:
        quantities[f"under PGD-20 at {eps:g} [%]"] = lambda s, e=f"{eps:g}": results.reader(
            "accuracy", lambda r: r["robust"].get(e, math.nan)
        )
    return quantities


CLAIMS = (
    Claim(
        id="waterbed",
        where="Sec. 1; abstract",
        sentence="The robust network pays with accuracy on the task it was trained on.",
        quantity="clean accuracy [points] on the source of the standard network, less that of the robust one",
        test=OVER_SEEDS,
        evidence=_price,
    ),
)

FIGURES = (
    PaperFigure(
        "accuracy",
        "Accuracy on the source",
        "The paper: robust networks pay with accuracy on their own task.",
        f"Accuracy on at most {EVALUATED:,} test images, clean and under PGD-20 (L2). {SEEDS}",
        ("accuracy",),
        _accuracy,
        claims=("waterbed",),
    ),
    PaperFigure(
        "trades",
        "Eq. 1 against eq. 2: adversarial training and TRADES",
        "The paper writes both, and compares no numbers.",
        f"Accuracy on at most {EVALUATED:,} test images, clean and under PGD-20 (L2); eps 0 is the standard network of "
        "both. TRADES as its authors have it, KL(p(y|x) || p(y|x + delta)); the paper prints the other order. "
        f"{SEEDS}",
        ("accuracy",),
        _trades,
        claims=("waterbed",),
    ),
)
