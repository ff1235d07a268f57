"""The experiments on inversion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from waterbed.data.images import ImageData
from waterbed.data.loading import stack
from waterbed.files import make_folder
from waterbed.information.weight_fisher import WeightFisher
from waterbed.information.weight_noise import WeightNoise
from waterbed.inversion.defaults import OPTIMIZER
from waterbed.inversion.invert import invert, invert_modes
from waterbed.inversion.study import (
    THRESHOLDS,
    Curves,
    arms,
    converge,
    convergence,
    convergence_record,
    tuned_rate,
    usual_rate,
)
from waterbed.models.classifier import FeatureClassifier
from waterbed.plots import image_grid, save_figure
from waterbed_paper.experiments import load_data, opened
from waterbed_paper.graph import Place, experiment

INVERTING = ("steps", "optimizer", "precision", "seed")


@experiment(version=2)
def inversions(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Invert test images in all modes (Figs 1 and 9), and images of another task; pictures beside the numbers."""
    model, data = opened(place, config), load_data(place, config)
    noise = WeightNoise(_fisher(model, data, config), config["beta"], config["prior_variance"])
    record: dict[str, Any] = {"noise_size": noise.relative_size()}
    tasks = {"own": data}
    if config["elsewhere"] is not None:
        shape = {"size": data.shape[1], "channels": data.shape[0]}
        tasks["elsewhere"] = load_data(place, {"data": config["elsewhere"], **shape})
    for label, task in tasks.items():
        images, _ = stack(task.test, min(config["images"], len(task.test)))
        results = invert_modes(model, images, noise, **{key: config[key] for key in INVERTING})
        for mode, result in results.items():
            record[f"{label}/{mode}"] = {
                "loss": (result.final_clean_losses / result.scale).tolist(),
                "identified": result.identified().tolist(),
                **{key: value.tolist() for key, value in result.similarity().items()},
            }
        grey = replace(results["plain"], images=torch.full_like(images, 0.5))
        record[f"{label}/grey_ssim"] = grey.similarity()["ssim"].tolist()
        rows = {"original": images, **{mode: r.images for mode, r in results.items()}}
        picture = place.out / "pictures" / f"{config['file'].removesuffix('.safetensors')}-{label}.png"
        make_folder(picture.parent)
        save_figure(image_grid({k: v[: config["shown"]] for k, v in rows.items()}), picture)
        record[f"{label}/picture"] = picture.name
    return record


def _fisher(model: FeatureClassifier, data: ImageData, config: dict[str, Any]) -> WeightFisher:
    train, _ = stack(data.train, min(config["num_samples"], len(data.train)))
    return WeightFisher(model, train)


