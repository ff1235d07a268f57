"""sweep: one recipe trained at several eps and seeds, evaluated and measured; one table, one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from waterbed.attacks.pgd import PGD
from waterbed.attacks.radius import parse_eps
from waterbed.environment import environment
from waterbed.errors import UsageError, check_choice, check_count
from waterbed.evaluation.accuracy import evaluate
from waterbed.files import check_output, is_json_of, locked, make_folder, to_json, write_atomic
from waterbed.information.estimate import Estimate
from waterbed.information.measure import measure
from waterbed.launchers import LAUNCHERS, submitit_executor
from waterbed.plots import COLOURS, MARKERS, is_our_png, panels, save_figure, whole_numbers
from waterbed.progress import announce
from waterbed.text import plain
from waterbed.training.fit import fit
from waterbed.training.objective import Objective
from waterbed.training.run_folder import RunFolder


@dataclass(frozen=True)
class Point:
    """One training of a sweep: what was measured of it, and its weight norm after every epoch."""

    eps: float
    seed: int
    clean: float
    robust: dict[str, float]
    weight_norms: list[float]
    measures: dict[str, Estimate]
    run: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def sweep(
    data: Any,
    make_model: Callable[[int], nn.Module],
    make_objective: Callable[[float], Objective],
    eps: Sequence[float],
    seeds: Sequence[int],
    out: str | Path,
    *,
    evaluated_eps: Sequence[float] = (0.5,),
    num_samples: int = 500,
    num_evaluated: int | None = 1000,
    progress: bool = True,
    launcher: str = "here",
    force: bool = False,
    **settings: Any,
) -> list[Point]:
    """Train, evaluate and measure at every eps and seed; writes ``out``/sweep.json and ``out``/sweep.png.

    Trainings that ``out`` already holds are not repeated. The picture has the accuracies against eps, the
    log-variance of the weights (Fig. 4), the rescaling-invariant trace, the Fisher information about the input, and the
    weight norm against eps and after every epoch (Fig. 5).

    Args:
        make_model: seed -> an untrained network.
        make_objective: eps -> the objective; eps = 0 is standard training.
        evaluated_eps: radii of the PGD-20 evaluation.
        num_samples: images behind each measure.
        num_evaluated: test images for the accuracies; None for all.
        launcher: "here" trains one after the other; "slurm" submits every training as a job (submitit), "local" starts
            them as processes at once, "debug" runs submitit in this process. A job that was stopped goes on when the
            sweep is started again.
        force: replace a sweep.json or sweep.png that is not ours.
        settings: anything else :func:`waterbed.fit` takes.

    Raises:
        UsageError: no eps or seeds, a wrong setting, or another sweep that writes to ``out``.
    """
    if not eps or not seeds:
        raise UsageError(f"eps={tuple(eps)!r} and seeds={tuple(seeds)!r} must not be empty; pass one or more of each")
    eps = [parse_eps(value) for value in eps]
    check_choice("launcher", launcher, LAUNCHERS)
    check_count("num_samples", num_samples)
    if num_evaluated is not None:
        check_count("num_evaluated", num_evaluated)
    out = make_folder(out)
    check_output(out / "sweep.json", is_json_of("points"), force)
    check_output(out / "sweep.png", is_our_png, force)
    attacks = [PGD(e, steps=20) for e in evaluated_eps]

    def point(value: float, seed: int) -> Point:
        folder = out / f"eps-{value:g}-seed-{seed}"
        run = fit(make_model(seed), data, make_objective(value), folder, seed=seed, progress=progress, **settings)
        score = evaluate(run.model, data.test, attacks, num_samples=num_evaluated, seed=seed)
        return Point(
            eps=float(value),
            seed=seed,
            clean=float(score.clean),
            robust={k: float(v) for k, v in score.robust.items()},
            weight_norms=[record["weight_norm"] for record in run.history],
            measures=measure(run.model, data, num_samples, seed=0),
            run=folder.name,
        )

    points = []
    with locked(out / ".lock", wait=False):
        for trained in _launched(point, [(value, seed) for value in eps for seed in seeds], launcher, out, progress):
            points.append(trained)
            config = RunFolder(out / trained.run).config()
            content = {"points": [p.to_dict() for p in points], "environment": environment(), "config": config}
            write_atomic(out / "sweep.json", to_json(content).encode())
        save_figure(sweep_figure(points), out / "sweep.png")
    return points


def _launched(
    job: Callable[[float, int], Point], jobs: list[tuple[float, int]], launcher: str, out: Path, progress: bool
) -> Iterator[Point]:
    """The points in their order: one after the other here, or all at once by submitit."""
    if launcher == "here":
        for i, (value, seed) in enumerate(jobs):
            announce(f"eps {value:g}, seed {seed} ({i + 1} of {len(jobs)})", progress)
            yield job(value, seed)
        return
    executor = submitit_executor(launcher, out / "jobs", "waterbed-sweep")
    submitted = executor.map_array(job, *zip(*jobs, strict=True))
    for work in submitted:
        yield work.result()


def sweep_figure(points: Sequence[Point]) -> Figure:
    """Accuracies against eps, Figs 4 and 5, and what the paper leaves out: the invariant trace beside the log-variance,
    and the Fisher information about the input."""
    figure, ((accuracy, variance, norm), (fisher, invariant, epochs)) = panels(2, 3, (13, 7))
    accuracies = {"clean": [p.clean for p in points]}
    accuracies |= {name: [p.robust[name] for p in points] for name in points[0].robust}
    for i, (name, values) in enumerate(accuracies.items()):
        by_eps: dict[float, list[float]] = {}
        for p, value in zip(points, values, strict=True):
            by_eps.setdefault(p.eps, []).append(value)
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        accuracy.plot(
            list(by_eps), [sum(v) / len(v) for v in by_eps.values()], label=plain(name), markersize=4, **style
        )
        if max(map(len, by_eps.values())) > 1:
            accuracy.plot([p.eps for p in points], values, ".", color=style["color"], alpha=0.5, markersize=4)
    accuracy.set(xlabel="eps of training", ylabel="accuracy [%]", title="Accuracy (line: mean over seeds)")
    accuracy.legend(frameon=False, fontsize=8)
    for ax, key, label, title in (
        (variance, "weight_log_variance", "mean -log(F_ii + damping) [nats]", "Log-variance of the weights (Fig. 4)"),
        (
            invariant,
            "weight_rescaling_invariant_trace",
            "tr(D F D) [nats]",
            "The same, unchanged by rescaling",
        ),
        (fisher, "input_fisher_trace", "tr F [nats/pixel²]", "Fisher information about the input"),
    ):
        for p in points:
            e = p.measures[key]
            half = e.interval(over="examples")[1] - e.value
            ax.errorbar(p.eps, e.value, yerr=half, fmt="o", color=COLOURS[p.seed % len(COLOURS)], capsize=3)
        ax.set(xlabel="eps of training", ylabel=label, title=title)
    for ax in (invariant, fisher):
        ax.set_yscale("log")
    for p in points:
        norm.plot(p.eps, p.weight_norms[-1], "o", color=COLOURS[p.seed % len(COLOURS)])
    norm.set(xlabel="eps of training", ylabel="|w| after training", title="Weight norm (Fig. 5)")
    first = min(p.seed for p in points)
    for p in points:
        if p.seed == first:
            epochs.plot(range(1, len(p.weight_norms) + 1), p.weight_norms, marker=".", label=f"eps {p.eps:g}")
    epochs.set(xlabel="epoch", ylabel="|w|", title=f"Weight norm during training (seed {first})")
    epochs.legend(frameon=False, fontsize=8)
    whole_numbers(epochs)
    return figure
