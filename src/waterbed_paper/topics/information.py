"""Information about the input: Example 3.3, Fisher and effective information, and the Jacobian."""

from __future__ import annotations

import math
from collections.abc import Iterator

from matplotlib.figure import Figure

from waterbed_paper.claims import OVER_SEEDS, Claim
from waterbed_paper.drawing import against_eps
from waterbed_paper.evidence import Evidence, as_ratio, exactly
from waterbed_paper.figures import SEEDS, PaperFigure
from waterbed_paper.results import Results, log_of


def _logistic(results: Results) -> Iterator[Evidence]:
    result = results.graph.result("example-3.3")
    if result is not None:
        yield exactly("float64", -math.log10(max(result["relative_difference"], 1e-16)) - 9)


def _input_fisher(results: Results) -> Iterator[Evidence]:
    names = {
        "input_fisher_trace": "log tr S, label model",
        "input_fisher_lambda_max": "log lambda_1(S), label model",
        "input_fisher_relative_trace": "log tr S / E|z|^2, Gaussian features",
    }
    for source in results.scale.sources:
        for name, label in names.items():
            log = log_of(results.measure(name))
            yield from map(as_ratio, results.difference(label, source, log, robust_less_standard=False))


def _effective(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        yield from results.steps("fall [nats]", source, results.measure("effective_information"), -1)


def _jacobian(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        value = log_of(results.measure("input_fisher_relative_trace"), 0.5)
        yield from map(as_ratio, results.difference("log |J| / |z|", source, value))


def _input_information(results: Results) -> Figure | None:
    """Def. 3.1 and eq. 8: information about the input against eps."""
    trace, relative = "tr S, labels [nats/pixel²]", "tr S / E|z|² [1/pixel²]"
    return against_eps(
        results,
        {
            trace: lambda s: results.measure("input_fisher_trace"),
            relative: lambda s: results.measure("input_fisher_relative_trace"),
            "effective information [nats]": lambda s: results.measure("effective_information"),
        },
        log=[trace, relative],
    )


CLAIMS = (
    Claim(
        id="example-3.3",
        where="Example 3.3",
        sentence="For logistic regression the Fisher information about the input is w w^T times the mean of p (1 - p).",
        quantity="digits to which both matrices agree in float64 (minus log10 of their relative difference, at "
        "most 16), less 9",
        test="One number, without chance: above 0 supports, below 0 contradicts.",
        identity=True,
        evidence=_logistic,
    ),
    Claim(
        id="input-fisher",
        where="Sec. 3, Def. 3.1; abstract",
        sentence="Adversarial training lowers the Fisher information that the representation has about the input.",
        quantity="log tr S of the standard network, less that of the robust one; likewise log lambda_1(S)",
        test="For each observation model by itself, divided by E|z|^2 where the model depends on the scale of "
        "the features. " + OVER_SEEDS,
        evidence=_input_fisher,
    ),
    Claim(
        id="effective-information",
        where="Sec. 3, Def. 3.5, eq. 8",
        sentence="Adversarial training lowers the effective information about the input, the more the larger eps.",
        quantity="effective information [nats] at each eps of training, less that at the next",
        test="Every step of eps by itself. " + OVER_SEEDS + " Eq. 8 as printed is minus infinity where features are "
        "fewer than pixels. In its place 1/2 log det(I + J_x J_x^T / Sigma_z), the information that the noisy "
        "features have about a change N(0, I) of the image; Sigma_z from weight noise beta (F + beta/lambda^2)^-1 "
        "with a diagonal F, at one beta and one prior variance lambda^2, those of the inversions.",
        evidence=_effective,
    ),
    Claim(
        id="jacobian",
        where="Sec. 3, after eq. 9; Fig. 4 (our reading: that it is possible)",
        sentence="The robust networks' features do not have a smaller derivative with respect to the input.",
        quantity="log of |J_x| / |z| (root mean squares over images) of the robust network, less that of the "
        "standard one",
        test=OVER_SEEDS
        + " The paper says that it is possible, which no recipe can contradict: this says whether it happened. "
        "|J_x|^2 / |z|^2 is also the third piece of evidence on input-fisher.",
        reading=True,
        evidence=_jacobian,
    ),
)

FIGURES = (
    PaperFigure(
        "eq-8",
        "Def. 3.1 and eq. 8: information about the input",
        "The paper: adversarial training lowers the Fisher information and the effective information about the input.",
        "Trace of the Fisher information by the label model, that of the features (Gaussian) over their mean square, "
        f"and effective information at one beta and one prior (how: under its claim). {SEEDS}",
        ("measures",),
        _input_information,
        claims=("input-fisher", "effective-information", "jacobian"),
    ),
)