@experiment(version=1)
def noise_sizes(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Fig. 1 with noise of other sizes drawn once: similarity to the original by beta."""
    model, data = opened(place, config), load_data(place, config)
    fisher = _fisher(model, data, config)
    images, _ = stack(data.test, min(config["images"], len(data.test)))
    by_beta = {}
    for beta in config["other_betas"]:
        noise = WeightNoise(fisher, beta, config["prior_variance"])
        result = invert(model, images, "variational", noise, **{key: config[key] for key in INVERTING})
        by_beta[f"{beta:g}"] = {"noise_size": noise.relative_size(), "ssim": result.similarity()["ssim"].tolist()}
    return by_beta


@experiment(version=1)
def noise_on_target(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Eq. 10 as printed, with the noise on the representation that is inverted instead of on the network."""
    model, data = opened(place, config), load_data(place, config)
    noise = WeightNoise(_fisher(model, data, config), config["beta"], config["prior_variance"])
    images, _ = stack(data.test, min(config["images"], len(data.test)))
    settings = {key: config[key] for key in INVERTING}
    results = invert_modes(model, images, noise, noise_side="target", **settings)
    similar = {mode: {"ssim": result.similarity()["ssim"].tolist()} for mode, result in results.items()}
    return {"noise_size": noise.relative_size(), **similar}


@experiment(version=1)
def inversions_by_eps(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Fig. 9 as the paper draws it: the same test images inverted by the networks of every eps, a row each."""
    data = load_data(place, config)
    images, _ = stack(data.test, min(config["shown"], len(data.test)))
    rows, similar = {"original": images}, {}
    for name, file in config["files"].items():
        result = invert(opened(place, {"file": file}), images, **{key: config[key] for key in INVERTING})
        rows[name], similar[name] = result.images, {"ssim": result.similarity()["ssim"].tolist()}
    picture = place.out / "pictures" / f"{config['name']}-by-eps.png"
    make_folder(picture.parent)
    save_figure(image_grid(rows), picture)
    return {"picture": picture.name, "rows": similar}


@experiment(version=1)
def convergence_study(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Fig. 2: every arm with the step size that suits it."""
    model, data = opened(place, config), load_data(place, config)
    held = 8
    both, _ = stack(data.test, min(config["images"] + held, len(data.test)))
    curves = convergence(
        model,
        _fisher(model, data, config),
        both[held:],
        both[:held],
        betas=config["betas"],
        prior_variance=config["prior_variance"],
        seeds=tuple(range(config["seeds"])),
        steps=config["steps"],
        precision=config["precision"],
    )
    plain = curves[0]
    record = convergence_record(curves)
    for row, curve in zip(record, curves, strict=True):
        row |= against_plain(plain, curve)
    return {"arms": record, "thresholds": list(THRESHOLDS)}


@experiment(version=1)
def long_convergence(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Fig. 2 to as many steps as the paper's, on few images: plain and with noise drawn once, each arm with the step
    size that suits it ("tuned"), or all with the one that plain inversion finds by itself ("common")."""
    model, data = opened(place, config), load_data(place, config)
    held, steps, settings = 4, config["steps"], {"precision": config["precision"]}
    both, _ = stack(data.test, config["images"] + held)
    images, held_out = both[held:], both[:held]
    chosen = arms(_fisher(model, data, config), config["betas"], config["prior_variance"])[: 1 + len(config["betas"])]
    if config["step_size"] == "tuned":
        rates = [tuned_rate(model, arm, held_out, steps // 10, OPTIMIZER, settings) for arm in chosen]
    else:
        rates = [usual_rate(model, held_out, OPTIMIZER, settings)] * len(chosen)
    curves = [
        converge(model, arm, images, range(config["seeds"]), steps, rate, **settings)
        for arm, rate in zip(chosen, rates, strict=True)
    ]
    record = convergence_record(curves)
    for row, curve in zip(record, curves, strict=True):
        row |= against_plain(curves[0], curve) | {"last_tenth": last_tenth(curve)}
    return {"arms": record}


def last_tenth(curve: Curves) -> list[float]:
    """By seed: log of the clean loss a tenth of the steps before the end, over the last; geometric mean over images."""
    total = curve.clean_losses.shape[1] - 1
    return (curve.clean_losses[:, total - total // 10] / curve.clean_losses[:, -1]).log().mean(1).tolist()


def against_plain(plain: Curves, curve: Curves) -> dict[str, list[float]]:
    """By seed, in geometric means over images: how much lower an arm ends than the plain one (log ratio of the last
    losses), and how much earlier it is at 1.05 times the loss at which the plain one ends (ratio of the steps); on
    the clean network, and on the one being inverted ("objective").
    """
    total = curve.clean_losses.shape[1] - 1
    compared: dict[str, list[float]] = {}
    for kind, ending in (("clean_losses", "clean"), ("losses", "objective")):
        of_plain, of_arm = getattr(plain, kind), getattr(curve, kind)
        compared[f"gain_{ending}"] = (of_plain[:, -1] / of_arm[:, -1]).log().mean(1).tolist()
        target = of_plain[:, -1:] * 1.05
        ratio = _first(of_plain, target, total).log() - _first(of_arm, target, total).log()
        compared["speed_up" if ending == "clean" else f"speed_up_{ending}"] = ratio.mean(1).exp().tolist()
    return compared


def _first(losses: Tensor, target: Tensor, total: int) -> Tensor:
    """Steps (seeds, B), at least 1, to a loss of at most the target; the number of all steps where it is never there,
    which favours the slower arm."""
    reached = losses <= target
    return torch.where(reached.any(1), reached.to(torch.uint8).argmax(1), total).clamp_min(1).double()
