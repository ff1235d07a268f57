"""Evidence on inversion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from waterbed.paper.evidence import about, first_results
from waterbed.paper.found import Evidence, Found, Value, no_interval, over_seeds, shared_seeds
from waterbed.paper.scale import Network, Source


def _unlike(found: Found, which: str, part: slice = slice(None)) -> Value:
    """1 - SSIM to the original, mean over images."""
    return found.reader("inversions", lambda r: 1 - float(np.mean(r[which]["ssim"][part])))


@about("inversion")
def _inversion(found: Found) -> Iterator[Evidence]:
    yield from _recognised(found, "own", "")


def _recognised(found: Found, which: str, on: str) -> Iterator[Evidence]:
    """Both networks' inversions against the originals, by SSIM and by which original they resemble most.

    The latter is over images, each with its mean over seeds: shares of few images are often the same for all seeds.
    One seed has no interval here either.
    """
    identified = found.reader("inversions", lambda r: np.array(r[f"{which}/plain"]["identified"], dtype=float))
    for source in found.scale.sources:
        unlike = _unlike(found, f"{which}/plain")
        yield from found.difference(f"1 - SSIM{on}", source, unlike, robust_less_standard=False)
        pairs = found.pairs(source, identified).values()
        if pairs:
            label = f"{source.name}: share of inversions most like their own original{on}"
            e = over_seeds(label, [*np.mean([robust - standard for standard, robust in pairs], axis=0)], "image")
            yield e if len(pairs) > 1 else replace(e, ends=no_interval)


@about("inversion-elsewhere")
def _inversion_elsewhere(found: Found) -> Iterator[Evidence]:
    task = found.scale.inversions.elsewhere
    if task is not None:
        yield from _recognised(found, "elsewhere", f", {task}")


@about("fig-1-noise-once")
def _noise_once(found: Found) -> Iterator[Evidence]:
    """Of the sizes of noise the one that does best on every other image decides, by the images between."""
    for source in found.scale.sources:
        gains = {beta: pairs for beta in _betas(found) if (pairs := found.pairs(source, _gain(found, beta)))}
        seeds = shared_seeds([*gains.values()])
        for i, kind in ((1, "robust"), (0, "standard")) if seeds else ():
            name = f"{source.name}, {kind}: 1 - SSIM, "
            sized = {beta: _size(found, source, beta, i) for beta in gains}
            by_seed = {beta: np.array([pairs[seed][i] for seed in seeds]) for beta, pairs in gains.items()}
            best = max(by_seed, key=lambda beta: by_seed[beta][:, ::2].mean())
            judged = [*by_seed[best][:, 1::2].mean(1)]
            label = f"{name}best of {len(gains)} size{'s' * (len(gains) > 1)} of noise ({sized[best]})"
            yield over_seeds(label, judged, beside=kind == "standard")
            for beta, values in by_seed.items():
                yield over_seeds(f"{name}{sized[beta]}, all images", [*values.mean(1)], beside=True)


def _betas(found: Found) -> list[float]:
    i = found.scale.inversions
    return sorted({i.beta, *i.other_betas})


def _gain(found: Found, beta: float) -> Callable[[Network], np.ndarray | None]:
    """What noise of one beta, drawn once, takes from 1 - SSIM, by image."""

    def value(network: Network) -> np.ndarray | None:
        results = [found.of("inversions", network), found.of("noise-sizes", network)]
        if results[0] is None or (beta != found.scale.inversions.beta and results[1] is None):
            return None
        noisy = results[0]["own/variational"] if beta == found.scale.inversions.beta else results[1][f"{beta:g}"]
        return np.subtract(noisy["ssim"], results[0]["own/plain"]["ssim"])

    return value


def _size(found: Found, source: Source, beta: float, which: int) -> str:
    """Such as "beta 1e-08, noise 31 % of |w|", the mean over seeds of the standard (0) or the robust (1) networks."""
    if beta == found.scale.inversions.beta:
        size = found.reader("inversions", lambda r: r["noise_size"])
    else:
        size = found.reader("noise-sizes", lambda r: r[f"{beta:g}"]["noise_size"])
    mean = float(np.mean([pair[which] for pair in found.pairs(source, size).values()]))
    return f"beta {beta:g}, noise {100 * mean:.2g} % of |w|"


@about("fig-1-effective")
def _effective_images(found: Found) -> Iterator[Evidence]:
    """1 - SSIM of effective images less that of plain inversions, of the robust networks, the standard ones beside."""
    for source in found.scale.sources:
        both = [found.pairs(source, _unlike(found, f"own/{mode}")).values() for mode in ("effective", "plain")]
        for i, kind in ((1, "robust"), (0, "standard")):
            values = [x[i] - y[i] for x, y in zip(*both, strict=True)]
            if values:
                label = f"{source.name}, {kind}: 1 - SSIM, {_size(found, source, found.scale.inversions.beta, i)}"
                yield over_seeds(label, values, beside=kind == "standard")


@about("fig-2-speed", "fig-2-forty")
def _speed(found: Found) -> Iterator[Evidence]:
    yield from _best_arm(found, "speed_up", "steps to plain's last loss on the clean network")


@about("fig-2-fit")
def _fit(found: Found) -> Iterator[Evidence]:
    yield from _best_arm(found, "gain_clean", "log of last losses, clean network")
    yield from _best_arm(found, "gain_objective", "log of last losses, the network being inverted")


def _best_arm(found: Found, key: str, label: str) -> Iterator[Evidence]:
    """The variational arm that does best, chosen afterwards: in favour of the claim. The network is one of each kind;
    the paper inverts the robust one."""
    for name, result in first_results(found, "convergence"):
        arms = {a["arm"]: a[key] for a in result["arms"] if a["arm"].startswith("variational")}
        best = max(arms, key=lambda arm: float(np.mean(arms[arm])))
        standard = name.endswith("/standard")
        yield over_seeds(f"{name}, best arm ({best}): {label}", arms[best], "start", beside=standard)


@about("fig-9")
def _best_eps(found: Found) -> Iterator[Evidence]:
    for source in found.scale.sources:
        halves = []
        for seed in range(max(source.seeds.values())):
            parts = (slice(0, None, 2), slice(1, None, 2))
            halves.append([found.by_eps(source, _unlike(found, "own/plain", part), seed) for part in parts])
        halves = [(chosen, judged) for chosen, judged in halves if len(chosen) > 2]
        shared = sorted(set.intersection(*(set(chosen) for chosen, _ in halves))) if halves else []
        values = []
        for chosen, judged in halves if len(shared) > 2 else ():
            between = min(shared[1:-1], key=lambda eps: chosen[eps])
            values.append(min(judged[shared[0]], judged[shared[-1]]) - judged[between])
        if values:
            yield over_seeds(f"{source.name}: 1 - SSIM, eps {', '.join(f'{e:g}' for e in shared)}", values)
