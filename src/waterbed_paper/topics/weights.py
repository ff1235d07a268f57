"""Information in the weights, and their norm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from waterbed_paper.claims import OVER_SEEDS, Claim
from waterbed_paper.drawing import COLOURS, MARKERS, against_eps, by_eps, line, panels
from waterbed_paper.evidence import Evidence, as_ratio, over_seeds
from waterbed_paper.figures import SEEDS, PaperFigure
from waterbed_paper.plan import WEIGHTS_ABOUT_DATA
from waterbed_paper.results import Results, Value, log_of


def _log_variance(results: Results) -> Iterator[Evidence]:
    invariant = log_of(results.measure("weight_rescaling_invariant_trace"))
    for source in results.scale.sources:
        yield from results.steps("log-variance", source, results.measure("weight_log_variance"))
        yield from results.steps("minus log tr(D F D)", source, invariant, -1)


def _weights_about_data(results: Results) -> Iterator[Evidence]:
    for name in WEIGHTS_ABOUT_DATA:
        id = f"dataset-fisher/{name}"
        result = results.graph.result(id)
        if result is not None:
            config = results.graph.nodes[id].config
            label = f"{name.replace('-', ' ')}, {config['examples']} of {config['train']} digits, eps {config['eps']:g}"
            pairs = zip(result["standard"], result["robust"], strict=True)
            e = over_seeds(label, [math.log(standard / robust) for standard, robust in pairs])
            yield replace(as_ratio(e), weak=WEIGHTS_ABOUT_DATA[name] > 0)


def _last_norm(results: Results) -> Value:
    return results.reader("network", lambda r: r["weight_norms"][-1])


def _norm_above_one(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        yield from results.steps("fall of |w|", source, _last_norm(results), -1, lambda eps: eps >= 1)


def _norm_up_to_one(results: Results) -> Iterator[Evidence]:
    for source in results.scale.sources:
        yield from results.steps("|w|", source, _last_norm(results), 1, lambda eps: eps <= 1)


def _norm_dynamics(results: Results) -> Iterator[Evidence]:
    """Curves from 1 to 0: where they begin and end is judged by other claims. The control is training with Gaussian
    noise of the same norm, which changes the images as well."""

    def shape(result: dict) -> list[float] | None:
        norms = np.array(result["weight_norms"])
        return list((norms - norms[-1]) / (norms[0] - norms[-1])) if norms[0] != norms[-1] else None

    for source in results.scale.sources:
        pairs = results.pairs(source, results.reader("network", shape)).values()
        both = [(np.array(s), np.array(r)) for s, r in pairs]
        if len(both) > 1:
            # Every seed against the next: two standard networks differ by chance alone.
            others = [s for s, _ in (*both[1:], both[0])]
            apart = [float(abs(s - r).max() - abs(s - o).max()) for (s, r), o in zip(both, others, strict=True)]
            yield over_seeds(f"{source.name}: less that of two standard networks", apart)
        noisy = results.pairs_with(source, results.reader("network", shape), "gaussian-noise")
        less = [abs(s - r).max() - abs(s - g).max() for s, r, g in ((*map(np.array, three),) for three in noisy)]
        if less:
            yield over_seeds(f"{source.name}: less that of a network trained with Gaussian noise", [*map(float, less)])


def _weight_information(results: Results) -> Figure | None:
    """Fig. 4: log-variance of the weights against eps, and the trace that no rescaling changes."""
    trace = "tr(D F D) [nats]"
    return against_eps(
        results,
        {
            "log-variance [nats]": lambda s: results.measure("weight_log_variance"),
            trace: lambda s: results.measure("weight_rescaling_invariant_trace"),
        },
        log=[trace],
    )


def _weight_norm(results: Results) -> Figure | None:
    """Fig. 5: the norm of the weights against eps, and over the epochs of the first seed."""
    last = _last_norm(results)
    rows = [(s, points) for s in results.scale.sources if (points := by_eps(s, last))]
    if not rows:
        return None
    figure, axes = panels(len(rows), 2)
    for (source, points), (left, right) in zip(rows, axes, strict=True):
        line(left, points, "after the last epoch", 0)
        left.set(xlabel="eps of training", ylabel="|w|", title=source.name)
        for i, eps in enumerate(source.eps):
            result = results.of("network", source.network(eps))
            if result is not None:
                norms, style = result["weight_norms"], i % len(COLOURS)
                label = f"eps {eps:g}" if eps else "standard"
                epochs = range(1, len(norms) + 1)
                right.plot(epochs, norms, color=COLOURS[style], marker=MARKERS[style], ms=3, lw=1.2, label=label)
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set(xlabel="epoch", ylabel="|w|", title=f"{source.name}, seed 0")
        if right.lines:
            right.legend(frameon=False, fontsize=8)
    return figure


CLAIMS = (
    Claim(
        id="fig-4",
        where="Fig. 4; Sec. 3, after eq. 9; abstract",
        sentence="The larger the eps of training, the less information the weights hold: their log-variance rises.",
        quantity="mean of -log(F_ii + damping), from the same number of images (its bias is left in), at each eps of "
        "training, less that at the eps before",
        test="Every step of eps by itself. " + OVER_SEEDS + " log tr(D F D) must fall as well: the log-variance also "
        "moves with rescalings that leave the function as it is.",
        evidence=_log_variance,
    ),
    Claim(
        id="eq-11",
        where="Sec. 5, eq. 11",
        sentence="Adversarial training lowers the Fisher information that the weights have about the data set.",
        quantity="log tr F_{w|D} of the standard network, less that of the robust one, for a few examples",
        test="dw/dD exists at a minimum alone, so these are small models of their own on handwritten digits, odd "
        "against even: logistic regression, for which the worst perturbation has a closed form, and one hidden "
        "layer of four tanh units, for which the loss has it to first order in eps. They say nothing of the source "
        "networks. "
        + OVER_SEEDS
        + " Four units are far from the paper's networks and the first order is far from their "
        "attack: where they lie below 0, the claim is undecided.",
        evidence=_weights_about_data,
    ),
    Claim(
        id="fig-5-large-eps",
        where="Fig. 5; Sec. 3, after Example 3.3",
        sentence="Above eps = 1 adversarial training makes the norm of the weights fall as eps grows.",
        quantity="|w| at each eps of 1 and more, less that at the next",
        test="Every step of eps by itself. " + OVER_SEEDS,
        evidence=_norm_above_one,
    ),
    Claim(
        id="fig-5-small-eps",
        where="Fig. 5; Sec. 3, after Example 3.3",
        sentence="Up to eps = 1 it does not: the norm of the weights does not fall as eps grows.",
        quantity="|w| at each eps up to 1, less that at the eps before",
        test="Every step of eps by itself. " + OVER_SEEDS,
        evidence=_norm_up_to_one,
    ),
    Claim(
        id="fig-5-dynamics",
        where="Fig. 5, caption",
        sentence="The norm of the weights goes another way during robust training than during standard training.",
        quantity="largest distance over epochs between the curves of |w|, each brought from 1 after the first "
        "epoch to 0 after the last, of the standard and the robust network, less that between two standard ones of "
        "different seeds; and less that between the standard one and one trained with Gaussian noise of the same eps",
        test=OVER_SEEDS
        + " The distances between standard networks share networks, so that interval is a little narrow. Noise is the "
        "control: any change of the training images may change the curve.",
        evidence=_norm_dynamics,
    ),
)

FIGURES = (
    PaperFigure(
        "fig-4",
        "Fig. 4: information in the weights against eps",
        "The paper: the log-variance of the weights rises with eps, so their information falls (left alone).",
        "Left the mean over weights of -log(F_ii + 1e-8), with the diagonal and a damping in the place of the paper's "
        "log |F^-1|, which is infinite (see its slips); right tr(D F D), which no rescaling of the weights changes. "
        f"{SEEDS}",
        ("measures",),
        _weight_information,
        claims=("fig-4",),
    ),
    PaperFigure(
        "fig-5",
        "Fig. 5: norm of the weights",
        "The paper: it falls with eps only above eps = 1, and goes another way during robust training.",
        f"Left against eps, right over the epochs of the first seed. {SEEDS}",
        ("network",),
        _weight_norm,
        claims=("fig-5-large-eps", "fig-5-small-eps", "fig-5-dynamics"),
    ),
)
