"""The demo: a standard and a robust network on real data, evaluated, measured, inverted and transferred."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import Module

from waterbed.attacks.pgd import PGD
from waterbed.data.images import ImageData
from waterbed.data.load import load_dataset
from waterbed.data.loading import stack
from waterbed.environment import environment
from waterbed.evaluation.accuracy import Score, evaluate
from waterbed.files import check_output, is_json_of, make_folder, starts_with, to_json, write_atomic
from waterbed.information.measure import DEFAULT, QUANTITIES, measure
from waterbed.information.weight_fisher import WeightFisher
from waterbed.information.weight_noise import WeightNoise
from waterbed.inversion.invert import invert_modes
from waterbed.inversion.result import Inversion
from waterbed.models.classifier import weight_norm
from waterbed.models.create import create_model
from waterbed.plots import curves, image_grid, is_our_png, save_figure
from waterbed.progress import announce
from waterbed.reporting.page import PAGE_MARK, Picture, Section, Table, write_page
from waterbed.training.fit import fit
from waterbed.training.objectives import AdversarialTraining, Standard
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.transfer import transfer


@dataclass(frozen=True)
class Config:
    """The settings of the demo; :data:`QUICK` takes seconds, to check that everything runs."""

    eps: float = 0.5
    size: int = 16
    train_images: int = 10_000
    test_images: int = 2_000
    model: str = "resnet10"
    width: int = 16
    epochs: int = 8
    lr: float = 0.2
    attack_steps: int = 3
    evaluation_steps: int = 20
    evaluated: int = 1_000
    measured: int = 500
    inverted: int = 8
    inversion_steps: int = 500
    inversion_optimizer: str = "adam"
    # Not the library's defaults: in a network this small, these show what noise does to an inversion.
    beta: float = 1e-6
    prior_variance: float = 1e-4
    transfer_epochs: int = 30
    transfer_lr: float = 1.0
    seed: int = 0


QUICK = Config(
    train_images=1_000,
    test_images=200,
    width=4,
    epochs=2,
    evaluated=200,
    measured=50,
    inverted=4,
    inversion_steps=30,
    transfer_epochs=3,
)


def demo(
    out: str | Path = "waterbed-demo", config: Config | None = None, progress: bool = True, force: bool = False
) -> dict[str, Any]:
    """Train, evaluate, measure, invert and transfer on the embedded data; write report.html and results.json.

    Args:
        out: the folder to write to.
        config: the settings; those of :class:`Config` by default.
        progress: whether to report progress on standard error.
        force: replace files of these names that are not ours.

    Returns:
        The content of results.json: results of "standard" and "robust", "environment", "config" and "seconds".

    Raises:
        UsageError: ``out`` cannot be written to.
    """
    config = config or Config()
    started = time.monotonic()
    out = make_folder(out)
    check_output(out / "results.json", is_json_of("standard", "robust"), force)
    check_output(out / "report.html", starts_with(PAGE_MARK), force)
    for name in ("standard", "robust"):
        check_output(out / f"inversion-{name}.png", is_our_png, force)
    data = load_dataset("fashion-mini", size=config.size).take(config.train_images, config.test_images, config.seed)
    attack = PGD(config.eps, steps=config.attack_steps)
    runs, results, inversions = {}, {}, {}
    for name, objective in (("standard", Standard()), ("robust", AdversarialTraining(attack))):
        announce(f"{name}: training", progress)
        model = create_model(
            config.model, data.num_classes, width=config.width, in_channels=data.shape[0], seed=config.seed
        )
        runs[name] = fit(
            model,
            data,
            objective,
            out / "runs" / name,
            epochs=config.epochs,
            lr=config.lr,
            augment="none",  # eight epochs are too few for augmentation to pay off
            seed=config.seed,
            watch=min(500, config.test_images),
            progress=progress,
        )
        announce(f"{name}: evaluating, measuring, inverting, transferring", progress)
        inversions[name] = _inversions(runs[name].model, data, config)
        results[name] = _results(runs[name].model, data, inversions[name], config)
        results[name]["precision"] = runs[name].config["precision"]
    results |= {"environment": environment(), "config": asdict(config), "seconds": time.monotonic() - started}
    write_atomic(out / "results.json", to_json(results).encode())
    grids = {name: inversion_grid(by_mode, data) for name, by_mode in inversions.items()}
    for name, grid in grids.items():
        save_figure(grid, out / f"inversion-{name}.png")
    _write_report(out / "report.html", results, runs, grids, data)
    return results


def _results(model: Module, data: ImageData, inversions: dict[str, Inversion], c: Config) -> dict[str, Any]:
    """The entry of one network in results.json."""
    attack = PGD(c.eps, steps=c.evaluation_steps)
    first = next(iter(inversions.values()))
    score: Score = evaluate(model, data.test, [attack], num_samples=c.evaluated, seed=c.seed)
    robust = score.robust[attack.name]
    measures = measure(model, data, c.measured, c.seed)
    size = float(model.features(first.originals).detach().square().sum(1).mean())
    table = transfer({"": model}, ["digits"], "linear", seeds=[c.seed], epochs=c.transfer_epochs, lr=c.transfer_lr)
    return {
        "clean_accuracy": float(score.clean),
        "clean_interval": [score.clean.low, score.clean.high],
        "robust_accuracy": float(robust),
        "robust_interval": [robust.low, robust.high],
        "attack": attack.name,
        "evaluated": score.n,
        "mean_per_class_accuracy": score.mean_per_class,
        **{name: estimate.to_dict() for name, estimate in measures.items()},
        "weight_norm": weight_norm(model),
        "transfer": {row["target"]: row["accuracy"] for row in table.rows},
        "transfer_interval": {row["target"]: [row["low"], row["high"]] for row in table.rows},
        "transfer_evaluated": {row["target"]: row["n"] for row in table.rows},
        "inversion": {mode: float(i.final_clean_losses.mean()) for mode, i in inversions.items()},
        "inversion_relative": {mode: float(i.final_clean_losses.mean()) / size for mode, i in inversions.items()},
        "inversion_noise": inversions["variational"].noise_size,
    }


def _inversions(model: Module, data: ImageData, c: Config) -> dict[str, Inversion]:
    train, _ = stack(data.train, c.measured, c.seed)
    noise = WeightNoise(WeightFisher(model, train), c.beta, c.prior_variance)
    return invert_modes(
        model,
        _one_of_each(data, c.inverted),
        noise,
        steps=c.inversion_steps,
        optimizer=c.inversion_optimizer,
        seed=c.seed,
    )


def _one_of_each(data: ImageData, count: int) -> Tensor:
    """The first test image of each of the first ``count`` classes."""
    images, labels = stack(data.test)
    first = [int((labels == c).nonzero()[0]) for c in range(count)]
    return images[first]


def summary_table(results: dict[str, Any]) -> Table:
    """The demo's results, one column per network."""
    names = ("standard", "robust")

    def row(label: str, cell_of: Any) -> list[str]:
        return [label, *(cell_of(results[name]) for name in names)]

    def percent(key: str) -> Any:
        return lambda r: f"{r[f'{key}_accuracy']:.1f} [{r[f'{key}_interval'][0]:.1f}, {r[f'{key}_interval'][1]:.1f}]"

    def digits(r: dict[str, Any]) -> str:
        low, high = r["transfer_interval"]["digits"]
        return f"{r['transfer']['digits']:.1f} [{low:.1f}, {high:.1f}]"

    first = results["standard"]
    rows = [
        row("clean accuracy [%]", percent("clean")),
        row(f"accuracy under {first['attack']} [%]", percent("robust")),
        row("clean accuracy, mean per class [%]", lambda r: f"{r['mean_per_class_accuracy']:.1f}"),
        row("accuracy on digits, linear probe [%]", digits),
    ]
    for key in DEFAULT:
        label = f"{key.replace('_', ' ')} [{first[key]['unit']}]"
        rows.append(row(label, lambda r, k=key: f"{r[k]['value']:.4g} ± {r[k]['stderr']:.2g}"))
    rows.append(row("weight norm", lambda r: f"{r['weight_norm']:.2f}"))
    for mode in first["inversion_relative"]:
        label = f"inversion loss, {mode} [% of the features' square]"
        rows.append(row(label, lambda r, m=mode: f"{100 * r['inversion_relative'][m]:.2f}"))
    config = results["config"]
    caption = (
        f"Accuracies on {first['evaluated']} test images ({first['transfer_evaluated']['digits']} of digits) with 95 % "
        f"Wilson intervals; measures on {first['weight_log_variance']['n']} images, ± one standard error over them; "
        f"inversions of {config['inverted']} images by {config['inversion_optimizer']}, {config['inversion_steps']} "
        f"steps. Trained in {first['precision']}."
    )
    return Table(caption, ["", *names], rows)


