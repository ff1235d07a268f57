"""Does weight noise make inversions converge faster (Fig. 2)? Each arm gets a step size tuned for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from waterbed.data.loading import stack
from waterbed.environment import environment
from waterbed.errors import UsageError, check_count, check_number
from waterbed.files import make_folder, to_json, write_atomic
from waterbed.information.defaults import PRIOR_VARIANCE
from waterbed.information.estimate import Estimate, mean_estimate
from waterbed.information.weight_fisher import WeightFisher
from waterbed.information.weight_noise import WeightNoise
from waterbed.inversion.defaults import BETAS, NUM_SAMPLES, NUM_SEEDS, OPTIMIZER, STEPS
from waterbed.inversion.invert import invert
from waterbed.plots import COLOURS, save_figure
from waterbed.progress import announce
from waterbed.text import plain

RATES = tuple(4.0**k for k in range(-4, 4))
THRESHOLDS = (0.1, 0.03, 0.01, 0.003)


@dataclass(frozen=True)
class Arm:
    """An arm of the study: a mode and its noise."""

    name: str
    mode: str
    noise: WeightNoise | None


@dataclass(frozen=True)
class Curves:
    """The losses of one arm on every image and seed, relative to |z|^2.

    Attributes:
        name: of the arm.
        lr: its step size, tuned for it or given for all arms.
        noise_size: root of E |n|^2 over |w|.
        losses, clean_losses: (seeds, steps + 1, B), before each step and at the end, of the objective and on the clean
            model.
    """

    name: str
    lr: float
    noise_size: float
    losses: Tensor
    clean_losses: Tensor

    def iterations_to(self, threshold: float, clean: bool = True) -> Tensor:
        """Steps (seeds, B) until the loss first was at most ``threshold``; infinite where it never was.

        >>> losses = torch.tensor([1.0, 0.5, 0.1]).view(1, 3, 1)
        >>> Curves("plain", 1.0, 0.0, losses, losses).iterations_to(0.5).item()
        1.0
        """
        reached = (self.clean_losses if clean else self.losses) <= threshold
        return torch.where(reached.any(1), reached.to(torch.uint8).argmax(1).double(), torch.inf)

    def final_log_ratio(self, other: Curves) -> Estimate:
        """Mean over images of log(final clean loss / the other arm's): negative if this arm ended lower."""
        ratio = (self.clean_losses[:, -1] / other.clean_losses[:, -1]).log().mean(0)
        return mean_estimate(ratio, "nats", f"log ratio of final clean losses, paired by image, to {other.name}")


def arms(fisher: WeightFisher, betas: Sequence[float], prior_variance: float) -> list[Arm]:
    """The arms: plain; variational at every beta; at the median beta, effective, and isotropic noise of the same size
    drawn once.

    Raises:
        UsageError: ``betas`` is empty.
    """
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
    held_out: Tensor,
    *,
    betas: Sequence[float] = BETAS,
    prior_variance: float = PRIOR_VARIANCE,
    seeds: Sequence[int] = tuple(range(NUM_SEEDS)),
    steps: int = STEPS,
    tuning_steps: int | None = None,
    lr: float | None = None,
    optimizer: str = OPTIMIZER,
    progress: bool = False,
    **settings: Any,
) -> list[Curves]:
    """Invert ``images`` with every arm and seed, at the step size that is best for that arm on ``held_out``.

    According to Fig. 2 of the paper, noise drawn once makes convergence about 40 times faster. Testing that takes a
    step size tuned for each arm: of :data:`RATES` times the step size that :func:`waterbed.invert` finds by default,
    each arm gets the one with the lowest mean log objective after ``tuning_steps``.

    Args:
        model: the network.
        fisher: its weight Fisher.
        images: (B, C, H, W) to invert.
        held_out: other images (B', C, H, W), to tune the step sizes on.
        betas: information levels of the variational arms.
        prior_variance: of the weights.
        seeds: of start and noise.
        tuning_steps: half of ``steps`` by default.
        lr: one step size for all arms instead of tuning, to separate the effect of noise from that of the step size.
        optimizer, settings: as for :func:`waterbed.invert` (fake_relu, layer, init, precision, ...).

    Raises:
        UsageError: "lbfgs", which has no step size to tune, empty ``betas`` or a wrong number.
    """
    check_count("steps", steps)
    if optimizer == "lbfgs":
        raise UsageError("optimizer='lbfgs' has no step size to tune; pass 'sgd', 'normalized' or 'adam'")
    check_number("prior_variance", prior_variance, above=0)
    if lr is not None:
        check_number("lr", lr, above=0)
    tuning_steps = tuning_steps or max(1, steps // 2)
    curves = []
    for arm in arms(fisher, betas, prior_variance):
        rate = lr or tuned_rate(model, arm, held_out, tuning_steps, optimizer, settings)
        curves.append(converge(model, arm, images, seeds, steps, rate, optimizer, progress, **settings))
    return curves


def converge(
    model: nn.Module,
    arm: Arm,
    images: Tensor,
    seeds: Sequence[int],
    steps: int,
    lr: float,
    optimizer: str = OPTIMIZER,
    progress: bool = False,
    **settings: Any,
) -> Curves:
    """Invert ``images`` with one arm at one step size, from every seed; arguments as for :func:`convergence`."""
    results = []
    for seed in seeds:
        announce(f"{arm.name}, seed {seed}, lr {lr:.3g}", progress)
        results.append(
            invert(model, images, arm.mode, arm.noise, steps, lr, optimizer, seed, progress=progress, **settings)
        )
    return Curves(
        name=arm.name,
        lr=lr,
        noise_size=results[0].noise_size,
        losses=torch.stack([torch.cat([r.losses, r.final_losses[None]]) / r.scale for r in results]),
        clean_losses=torch.stack([torch.cat([r.clean_losses, r.final_clean_losses[None]]) / r.scale for r in results]),
    )


def usual_rate(model: nn.Module, images: Tensor, optimizer: str, settings: dict[str, Any]) -> float:
    """The step size that plain inversion finds by itself, median over ``images``."""
    return float(invert(model, images, steps=1, optimizer=optimizer, seed=1000, **settings).lr.median())


def tuned_rate(
    model: nn.Module, arm: Arm, held_out: Tensor, steps: int, optimizer: str, settings: dict[str, Any]
) -> float:
    """The step size of the grid with the lowest mean log loss on the held-out images after ``steps``."""
    # All arms choose from the same multiples of the step size that plain inversion finds.
    centre = usual_rate(model, held_out, optimizer, settings)
    rates = centre * torch.tensor(RATES, dtype=held_out.dtype, device=held_out.device)
    result = invert(
        model,
        held_out.repeat(len(rates), 1, 1, 1),
        arm.mode,
        arm.noise,
        steps,
        rates.repeat_interleave(len(held_out)),
        optimizer,
        seed=1000,
        **settings,
    )
    # An effective objective is noisy, so average over the last tenth of the steps.
    tail = (result.losses[-max(1, steps // 10) :] / result.scale).mean(0)
    tail = torch.where(result.diverged, torch.inf, tail).nan_to_num(torch.inf)
    return float(rates[tail.clamp_min(1e-12).log().view(len(rates), -1).mean(1).argmin()])


def convergence_table(curves: Sequence[Curves]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: median iterations to each threshold on the clean model, and final losses against plain."""
    columns = ["arm", "lr", "noise / weights", *(f"to {100 * t:g} %" for t in THRESHOLDS), "final clean loss [%]"]
    columns += ["log ratio to plain"]
    rows = []
    for c in curves:
        ratio = "" if c is curves[0] else c.final_log_ratio(curves[0]).short()
        final = 100 * float(c.clean_losses[:, -1].median())
        iterations = [_median(c.iterations_to(t)) for t in THRESHOLDS]
        rows.append([c.name, f"{c.lr:.3g}", f"{c.noise_size:.3g}", *iterations, f"{final:.3g}", ratio])
    return columns, rows


def _median(iterations: Tensor) -> str:
    """Median over images and seeds, with the share that reached the threshold unless all did."""
    reached = iterations.isfinite()
    if not bool(reached.any()):
        return "never"
    share = f" ({100 * float(reached.double().mean()):.0f} %)" if not bool(reached.all()) else ""
    value = float(iterations.flatten().median())
    return ("later" if value == torch.inf else f"{value:.0f}") + share


def convergence_figure(curves: Sequence[Curves], title: str) -> Figure:
    """Fig. 2: loss over iterations, median and quartiles over images and seeds, for the noisy and the clean model."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    figure.suptitle(plain(title), fontsize=11)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, key, label in (
        (axes[0], "losses", "on the objective descended (noisy model)"),
        (axes[1], "clean_losses", "on the clean model"),
    ):
        for i, c in enumerate(curves):
            values = getattr(c, key).transpose(0, 1).flatten(1).double()
            low, middle, high = (values.quantile(q, dim=1).numpy() for q in (0.25, 0.5, 0.75))
            x = range(1, len(middle) + 1)
            colour = "black" if i == 0 else COLOURS[(i - 1) % (len(COLOURS) - 1)]
            ax.plot(x, middle, color=colour, label=c.name, lw=1.8 if i == 0 else 1.1)
            ax.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
        ax.set(xscale="log", yscale="log", xlabel="iterations", title=label)
    axes[0].set_ylabel("|f(r) - z|² / |z|²")
    axes[1].legend(frameon=False, fontsize=8)
    return figure


def convergence_record(curves: Sequence[Curves]) -> list[dict[str, Any]]:
    """The curves as numbers for JSON: iterations to thresholds, final losses, quartiles at about sixty steps."""
    record = []
    for c in curves:
        total = c.losses.shape[1]
        sampled = sorted(
            {0, total - 1, *(round(float(v)) for v in torch.logspace(0, torch.tensor(total - 1.0).log10(), 60))}
        )
        quartiles = {
            key: [
                [
                    float(v)
                    for v in getattr(c, key)[:, s].flatten().double().quantile(torch.tensor([0.25, 0.5, 0.75]).double())
                ]
                for s in sampled
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
                "steps": sampled,
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
    num_held_out: int = 8,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    **settings: Any,
) -> list[Curves]:
    """:func:`convergence` on test images of ``data``; writes ``out``/convergence-NAME.json and .png.

    Args:
        num_images, num_held_out: numbers of test images to invert and to tune on, drawn with ``seed``.
        num_samples: number of training images for the weight Fisher.
        settings: as for :func:`convergence`.

    Raises:
        UsageError: too few test images, or as for :func:`convergence`.
    """
    out = make_folder(out)
    both, _ = stack(data.test, min(num_images + num_held_out, len(data.test)), seed)
    images, held_out = both[num_held_out:], both[:num_held_out]
    if len(images) == 0:
        raise UsageError(f"data has {len(data.test)} test images, of which {num_held_out} are held out; pass fewer")
    train, _ = stack(data.train, min(num_samples, len(data.train)), seed)
    fisher = WeightFisher(model, train, progress=settings.get("progress", False))
    started = time.monotonic()
    curves = convergence(model, fisher, images, held_out, **settings)
    content = {
        "network": name,
        "data": data.name,
        "arms": convergence_record(curves),
        "settings": {k: v for k, v in settings.items() if k != "progress"},
        "images": num_images,
        "held_back": num_held_out,
        "seconds": time.monotonic() - started,
        "environment": environment(),
    }
    write_atomic(out / f"convergence-{name}.json", to_json(content).encode())
    save_figure(convergence_figure(curves, f"{name}: {data.name}"), out / f"convergence-{name}.png")
    return curves
