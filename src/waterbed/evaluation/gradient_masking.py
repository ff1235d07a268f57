"""Gradient masking: is a network robust, or does it only hide the gradient that the attack follows?

The signs are those of Athalye, Carlini and Wagner (2018), "Obfuscated gradients give a false sense of security", and
Carlini et al. (2019), "On evaluating adversarial robustness". Each is a one-sided exact binomial test at level
:data:`LEVEL` on images that the network classifies correctly; a verdict names the tests that fail, with their counts.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor, nn

from waterbed.attacks.balls import as_ball
from waterbed.attacks.pgd import PGD
from waterbed.errors import UsageWarning
from waterbed.evaluation.accuracy import correct
from waterbed.evaluation.search import Attacked, broken_after, broken_by

CHECKED = 128  # most images a verdict uses
ENOUGH = 30  # fewest images for a verdict of no masking
LEVEL = 0.005  # of each of the seven tests: at most one false alarm in thirty unmasked networks
NOISE_DRAWS = 20
QUERIES = 1000

# The keys of the evidence.
KINDS = ("pgd-20", "pgd", "pgd-100", "2 eps", "10 eps", "unbounded", "noise", "flat", "search")

# Which images (N,) a gradient-free attack breaks, from the network, x, y.
GradientFree = Callable[[Attacked, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Check:
    """One sign: its name, what was counted, and the p-value against an unmasked network."""

    name: str
    found: str
    p: float

    @property
    def suspicious(self) -> bool:
        """Whether chance does not explain the counts."""
        return self.p < LEVEL


@dataclass(frozen=True)
class Verdict:
    """What the checks say together; ``str()`` is one line."""

    checks: tuple[Check, ...]
    n: int

    @property
    def suspected(self) -> bool | None:
        """True, False, or None with too few images to tell."""
        if any(check.suspicious for check in self.checks):
            return True
        return False if self.n >= ENOUGH else None

    def __str__(self) -> str:
        if self.suspected:
            signs = "; ".join(f"{c.name}: {c.found} (p = {c.p:.1g})" for c in self.checks if c.suspicious)
            return f"gradient masking suspected: {signs}"
        if self.suspected is None:
            return f"undecided (too few examples: {self.n} classified correctly, {ENOUGH} needed)"
        return f"no sign of gradient masking ({self.n} images, {len(self.checks)} checks)"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"verdict": str(self), "suspected": self.suspected, "n": self.n, "checks": [*map(asdict, self.checks)]}


def gather_evidence(
    target: Attacked, x: Tensor, y: Tensor, eps: float, norm: str, search: GradientFree, broken: Mapping[str, Tensor]
) -> dict[str, list[bool]]:
    """The evidence: which images each kind of attack breaks, one list of N per kind.

    Args:
        target: frozen and in eval mode.
        x, y: (N, C, H, W) in [0, 1] and (N,), classified correctly.
        search: a gradient-free attack, for the images that PGD did not break.
        broken: "pgd-20" (one run) and "pgd" (any run), (N,) bool: results that the evaluation has already.
    """

    def breaks(radius: float, steps: int, random_start: bool) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UsageWarning)  # a radius above 1 is meant here
            attack = PGD(radius, norm, steps, random_start=random_start)
        return broken_by(attack, target, x, y)

    # Without a random start: far from the image, noise alone breaks networks that a masked gradient cannot.
    evidence = {
        **broken,
        "pgd-100": breaks(eps, 100, True),
        "2 eps": breaks(2 * eps, 20, False),
        "10 eps": breaks(10 * eps, 20, False),
        "unbounded": breaks(unbounded(tuple(x.shape[1:]), eps, norm), 100, False),
        "noise": _noise(target.network, x, y, eps, norm),
        "flat": _flat(target.network, x, y, eps, norm),
        "search": torch.zeros_like(broken["pgd"]),
    }
    unbroken = ~broken["pgd"]
    if bool(unbroken.any()):
        evidence["search"][unbroken] = search(target, x[unbroken], y[unbroken])
    return {name: values.tolist() for name, values in evidence.items()}


def unbounded(shape: tuple[int, ...], eps: float, norm: str) -> float:
    """A radius at which any image (C, H, W) can become mid-grey, so that no classifier is robust.

    >>> unbounded((3, 32, 32), 0.5, "l2"), unbounded((3, 32, 32), 8 / 255, "linf")
    (27.712812921102035, 0.5)
    """
    return max(10 * eps, math.sqrt(math.prod(shape)) / 2) if norm == "l2" else max(10 * eps, 0.5)


def judge(evidence: Mapping[str, Sequence[bool]], autoattack: tuple[int, int] | None = None) -> Verdict:
    """The verdict on the evidence of :func:`gather_evidence`.

    The expected rates leave room for unmasked networks. Square and AutoAttack minimise the margin, a better objective
    than cross-entropy, so they break some of the images that PGD does not, and more as eps nears breaking all.

    Args:
        autoattack: how many images AutoAttack broke, of how many that PGD did not; None if it was not run.

    >>> flat = {name: [True] * 40 for name in ("pgd-20", "pgd", "pgd-100", "2 eps", "10 eps", "unbounded")}
    >>> print(judge(flat | {name: [False] * 40 for name in ("noise", "search", "flat")}))
    no sign of gradient masking (40 images, 6 checks)
    """
    broken = {name: torch.tensor(evidence.get(name, []), dtype=torch.bool) for name in KINDS}
    n, count = len(broken["pgd"]), {name: int(values.sum()) for name, values in broken.items()}
    radii = ("pgd-20", "2 eps", "10 eps", "unbounded")
    left = n - count["pgd"]
    checks = [
        Check(
            "more steps do worse",
            f"PGD-100 breaks {count['pgd-100']} of {n}, PGD-20 {count['pgd-20']}",
            _more(broken["pgd-20"], broken["pgd-100"]),
        ),
        Check(
            "a larger eps does worse",
            f"PGD breaks {', '.join(str(count[r]) for r in radii)} of {n} at 1, 2, 10 eps and unbounded",
            min(_more(broken[a], broken[b]) for a, b in itertools.pairwise(radii)),
        ),
        Check(
            "unbounded PGD fails",
            f"{n - count['unbounded']} of {n} stand where any image could be made mid-grey; 5 % expected at most",
            _above(n - count["unbounded"], n, 0.05),
        ),
        Check(
            "noise does better",
            f"{NOISE_DRAWS} draws of noise of size eps break {count['noise']} of {n}, PGD-20 {count['pgd-20']}",
            _more(broken["noise"], broken["pgd-20"]),
        ),
        Check(
            "a gradient-free search does better",
            f"it breaks {count['search']} of the {left} that PGD left standing; 5 % expected at most",
            _above(count["search"], left, 0.05),
        ),
        Check(
            "the loss is flat along its gradient",
            f"for {count['flat']} of {n}; 10 % expected at most",
            _above(count["flat"], n, 0.1),
        ),
    ]
    if autoattack is not None:
        text = f"it breaks {autoattack[0]} of the {autoattack[1]} that PGD left standing; half expected at most"
        checks.append(Check("AutoAttack does better", text, _above(*autoattack, 0.5)))
    return Verdict(tuple(checks), n)


def random_search(target: Attacked, x: Tensor, y: Tensor, eps: float, norm: str, queries: int = QUERIES) -> Tensor:
    """Which images (N,) a gradient-free search breaks: it adds signs in a window and keeps what lowers the margin.

    The windows shrink from half the image to a pixel. Weaker than Square, which replaces it where AutoAttack is
    installed.
    """
    ball = as_ball(norm)
    height, width = x.shape[-2:]

    def search(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        delta, best = torch.zeros_like(x), _margin(model, x, y)
        for query in range(queries):
            remaining = 1 - query / queries
            h, w = (max(1, round(side * remaining / 2)) for side in (height, width))
            top, start = (int(torch.randint(side - size + 1, ())) for side, size in ((height, h), (width, w)))
            change = torch.zeros_like(x)
            change[..., top : top + h, start : start + w] = torch.randn_like(x[..., :1, :1]).sign()
            proposed = (x + ball.project(delta + 2 * eps * remaining * ball.direction(change), eps)).clamp(0, 1)
            margin = _margin(model, proposed, y)
            better = margin < best
            delta[better], best[better] = (proposed - x)[better], margin[better]
        return x + delta

    return broken_after(search, target, x, y)


def _more(a: Tensor, b: Tensor) -> float:
    """p-value of a sign test: more images are broken by ``a`` alone than by ``b`` alone."""
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return _above(only_a, only_a + only_b, 0.5)


def _above(count: int, n: int, rate: float) -> float:
    """p-value of ``count`` of ``n`` if the true rate is at most ``rate``; 1 if ``n`` is 0."""
    return float(binomtest(count, n, rate, "greater").pvalue) if n else 1.0


def _noise(model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: str) -> Tensor:
    """(N,) whether any draw of noise on the surface of the ball breaks an image."""
    direction = as_ball(norm).direction
    broken = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(NOISE_DRAWS):
        broken |= ~correct(model, (x + eps * direction(torch.randn_like(x))).clamp(0, 1), y)
    return broken


def _flat(model: nn.Module, x: Tensor, y: Tensor, eps: float, norm: str) -> Tensor:
    """(N,) whether no step of up to eps along the gradient of cross-entropy lowers the margin.

    The margin, because in float32 the cross-entropy of a confident network can be 0 though its gradient is right.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(model(x), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    x, step, start = x.detach(), eps * as_ball(norm).direction(gradient), _margin(model, x, y)
    falls = [_margin(model, (x + part * step).clamp(0, 1), y) < start for part in (1 / 8, 1 / 4, 1 / 2, 1)]
    return ~torch.stack(falls).any(0)


@torch.no_grad()
def _margin(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(N,) the logit of the class less the largest other one; negative where the image is misclassified."""
    logits = model(x)
    own = F.one_hot(y, logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).amax(1)