def inversion_grid(inversions: dict[str, Inversion], data: ImageData) -> Figure:
    """A grid with rows original, plain, variational and effective, and one column per image."""
    first = next(iter(inversions.values()))
    rows = {"original": first.originals, **{mode: i.images for mode, i in inversions.items()}}
    return image_grid(rows, titles=data.classes[: len(first.originals)])


def _write_report(
    path: Path, results: dict[str, Any], runs: dict[str, Run], grids: dict[str, Figure], data: ImageData
) -> None:
    config = results["config"]
    history = {name: [r["train_accuracy"] for r in run.history] for name, run in runs.items()}
    sections = [
        Section(
            "Results",
            [
                f"A {config['model']} of width {config['width']} was trained twice on {config['train_images']} images "
                f"of {data.name}: normally, and on adversarial images (l2, eps {config['eps']:g}, "
                f"{config['attack_steps']} steps).",
                "One seed: differences between the columns include the randomness of a single training.",
            ],
            [summary_table(results)],
            [
                Picture(
                    curves(history, "epoch", "training accuracy [%]"),
                    "Accuracy on the training images (adversarial ones for the robust network).",
                    "Line plot of training accuracy over epochs for both networks.",
                    drawing=True,
                )
            ],
        ),
        Section(
            "What the classifier keeps",
            [
                "Each row is found by gradient descent on the pixels (Adam), starting from noise, until the features "
                "match those of the original. Plain: no noise. Variational: noise on the weights, drawn once. "
                "Effective: drawn anew at every step. The inversion loss in the table is that on the clean network for "
                "all three.",
                *(
                    f"{name}: noise of {100 * results[name]['inversion_noise']:.1f} % of the weights' norm."
                    for name in runs
                ),
            ],
            pictures=[
                Picture(
                    grids[name],
                    f"Inversions by the {name} network.",
                    f"Grid of images: originals and three inversions of each by the {name} network.",
                )
                for name in runs
            ],
        ),
        Section(
            "What the measures mean",
            tables=[Table("Quantities", ["name", "meaning"], [[k, QUANTITIES[k][0]] for k in DEFAULT], wrap=True)],
        ),
    ]
    lead = (
        f"Standard and adversarial training side by side on {data.name}, "
        f"{results['seconds']:.0f} s on {results['environment']['device']}."
    )
    write_page(path, "Waterbed demo", lead, sections, results["environment"])
