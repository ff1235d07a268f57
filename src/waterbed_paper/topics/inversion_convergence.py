"""How fast inversions converge, and how low their loss gets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from waterbed_paper.claims import BEST_OF_SEVERAL, Claim
from waterbed_paper.drawing import COLOURS, legend, panels
from waterbed_paper.evidence import Evidence, best_of
from waterbed_paper.figures import PaperFigure
from waterbed_paper.plan import STEP_SIZES
from waterbed_paper.results import Results

CLEAN, INVERTED = "clean network", "the network being inverted"


def _speed(results: Results) -> Iterator[Evidence]:
    yield from _best_arms(results, {"speed_up": CLEAN, "speed_up_objective": INVERTED}, "steps to 1.05 times plain's")


def _fit(results: Results) -> Iterator[Evidence]:
    yield from _best_arms(results, {"gain_clean": CLEAN, "gain_objective": INVERTED}, "log of plain's over its")


def _best_arms(results: Results, keys: dict[str, str], label: str) -> Iterator[Evidence]:
    """The variational arm that does best, by each of the keys. The network is one of each kind; the paper inverts the
    robust one. The study of as many steps as the paper's decides where it was run."""
    long = {step_size: dict(results.first_of(f"convergence-{step_size}")) for step_size in STEP_SIZES}
    for step_size, studies in long.items():
        for name, result in studies.items():
            for key, on in keys.items():
                text, beside = f"{name}, {_study(result, step_size)}", step_size != "tuned"
                yield _best_arm(text, result["arms"], key, f"{label} last loss, {on}", beside)
    for name, result in results.first_of("convergence"):
        decided = name in long["tuned"]
        text = f"{name}, {_study(result, 'tuned')}" if decided else name
        for key, on in keys.items():
            if key in result["arms"][0]:
                beside = decided or name.endswith("/standard")
                yield _best_arm(text, result["arms"], key, f"{label} last loss, {on}", beside)


def _best_arm(name: str, arms: list[dict[str, Any]], key: str, label: str, beside: bool = False) -> Evidence:
    plain = next(arm for arm in arms if arm["arm"] == "plain")
    noisy = {f"{a['arm']}, step {a['lr']:.2g}": a[key] for a in arms if a["arm"].startswith("variational")}
    text = f"{name}, best of {len(noisy)} arms ({{}}; plain, step {plain['lr']:.2g}): {label}"
    evidence = best_of(noisy, text, "start", beside)
    if "last_tenth" not in plain:
        return evidence
    falling = float(np.mean(plain["last_tenth"]))
    return replace(
        evidence, note=f"plain fell by {100 * (1 - math.exp(-falling)):.2g} % in the last tenth of the steps"
    )


def _study(result: dict[str, Any], step_size: str) -> str:
    return f"{result['arms'][0]['steps'][-1]:,} steps" + (", one step size for all" if step_size == "common" else "")


def _convergence(results: Results) -> Figure | None:
    """Fig. 2: loss against iterations, on the network that is inverted and on the clean one."""
    studies: dict[str, dict[str, Any]] = {}
    for source in results.scale.sources:
        for n in source.networks() if source.inverted else ():
            if n.objective in ("standard", "adversarial"):
                name = f"{n.source}, {'standard' if n.eps == 0 else f'eps {n.eps:g}'}"
                if (result := results.of("convergence", n)) is not None:
                    studies[name] = result
                for step_size in STEP_SIZES:
                    if (result := results.of(f"convergence-{step_size}", n)) is not None:
                        studies[f"{name}, {_study(result, step_size)}"] = result
    if not studies:
        return None
    figure, axes = panels(len(studies), 2, 4.4, 3.2)
    kinds = {"losses": "network being inverted", "clean_losses": "clean network"}
    for (name, result), row in zip(studies.items(), axes, strict=True):
        for ax, (key, kind) in zip(row, kinds.items(), strict=True):
            for i, arm in enumerate(result["arms"]):
                low, middle, high = np.array(arm["quartiles"][key], dtype=float).T
                colour = "#000000" if i == 0 else COLOURS[(i - 1) % (len(COLOURS) - 1)]
                style = ("-", "--", "-.", ":")[i % 4]
                ax.plot(arm["steps"], middle, color=colour, ls=style, lw=1.6, label=arm["arm"])
                ax.fill_between(arm["steps"], low, high, color=colour, alpha=0.1, lw=0)
            ax.set(yscale="log", xlabel="iteration", ylabel="|f(r) - z|² / |z|²", title=f"{name}: {kind}")
            ax.set_xscale("symlog", linthresh=1)  # the start is step 0
            ax.set_xlim(left=0)
    legend(figure, columns=3)
    return figure


CLAIMS = (
    Claim(
        id="fig-2-speed",
        where="Fig. 2; Sec. 4",
        sentence="Noise drawn once makes the inversion converge much faster.",
        quantity="steps that the plain inversion takes to 1.05 times its last loss, over the steps to the same "
        "loss with noise drawn once",
        test="On the clean network and on the one being inverted, both must agree; each arm with its own best step "
        "size, over as many steps as the paper's where that was run; beside it all arms at one step size, which may "
        "be what the paper did. Geometric mean over images, 95 % t interval over starts: above 2, the least that "
        "counts as much, supports; below 2 contradicts. Where the plain loss still falls at the last step, the ratio "
        "is of that far; what never reaches the loss counts as having taken all steps, in favour of the claim. "
        + BEST_OF_SEVERAL
        + " The robust network decides, the standard one stands beside.",
        holds_above=2.0,
        evidence=_speed,
    ),
    Claim(
        id="fig-2-forty",
        where="Fig. 2; Sec. 4",
        sentence="The speed-up is about forty times (200 steps against 8,000).",
        quantity="the ratio of fig-2-speed",
        test="95 % t interval over starts of the ratio: above 20, half of what is claimed, supports; below 20 "
        "contradicts. The robust network decides; else as fig-2-speed.",
        holds_above=20.0,
        evidence=_speed,
    ),
    Claim(
        id="fig-2-fit",
        where="Fig. 2; Sec. 4; abstract",
        sentence="Noise drawn once also ends at a lower loss.",
        quantity="log of the last loss of the plain inversion over that with noise drawn once",
        test="On the network being inverted and on the clean one, both must agree; each arm with its own best "
        "step size. 95 % t interval over starts: above 0 supports, below 0 contradicts. "
        + BEST_OF_SEVERAL
        + " The robust network decides, the standard one stands beside it.",
        evidence=_fit,
    ),
)

FIGURES = (
    PaperFigure(
        "fig-2",
        "Fig. 2: convergence of inversion",
        "The paper: with noise drawn once about 200 iterations, without about 8,000.",
        "Inversion loss over iterations; line: median, band: quartiles, over images and seeds. Every arm has its own "
        "best step size of gradient descent but where one is said to be for all; images, starts and steps stand "
        "under what this scale runs (the paper: up to 10,000 steps). Left on the network being inverted (with its "
        "noise), right on the clean one.",
        ("convergence",),
        _convergence,
        claims=("fig-2-speed", "fig-2-forty", "fig-2-fit"),
    ),
)
