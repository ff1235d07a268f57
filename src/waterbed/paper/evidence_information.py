"""Evidence on theory, information and inversion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from waterbed.paper.evidence import about, exactly, first_results
from waterbed.paper.found import Evidence, Found, Value, over_images, over_seeds
from waterbed.paper.nodes import WEIGHTS_ABOUT_DATA, anisotropy
from waterbed.paper.scale import Network


@about("prop-3.2")
def _small_eps(found: Found) -> Iterator[Evidence]:
    for name, result in first_results(found, "theory"):
        yield _near_one(f"{name}, eps 0.0001", result["ratios"]["0.0001"], 0.05)
        near, far = (abs(result["ratios"][eps]["value"] - 1) for eps in ("0.0001", "0.001"))
        yield exactly(f"{name}: |ratio - 1| at eps 0.001, less three times that at 0.0001", far - 3 * near)


@about("prop-3.2-training")
def _training_eps(found: Found) -> Iterator[Evidence]:
    eps = f"{found.scale.training_eps:g}"
    for name, result in first_results(found, "theory"):
        yield _near_one(f"{name}, eps {eps}", result["ratios"][eps], 0.5)


def _near_one(label: str, ratio: dict, within: float) -> Evidence:
    """``within`` less the distance of a ratio from 1."""
    e = over_images(label, ratio)
    ends = [abs(e.low - 1), abs(e.high - 1)]
    nearest = 0.0 if e.low <= 1 <= e.high else min(ends)
    return Evidence(e.label, within - abs(e.value - 1), within - max(ends), within - nearest, e.n)


@about("footnote-1")
def _whole_eps(found: Found) -> Iterator[Evidence]:
    yield from _of_images(found, "whole_eps", "share", 0.95)


@about("gaussian-bound")
def _gaussian_bound(found: Found) -> Iterator[Evidence]:
    yield from _of_images(found, "lambda_max_less_mean", "lambda_1 - tr S / n")


@about("lemma-5.1")
def _lemma(found: Found) -> Iterator[Evidence]:
    yield from _of_images(found, "lemma", "noise before the layer")
    yield from _of_images(found, "lemma_labels", "softmax labels, with the bound 1/2 |A|^2 tr F_z")


def _of_images(found: Found, key: str, label: str, less: float = 0.0) -> Iterator[Evidence]:
    for name, result in first_results(found, "theory"):
        yield over_images(f"{name}: {label}", result[key]).minus(less)


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
        yield exactly("float64", 1e-9 - result["relative_difference"])


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
        yield from found.slopes("minus the slope", source, found.measure("effective_information"), -1)


@about("jacobian")
def _jacobian(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        value = _log(found.measure("input_fisher_relative_trace"), 0.5)
        yield from found.difference("log |J| / |z|", source, value)


@about("fig-4")
def _log_variance(found: Found) -> Iterator[Evidence]:
    invariant = _log(found.measure("weight_rescaling_invariant_trace"))
    for source in found.scale.sources:
        yield from found.slopes("slope of the log-variance", source, found.measure("weight_log_variance"))
        yield from found.slopes("minus the slope of log tr(D F D)", source, invariant, -1)


def _last_norm(found: Found) -> Value:
    return found.reader("network", lambda r: r["weight_norms"][-1])


@about("fig-5-large-eps")
def _norm_above_one(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        yield from found.slopes("eps of 1 and more", source, _last_norm(found), -1, lambda eps: eps >= 1)


@about("fig-5-small-eps")
def _norm_up_to_one(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        yield from found.slopes("eps of 1 and less", source, _last_norm(found), 1, lambda eps: eps <= 1)


@about("fig-5-dynamics")
def _norm_dynamics(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        curves = [
            [found.of("network", Network(source.name, k, e, seed)) for seed in range(source.seeds_at(0.0))]
            for k, e in (("standard", 0.0), ("adversarial", source.robust))
        ]
        standard, robust = ([np.array(r["weight_norms"]) for r in c if r is not None] for c in curves)
        if len(standard) > 1 and len(standard) == len(robust):
            others = [*standard[1:], standard[0]]
            apart = [
                float(abs(s - r).max() - abs(s - o).max()) for s, r, o in zip(standard, robust, others, strict=True)
            ]
            yield over_seeds(source.name, apart)


@about("waterbed")
def _price(found: Found) -> Iterator[Evidence]:
    value = found.reader("accuracy", lambda r: r["clean"])
    for source in found.scale.sources:
        yield from found.difference("clean accuracy", source, value, robust_less_standard=False)


def _unlike(found: Found, which: str, part: slice = slice(None)) -> Value:
    """1 - SSIM to the original, mean over images."""
    return found.reader("inversions", lambda r: 1 - float(np.mean(r[which]["ssim"][part])))


@about("inversion")
def _inversion(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        yield from found.difference("1 - SSIM", source, _unlike(found, "own/plain"), robust_less_standard=False)


@about("inversion-elsewhere")
def _inversion_elsewhere(found: Found) -> Iterator[Evidence]:
    task = found.scale.inversions.elsewhere
    if task is not None:
        for source in found.scale.sources:
            value = _unlike(found, "elsewhere/plain")
            yield from found.difference(f"1 - SSIM on {task}", source, value, robust_less_standard=False)


@about("fig-1-noise-once")
def _noise_once(found: Found) -> Iterator[Evidence]:
    yield from _modes(found, "own/plain", "own/variational")


@about("fig-1-effective")
def _effective_images(found: Found) -> Iterator[Evidence]:
    yield from _modes(found, "own/effective", "own/plain")


def _modes(found: Found, a: str, b: str) -> Iterator[Evidence]:
    """1 - SSIM in one mode less that in another, standard and robust networks by themselves."""
    for source in found.scale.sources:
        both = [found.pairs(source, _unlike(found, which)) for which in (a, b)]
        for i, kind in enumerate(("standard", "robust")):
            values = [x[i] - y[i] for x, y in zip(*both, strict=True)]
            if values:
                yield over_seeds(f"{source.name}, {kind}: 1 - SSIM", values)


@about("fig-2-speed", "fig-2-forty")
def _speed(found: Found) -> Iterator[Evidence]:
    yield from _best_arm(found, "speed_up", "steps to plain's last loss on the clean network")


@about("fig-2-fit")
def _fit(found: Found) -> Iterator[Evidence]:
    yield from _best_arm(found, "gain_clean", "log of last losses, clean network")
    yield from _best_arm(found, "gain_objective", "log of last losses, the network being inverted")


def _best_arm(found: Found, key: str, label: str) -> Iterator[Evidence]:
    """The variational arm that does best, chosen afterwards: in favour of the claim. The seeds are those of start and
    noise; the network is one."""
    for name, result in first_results(found, "convergence"):
        arms = {a["arm"]: a[key] for a in result["arms"] if a["arm"].startswith("variational")}
        best = max(arms, key=lambda arm: float(np.mean(arms[arm])))
        yield over_seeds(f"{name}, best arm ({best}), over starts of one network: {label}", arms[best])


@about("fig-9")
def _best_eps(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        values = []
        for seed in range(max(source.seeds.values())):
            chosen, judged = (
                found.by_eps(source, _unlike(found, "own/plain", part), seed)
                for part in (slice(0, None, 2), slice(1, None, 2))
            )
            if len(chosen) > 2:
                between = min(sorted(chosen)[1:-1], key=lambda eps: chosen[eps])
                values.append(min(judged[min(judged)], judged[max(judged)]) - judged[between])
        if values:
            yield over_seeds(f"{source.name}: 1 - SSIM", values)
