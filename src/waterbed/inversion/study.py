"""Does noise in the weights make inversions converge faster (Fig. 2)? Every arm with a step size tuned for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from waterbed.data.images import stack
from waterbed.environment import environment
from waterbed.errors import UsageError, check_count, check_number
from waterbed.files import make_folder, to_json, write_atomic
from waterbed.information.defaults import PRIOR_VARIANCE
from waterbed.information.estimate import Estimate, mean_estimate
from waterbed.information.weight_fisher import WeightFisher
from waterbed.information.weight_noise import WeightNoise
from waterbed.inversion.invert import invert
from waterbed.plots import save_figure

RATES = tuple(4.0**k for k in range(-4, 4))
THRESHOLDS = (0.1, 0.03, 0.01, 0.003)
BETAS = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6)


@dataclass(frozen=True)
class Arm:
    """One way to invert: a mode and its noise."""

    name: str
    mode: str
    noise: WeightNoise | None


@dataclass(frozen=True)
class Curves:
    """What one arm did on every image and seed; losses are relative to |z|^2.

    Attributes:
        name: of the arm.
        lr: its step size, tuned for it or given for all.
        noise_size: root of E |n|^2 over |w|.
        losses, clean_losses: (seeds, steps + 1, B): before each step and at the end, on the objective descended and
            on the clean model.
    """

    name: str
    lr: float
    noise_size: float
    losses: Tensor
    clean_losses: Tensor

    def iterations_to(self, threshold: float, clean: bool = True) -> Tensor:
        """Steps (seeds, B) until the loss first was at most ``threshold``; infinite where it never was."""
        reached = (self.clean_losses if clean else self.losses) <= threshold
        return torch.where(reached.any(1), reached.to(torch.uint8).argmax(1).double(), torch.inf)

    def final_log_ratio(self, other: Curves) -> Estimate:
        """Mean over images of log(final clean loss / the other arm's): below 0 where this arm ended lower."""
        ratio = (self.clean_losses[:, -1] / other.clean_losses[:, -1]).log().mean(0)
        return mean_estimate(ratio, "nats", f"log ratio of final clean losses, paired by image, to {other.name}")


def arms(fisher: WeightFisher, betas: Sequence[float], prior_variance: float) -> list[Arm]:
    """Plain; variational at every beta; effective and, of the same size, isotropic noise drawn once, both at the
    middle beta."""
    if not betas:
        raise UsageError("betas is empty; pass one or more")
    middle = sorted(betas)[len(betas) // 2]
    noises = {beta: WeightNoise(fisher, beta, prior_variance) for beta in betas}
    isotropic = WeightNoise(fisher, middle, prior_variance, "isotropic")
    return [
        Arm("plain", "plain", None),
        *(Arm(f"variational, beta {beta:g}", "variational", noise) for beta, noise in noises.items()),
        Arm(f"effective, beta {middle:g}", "effective", noises[middle]),
        Arm("isotropic, injected once", "variational", isotropic),
    ]


def convergence(
    model: nn.Module,
    fisher: WeightFisher,
    images: Tensor,
    held_back: Tensor,
    *,
    betas: Sequence[float] = BETAS,
    prior_variance: float = PRIOR_VARIANCE,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 1000,
    tuning_steps: int | None = None,
    lr: float | None = None,
    optimizer: str = "sgd",
    progress: bool = False,
    **settings: Any,
) -> list[Curves]:
    """Invert ``images`` by every arm, from every seed, with the step size that did best for that arm on ``held_back``.

    Fig. 2 of the paper says that noise drawn once makes convergence about 40 times faster. That can only be seen if
    no arm suffers from a step size chosen for another: of :data:`RATES` times the step that :func:`waterbed.invert`
    finds by itself, each arm gets the one with the lowest objective, averaged in the logarithm, after ``tuning_steps``.

    Args:
        model: the network; ``fisher`` its weights' Fisher information.
        images: (B, C, H, W) to invert; ``held_back``: others, for tuning.
        betas: of the variational arms.
        tuning_steps: half of ``steps`` by default.
        lr: one step size for all arms instead of tuning, to tell what noise does from what the step size does.
        optimizer, settings: as for :func:`waterbed.invert` (fake_relu, layer, init, precision, ...).
    """
    check_count("steps", steps)
    if optimizer == "lbfgs":
        raise UsageError("optimizer='lbfgs' has no step size to tune; pass 'sgd', 'normalized' or 'adam'")
    check_number("prior_variance", prior_variance, above=0)
    if lr is not None:
        check_number("lr", lr, above=0)
    tuning_steps = tuning_steps or max(1, steps // 2)
    found = []
    for arm in arms(fisher, betas, prior_variance):
        rate = lr or tuned_rate(model, arm, held_back, tuning_steps, optimizer, settings)
        results = []
        for seed in seeds:
            if progress:
                print(f"{arm.name}, seed {seed}, lr {rate:.3g}", flush=True)
            results.append(
                invert(model, images, arm.mode, arm.noise, steps, rate, optimizer, seed, progress=progress, **settings)
            )
        found.append(
            Curves(
                name=arm.name,
                lr=rate,
                noise_size=results[0].noise_size,
                losses=torch.stack([torch.cat([r.losses, r.final_losses[None]]) / r.scale for r in results]),
                clean_losses=torch.stack(
                    [torch.cat([r.clean_losses, r.final_clean_losses[None]]) / r.scale for r in results]
                ),
            )
        )
    return found


def tuned_rate(
    model: nn.Module, arm: Arm, held_back: Tensor, steps: int, optimizer: str, settings: dict[str, Any]
) -> float:
    """The step size of the grid with the lowest mean log loss on the held-back images at the end."""
    # What the pilot finds for plain inversion, of which every arm gets the same multiples to choose from.
    centre = float(invert(model, held_back, steps=1, optimizer=optimizer, seed=1000, **settings).lr.median())
    rates = centre * torch.tensor(RATES, dtype=held_back.dtype, device=held_back.device)
    result = invert(
        model,
        held_back.repeat(len(rates), 1, 1, 1),
        arm.mode,
        arm.noise,
        steps,
        rates.repeat_interleave(len(held_back)),
        optimizer,
        seed=1000,
        **settings,
    )
    # An effective objective is noisy: the last tenth speaks, not the last step.
    tail = (result.losses[-max(1, steps // 10) :] / result.scale).mean(0)
    tail = torch.where(result.diverged, torch.inf, tail).nan_to_num(torch.inf)
    return float(rates[tail.clamp_min(1e-12).log().view(len(rates), -1).mean(1).argmin()])


def convergence_table(curves: Sequence[Curves]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: median iterations to each threshold on the clean model, and the final loss against plain."""
    columns = ["arm", "lr", "noise / weights", *(f"to {100 * t:g} %" for t in THRESHOLDS), "final clean loss [%]"]
    columns += ["log ratio to plain"]
    rows = []
    for c in curves:
        ratio = "" if c is curves[0] else c.final_log_ratio(curves[0]).short()
        final = 100 * float(c.clean_losses[:, -1].median())
        to = [_median(c.iterations_to(t)) for t in THRESHOLDS]
        rows.append([c.name, f"{c.lr:.3g}", f"{c.noise_size:.3g}", *to, f"{final:.3g}", ratio])
    return columns, rows


def _median(iterations: Tensor) -> str:
    """Median over images and seeds, and how many reached the threshold where not all did."""
    reached = iterations.isfinite()
    if not bool(reached.any()):
        return "never"
    share = f" ({100 * float(reached.double().mean()):.0f} %)" if not bool(reached.all()) else ""
    value = float(iterations.flatten().median())
    return ("later" if value == torch.inf else f"{value:.0f}") + share


def convergence_figure(curves: Sequence[Curves], title: str) -> Figure:
    """Fig. 2: loss against iterations, median and quartiles over images and seeds, on noisy and clean model."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, key, label in (
        (axes[0], "losses", "on the objective descended (noisy model)"),
        (axes[1], "clean_losses", "on the clean model"),
    ):
        for i, c in enumerate(curves):
            values = getattr(c, key).transpose(0, 1).flatten(1).double()
            low, middle, high = (values.quantile(q, dim=1).numpy() for q in (0.25, 0.5, 0.75))
            x = range(1, len(middle) + 1)
            style = "k-" if i == 0 else f"C{i - 1}-"
            ax.plot(x, middle, style, label=c.name, lw=1.8 if i == 0 else 1.1)
            ax.fill_between(x, low, high, color=style[:-1], alpha=0.12, lw=0)
        ax.set(xscale="log", yscale="log", xlabel="iterations", title=label)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("|f(r) - z|² / |z|²")
    axes[1].legend(frameon=False, fontsize=8)
    return figure


def convergence_record(curves: Sequence[Curves]) -> list[dict[str, Any]]:
    """Plain numbers for JSON: thresholds, final losses, and the curves' quartiles at some sixty steps."""
    record = []
    for c in curves:
        total = c.losses.shape[1]
        shown = sorted(
            {0, total - 1, *(round(float(v)) for v in torch.logspace(0, torch.tensor(total - 1.0).log10(), 60))}
        )
        quartiles = {
            key: [
                [
                    float(v)
                    for v in getattr(c, key)[:, s].flatten().double().quantile(torch.tensor([0.25, 0.5, 0.75]).double())
                ]
                for s in shown
            ]
            for key in ("losses", "clean_losses")
        }
        record.append(
            {
                "arm": c.name,
                "lr": c.lr,
                "noise_size": c.noise_size,
                "images": c.losses.shape[2],
                "seeds": c.losses.shape[0],
                "iterations": {
                    f"{kind} {t:g}": [
                        None if v == torch.inf else int(v)
                        for v in c.iterations_to(t, kind == "clean").flatten().tolist()
                    ]
                    for kind in ("clean", "objective")
                    for t in THRESHOLDS
                },
                "final_log_ratio_to_plain": None if c is curves[0] else c.final_log_ratio(curves[0]).to_dict(),
                "steps": shown,
                "quartiles": quartiles,
            }
        )
    return record


def study_convergence(
    model: nn.Module,
    data: Any,
    out: str | Path,
    name: str,
    *,
    num_images: int = 32,
    num_held_back: int = 8,
    num_samples: int = 500,
    seed: int = 0,
    **settings: Any,
) -> list[Curves]:
    """:func:`convergence` on test images of ``data``; writes ``out``/convergence-NAME.json and .png.

    Args:
        num_images, num_held_back: test images to invert and to tune on, drawn with ``seed``.
        num_samples: training images behind the weights' Fisher information.
        settings: as for :func:`convergence`.
    """
    out = make_folder(out)
    both, _ = stack(data.test, min(num_images + num_held_back, len(data.test)), seed)
    images, held_back = both[num_held_back:], both[:num_held_back]
    if len(images) == 0:
        raise UsageError(f"data has {len(data.test)} test images, of which {num_held_back} are held back; pass fewer")
    train, _ = stack(data.train, min(num_samples, len(data.train)), seed)
    fisher = WeightFisher(model, train, progress=settings.get("progress", False))
    started = time.monotonic()
    curves = convergence(model, fisher, images, held_back, **settings)
    content = {
        "network": name,
        "data": data.name,
        "arms": convergence_record(curves),
        "settings": {k: v for k, v in settings.items() if k != "progress"},
        "images": num_images,
        "held_back": num_held_back,
        "seconds": time.monotonic() - started,
        "environment": environment(),
    }
    write_atomic(out / f"convergence-{name}.json", to_json(content).encode())
    save_figure(convergence_figure(curves, f"{name}: {data.name}"), out / f"convergence-{name}.png")
    return curves
