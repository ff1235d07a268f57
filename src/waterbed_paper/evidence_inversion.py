"""Evidence on inversion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from waterbed_paper.evidence import about, first_results
from waterbed_paper.found import Evidence, Found, Value, best_of, no_interval, over_seeds
from waterbed_paper.scale import Network, Source


def _unlike(found: Found, which: str) -> Value:
    """1 - SSIM to the original, mean over images."""
    return found.reader("inversions", lambda r: 1 - float(np.mean(r[which]["ssim"])))


@about("inversion")
def _inversion(found: Found) -> Iterator[Evidence]:
    yield from _recognised(found, "own", "")


def _recognised(found: Found, which: str, on: str) -> Iterator[Evidence]:
    """Both networks' inversions against the originals, by SSIM and by which original they resemble most.

    The latter is over images, each with its mean over seeds: shares of few images are often the same for all seeds. One
    more image without a difference keeps a width where all images agree. One seed has no interval here either.
    """
    identified = found.reader("inversions", lambda r: np.array(r[f"{which}/plain"]["identified"], dtype=float))
    for source in found.scale.sources:
        unlike = _unlike(found, f"{which}/plain")
        yield from found.difference(f"1 - SSIM{on}", source, unlike, robust_less_standard=False)
        pairs = found.pairs(source, identified).values()
        if pairs:
            label = f"{source.name}: share of inversions most like their own original{on}"
            images = [*np.mean([robust - standard for standard, robust in pairs], axis=0)]
            ends = over_seeds(label, [*images, 0.0], "image").ends if len(pairs) > 1 else no_interval
            yield Evidence(label, float(np.mean(images)), ends, len(images), "image")


@about("inversion-elsewhere")
def _inversion_elsewhere(found: Found) -> Iterator[Evidence]:
    task = found.scale.inversions.elsewhere
    if task is not None:
        yield from _recognised(found, "elsewhere", f", {task}")


@about("fig-1-noise-once")
def _noise_once(found: Found) -> Iterator[Evidence]:
    """The size of noise that does best decides; each size by itself stands beside it.

    A size that fewer networks have than the inversions' own is left out until they have it.
    """
    for source in found.scale.sources:
        gains = {beta: found.pairs(source, _gain(found, beta)) for beta in _betas(found)}
        most = max(map(len, gains.values()))
        gains = {beta: pairs for beta, pairs in gains.items() if len(pairs) == most > 0}
        for i, kind in ((1, "robust"), (0, "standard")) if gains else ():
            values = {_size(found, source, beta, i): [p[i] for p in pairs.values()] for beta, pairs in gains.items()}
            name, beside = f"{source.name}, {kind}: 1 - SSIM, ", kind == "standard"
            if len(values) > 1:
                yield best_of(values, f"{name}best of {len(values)} sizes of noise ({{}})", beside=beside)
            for size, of_seeds in values.items():
                yield over_seeds(f"{name}{size}", of_seeds, beside=beside or len(values) > 1)


def _betas(found: Found) -> list[float]:
    i = found.scale.inversions
    return sorted({i.beta, *i.other_betas})


def _gain(found: Found, beta: float) -> Value:
    """What noise of one beta, drawn once, takes from 1 - SSIM, mean over images."""

    def value(network: Network) -> float | None:
        results = [found.of("inversions", network), found.of("noise-sizes", network)]
        if results[0] is None or (beta != found.scale.inversions.beta and results[1] is None):
            return None
        noisy = results[0]["own/variational"] if beta == found.scale.inversions.beta else results[1][f"{beta:g}"]
        return float(np.mean(np.subtract(noisy["ssim"], results[0]["own/plain"]["ssim"])))

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
    """1 - SSIM of effective images less that of plain inversions, of the robust networks; beside it that of the
    standard ones, and both less that with noise drawn once."""
    for source in found.scale.sources:
        unlike = {
            m: [*found.pairs(source, _unlike(found, f"own/{m}")).values()]
            for m in ("plain", "variational", "effective")
        }
        for i, kind in ((1, "robust"), (0, "standard")) if unlike["effective"] else ():
            size = _size(found, source, found.scale.inversions.beta, i)
            for other, less in (("plain", ""), ("variational", ", less that with noise drawn once")):
                values = [x[i] - y[i] for x, y in zip(unlike["effective"], unlike[other], strict=True)]
                beside = kind == "standard" or other != "plain"
                yield over_seeds(f"{source.name}, {kind}: 1 - SSIM, {size}{less}", values, beside=beside)


@about("fig-2-speed", "fig-2-forty")
def _speed(found: Found) -> Iterator[Evidence]:
    yield from _best_arm(found, "speed_up", "steps to 1.05 times plain's last loss on the clean network")


@about("fig-2-fit")
def _fit(found: Found) -> Iterator[Evidence]:
    yield from _best_arm(found, "gain_clean", "log of last losses, clean network")
    yield from _best_arm(found, "gain_objective", "log of last losses, the network being inverted")


def _best_arm(found: Found, key: str, label: str) -> Iterator[Evidence]:
    """The variational arm that does best. The network is one of each kind; the paper inverts the robust one."""
    for name, result in first_results(found, "convergence"):
        plain = next(a for a in result["arms"] if a["arm"] == "plain")
        arms = {f"{a['arm']}, step {a['lr']:.2g}": a[key] for a in result["arms"] if a["arm"].startswith("variational")}
        said = f"{name}, best of {len(arms)} arms ({{}}; plain, step {plain['lr']:.2g}): {label}"
        yield best_of(arms, said, "start", beside=name.endswith("/standard"))


@about("fig-9")
def _best_eps(found: Found) -> Iterator[Evidence]:
    unlike = _unlike(found, "own/plain")
    for source in found.scale.sources:
        by_seed = [found.by_eps(source, unlike, seed) for seed in range(max(source.seeds.values()))]
        by_seed = [values for values in by_seed if len(values) > 2]
        shared = sorted(set.intersection(*(set(values) for values in by_seed))) if by_seed else []
        if len(shared) > 2:
            gains = {f"{e:g}": [min(v[shared[0]], v[shared[-1]]) - v[e] for v in by_seed] for e in shared[1:-1]}
            tried = ", ".join(f"{e:g}" for e in shared)
            yield best_of(gains, f"{source.name}: 1 - SSIM, best eps between {{}} (of {tried})")
