"""The paper's figures of information and representations; each takes what was found, and is None where
nothing was run for it."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from waterbed_paper.drawing import COLOURS, MARKERS, against_eps, by_eps, legend, line, panels
from waterbed_paper.found import Found
from waterbed_paper.scale import Network

COLOURED = 10


def weight_information(found: Found) -> Figure | None:
    """Fig. 4: log-variance of the weights against eps, and the trace that no rescaling changes."""
    trace = "tr(D F D) [nats]"
    return against_eps(
        found,
        {
            "log-variance [nats]": lambda s: found.measure("weight_log_variance"),
            trace: lambda s: found.measure("weight_rescaling_invariant_trace"),
        },
        log=[trace],
    )


def weight_norm(found: Found) -> Figure | None:
    """Fig. 5: the norm of the weights against eps, and over the epochs of the first seed."""
    last = found.reader("network", lambda r: r["weight_norms"][-1])
    rows = [(s, points) for s in found.scale.sources if (points := by_eps(s, last))]
    if not rows:
        return None
    figure, axes = panels(len(rows), 2)
    for (source, points), (left, right) in zip(rows, axes, strict=True):
        line(left, points, "after the last epoch", 0)
        left.set(xlabel="eps of training", ylabel="|w|", title=source.name)
        for i, eps in enumerate(source.eps):
            result = found.of("network", Network(source.name, "adversarial" if eps else "standard", eps, 0))
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


def representations(found: Found) -> Figure | None:
    """Fig. 6: t-SNE of the features of test images, coloured by class, a panel an eps."""
    results = {}
    for source in found.scale.sources:
        for eps in source.eps:
            result = found.of("features", Network(source.name, "adversarial" if eps else "standard", eps, 0))
            if result is not None:
                results[f"{source.name}, {f'eps {eps:g}' if eps else 'standard'}"] = result
    if not results:
        return None
    columns = min(3, len(results))
    figure, axes = panels(-(-len(results) // columns), columns, 3.1, 3.3)
    for ax in axes.flat[len(results) :]:
        ax.set_axis_off()
    for (name, result), ax in zip(results.items(), axes.flat, strict=False):
        labels, points = np.array(result["labels"]), np.array(result["t_sne"])
        shown = labels < COLOURED  # more colours could not be told apart
        ax.scatter(*points[~shown].T, color="#d0d7de", s=6, lw=0)
        ax.scatter(*points[shown].T, c=labels[shown], cmap="tab10", vmin=0, vmax=COLOURED - 1, s=9, lw=0)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        numbers = f"soft NN loss {_short(result['soft_nearest_neighbour_loss']['value'])} nats\n10-NN "
        numbers += f"{_short(result['neighbours'])} %, silhouette {_short(result['silhouette'])}"
        ax.set_title(f"{name}\n{numbers}", fontsize=9)
    return figure


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def curvature_ratio(found: Found) -> Figure | None:
    """Prop. 3.2: the largest KL divergence over its quadratic form, against the norm of the perturbation; a line a
    network, the first seed of each."""
    rows: dict[str, dict[str, dict[float, list[float]]]] = {}
    for source in found.scale.sources:
        for network in source.networks():
            result = found.of("theory", network) if network.seed == 0 else None
            if result is not None:
                label = network.name.split("/")[1]
                rows.setdefault(source.name, {})[label] = {float(e): [r["value"]] for e, r in result["ratios"].items()}
    if not rows:
        return None
    labels = list(dict.fromkeys(label for lines in rows.values() for label in lines))  # one legend for all panels
    figure, axes = panels(1, len(rows), 4.2, 3.2)
    for (name, lines), ax in zip(rows.items(), axes[0], strict=True):
        ax.axhline(1, color="#57606a", lw=1, ls=":")
        for label, points in lines.items():
            line(ax, points, label, labels.index(label))
        ax.set(xscale="log", yscale="log", xlabel="norm of the perturbation, eps", ylabel="max KL / (eps²/2 λ₁)")
        ax.set_title(name)
    legend(figure, columns=3)
    return figure


def input_information(found: Found) -> Figure | None:
    """Def. 3.1 and eq. 8: information about the input against eps."""
    trace, relative = "tr S, labels [nats/pixel²]", "tr S / E|z|² [1/pixel²]"
    return against_eps(
        found,
        {
            trace: lambda s: found.measure("input_fisher_trace"),
            relative: lambda s: found.measure("input_fisher_relative_trace"),
            "effective information [nats]": lambda s: found.measure("effective_information"),
        },
        log=[trace, relative],
    )


def gaussian_noise(found: Found) -> Figure | None:
    """After Prop. 3.2: log lambda_1 of the sensitivity after Gaussian and after adversarial training."""
    value = found.reader("theory", lambda r: _number(r["log_lambda_max"]["value"]))
    kinds = {"adversarial": "adversarial training", "gaussian-noise": "Gaussian noise of equal norm"}
    return against_eps(found, {"log λ₁(S)": lambda s: value}, kinds)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _accuracies(found: Found) -> dict:
    robust = sorted({eps for source in found.scale.sources for eps in source.evaluated_eps})
    quantities = {"clean [%]": lambda s: found.reader("accuracy", lambda r: r["clean"])}
    for eps in robust:
        quantities[f"under PGD-20 at {eps:g} [%]"] = lambda s, e=f"{eps:g}": found.reader(
            "accuracy", lambda r: r["robust"].get(e, math.nan)
        )
    return quantities


def accuracy(found: Found) -> Figure | None:
    """Clean and robust accuracy on the source against eps."""
    return against_eps(found, _accuracies(found))


def trades(found: Found) -> Figure | None:
    """Eq. 1 against eq. 2: clean and robust accuracy after adversarial training and after TRADES."""
    return against_eps(
        found, _accuracies(found), {"adversarial": "adversarial training (eq. 1)", "trades": "TRADES (eq. 2)"}
    )
