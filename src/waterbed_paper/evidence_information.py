"""Evidence on theory and information."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from waterbed_paper.evidence import about, exactly, first_results
from waterbed_paper.found import Evidence, Found, Value, over_images, over_seeds, share_of_images
from waterbed_paper.nodes import WEIGHTS_ABOUT_DATA, anisotropy
from waterbed_paper.scale import Network


@about("prop-3.2")
def _small_eps(found: Found) -> Iterator[Evidence]:
    for name, result in first_results(found, "theory"):
        yield _near_one(f"{name}, eps 0.0001", result["ratios"]["0.0001"], 0.05)
        near, far = (abs(result["ratios"][eps]["value"] - 1) for eps in ("0.0001", "0.001"))
        yield exactly(f"{name}: |ratio - 1| at eps 0.001, less three times that at 0.0001", far - 3 * near)


@about("prop-3.2-training")
def _training_eps(found: Found) -> Iterator[Evidence]:
    for name, result in first_results(found, "theory"):
        eps = f"{result['training_eps']:g}"
        yield _near_one(f"{name}, eps {eps}", result["ratios"][eps], 0.5, beside=name.endswith("/standard"))


def _near_one(label: str, ratio: dict, within: float, beside: bool = False) -> Evidence:
    """``within`` less the distance of a ratio from 1."""
    e = over_images(label, ratio, beside)

    def ends(level: float) -> tuple[float, float]:
        low, high = e.ends(level)
        away = [abs(low - 1), abs(high - 1)]
        return within - max(away), within - (0.0 if low <= 1 <= high else min(away))

    return replace(e, value=within - abs(e.value - 1), ends=ends)


@about("footnote-1")
def _whole_eps(found: Found) -> Iterator[Evidence]:
    for name, result in first_results(found, "theory"):
        share = result["whole_eps"]
        label = f"{name}: share at eps {share['eps']:g}, less 0.95"
        yield share_of_images(label, share["hits"], share["n"]).minus(0.95)


@about("gaussian-bound")
def _gaussian_bound(found: Found) -> Iterator[Evidence]:
    yield from _of_images(found, "lambda_max_less_mean", "lambda_1 - tr S / n")


@about("lemma-5.1")
def _lemma(found: Found) -> Iterator[Evidence]:
    yield from _of_images(found, "lemma", "noise on the features alone, as in the proof")
    yield from _of_images(found, "lemma_unit_noise", "unit noise on features and logits alike", beside=True)
    yield from _of_images(found, "lemma_labels", "softmax labels, with the bound 1/2 |A|^2 tr F_z", beside=True)


def _of_images(found: Found, key: str, label: str, beside: bool = False) -> Iterator[Evidence]:
    for name, result in first_results(found, "theory"):
        yield over_images(f"{name}: {label}", result[key], beside)


@about("gaussian-training")
def _gaussian_training(found: Found) -> Iterator[Evidence]:
    value = found.reader("theory", lambda r: r["log_lambda_max"]["value"])
    for source in found.scale.sources:
        for eps, seeds in source.gaussian_noise.items():
            kinds = ("gaussian-noise", "adversarial")
            both = [[value(Network(source.name, k, float(eps), seed)) for k in kinds] for seed in range(seeds)]
            values = [gaussian - adversarial for gaussian, adversarial in both if None not in (gaussian, adversarial)]
            if values:
                yield over_seeds(f"{source.name}, eps {float(eps):g}", values)


@about("gaussian-dimension")
def _dimension(found: Found) -> Iterator[Evidence]:
    d = found.scale.dimension
    for small, large in pairwise(d.sizes) if d is not None else ():
        results = [
            [found.graph.result(anisotropy(found.scale, size, seed)) for size in (small, large)]
            for seed in range(d.seeds)
        ]
        both = [[r["log_anisotropy"]["value"] for r in pair] for pair in results if None not in pair]
        if both:
            yield over_seeds(f"{d.data}, side {large} less side {small}", [b - a for a, b in both])


@about("eq-11")
def _weights_about_data(found: Found) -> Iterator[Evidence]:
    for name in WEIGHTS_ABOUT_DATA:
        id = f"dataset-fisher/{name}"
        result = found.graph.result(id)
        if result is not None:
            config = found.graph.nodes[id].config
            label = f"{name.replace('-', ' ')}, {config['examples']} of {config['train']} digits, eps {config['eps']:g}"
            pairs = zip(result["standard"], result["robust"], strict=True)
            yield over_seeds(label, [math.log(standard / robust) for standard, robust in pairs])


@about("example-3.3")
def _logistic(found: Found) -> Iterator[Evidence]:
    result = found.graph.result("example-3.3")
    if result is not None:
        yield exactly("float64", -math.log10(max(result["relative_difference"], 1e-16)) - 9)


def _log(value: Value, factor: float = 1.0) -> Value:
    def logarithm(network: Network) -> float | None:
        got = value(network)
        return None if got is None else factor * math.log(got)

    return logarithm


@about("input-fisher")
def _input_fisher(found: Found) -> Iterator[Evidence]:
    names = {
        "input_fisher_trace": "log tr S, label model",
        "input_fisher_lambda_max": "log lambda_1(S), label model",
        "input_fisher_relative_trace": "log tr S / E|z|^2, Gaussian features",
    }
    for source in found.scale.sources:
        for name, label in names.items():
            yield from found.difference(label, source, _log(found.measure(name)), robust_less_standard=False)


@about("effective-information")
def _effective(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        yield from found.steps("fall [nats]", source, found.measure("effective_information"), -1)


@about("jacobian")
def _jacobian(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        value = _log(found.measure("input_fisher_relative_trace"), 0.5)
        yield from found.difference("log |J| / |z|", source, value)


@about("fig-4")
def _log_variance(found: Found) -> Iterator[Evidence]:
    invariant = _log(found.measure("weight_rescaling_invariant_trace"))
    for source in found.scale.sources:
        yield from found.steps("log-variance", source, found.measure("weight_log_variance"))
        yield from found.steps("minus log tr(D F D)", source, invariant, -1)


def _last_norm(found: Found) -> Value:
    return found.reader("network", lambda r: r["weight_norms"][-1])


@about("fig-5-large-eps")
def _norm_above_one(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        yield from found.steps("fall of |w|", source, _last_norm(found), -1, lambda eps: eps >= 1)


@about("fig-5-small-eps")
def _norm_up_to_one(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        yield from found.steps("|w|", source, _last_norm(found), 1, lambda eps: eps <= 1)


@about("fig-5-dynamics")
def _norm_dynamics(found: Found) -> Iterator[Evidence]:
    """Curves from 1 to 0: where they begin and end is judged by other claims."""

    def shape(result: dict) -> list[float] | None:
        norms = np.array(result["weight_norms"])
        return list((norms - norms[-1]) / (norms[0] - norms[-1])) if norms[0] != norms[-1] else None

    for source in found.scale.sources:
        pairs = found.pairs(source, found.reader("network", shape)).values()
        both = [(np.array(s), np.array(r)) for s, r in pairs]
        if len(both) > 1:
            # Every seed against the next: two standard networks differ by chance alone.
            others = [s for s, _ in (*both[1:], both[0])]
            apart = [float(abs(s - r).max() - abs(s - o).max()) for (s, r), o in zip(both, others, strict=True)]
            yield over_seeds(source.name, apart)


@about("waterbed")
def _price(found: Found) -> Iterator[Evidence]:
    value = found.reader("accuracy", lambda r: r["clean"])
    for source in found.scale.sources:
        yield from found.difference("clean accuracy", source, value, robust_less_standard=False)
