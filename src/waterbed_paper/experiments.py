"""The experiments: what each node of a reproduction does. Every function returns plain values for JSON."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from waterbed.attacks.losses import cross_entropy
from waterbed.attacks.pgd import PGD
from waterbed.data.images import ImageData
from waterbed.data.load import load_dataset
from waterbed.data.loading import stack
from waterbed.devices import seeded
from waterbed.errors import UsageError
from waterbed.evaluation.accuracy import evaluate
from waterbed.files import make_folder, to_json, write_atomic
from waterbed.information.bounds import fisher_bounds
from waterbed.information.curvature import kl_curvature_ratio
from waterbed.information.entanglement import entanglement
from waterbed.information.estimate import mean_estimate
from waterbed.information.input_fisher import InputFisher
from waterbed.information.measure import measure
from waterbed.models.checkpoints import load_model
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.create import create_model
from waterbed.training.fit import fit
from waterbed.training.objective import Objective
from waterbed.training.objectives import TRADES, AdversarialTraining, GaussianNoise, Standard
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.distance import dataset_distance
from waterbed.transfer_learning.records import data_fingerprint
from waterbed.transfer_learning.transfer import transfer
from waterbed_paper.graph import Place, experiment
from waterbed_paper.scale import RATES, Source, Transfers

SMALL_EPS = 1e-4
RATIO_EPS = (SMALL_EPS, 1e-3, 1e-2, 1e-1)
MEASURES = (
    "input_fisher_trace",
    "input_fisher_lambda_max",
    "input_fisher_relative_trace",
    "weight_fisher_trace",
    "weight_rescaling_invariant_trace",
    "weight_log_variance_of_sample",
    "effective_information",
)


def load_data(place: Place, config: dict[str, Any]) -> ImageData:
    """A task by name: a folder of that name under the place's root, else a named set.

    Raises :class:`UsageError` where the results in ``place.out`` come from other images of that name.
    """
    data, images = _read(place.root, config["data"], config.get("size"), config.get("channels"))
    file = place.out / "data" / f"{config['data']}-{'x'.join(map(str, data.shape))}.json"
    if not file.is_file():
        make_folder(file.parent)
        write_atomic(file, to_json(images).encode())
    elif _record(file) != images:
        raise UsageError(
            f"out={str(place.out)!r} has results from another {config['data']!r} than root={place.root!r} has now; "
            f"name another folder, or remove {str(file)!r} if only the reading of the images has changed"
        )
    train, test = (config.get(key) or len(getattr(data, key)) for key in ("train", "test"))
    return data.take(train, test)


@lru_cache(maxsize=3)  # one process runs many experiments on few data sets
def _read(root: str | None, name: str, size: int | None, channels: int | None) -> tuple[ImageData, dict[str, Any]]:
    """The data, and what tells them from others of their name."""
    folder = None if root is None else Path(root).expanduser() / name
    where = str(folder) if folder is not None and folder.is_dir() and _holds_images(folder) else name
    data = load_dataset(where, root, size=size, channels=channels)
    return data, data_fingerprint(data)


def _record(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(file)!r} is damaged; remove it if the images are the same") from error


def _holds_images(folder: Path) -> bool:
    return (folder / "train").is_dir() or any(folder.glob("train-images*"))


def objective_of(config: dict[str, Any]) -> Objective:
    """The objective of a network's config."""
    if config["objective"] == "standard":
        return Standard()
    if config["objective"] == "gaussian-noise":
        return GaussianNoise(config["eps"])
    attack = PGD(config["eps"], steps=config["attack_steps"])
    return AdversarialTraining(attack) if config["objective"] == "adversarial" else TRADES(attack)


@experiment(version=1)
def network(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Train a source network, or take it where it was trained with these settings before."""
    data = load_data(place, config)
    file = place.network(config["file"])
    if not _is_trained(file, data, config):
        model = create_model(
            config["model"], data.num_classes, config["stem"], config["width"], data.shape[0], config["seed"]
        )
        settings = {key: config[key] for key in (*Source.RECIPE, "precision", "seed")}
        folder = place.out / "runs" / config["file"].removesuffix(".safetensors")
        make_folder(file.parent)
        fit(model, data, objective_of(config), folder, **settings).export(file)
    history = Run.load(file).history
    return {
        "file": file.name,
        "weight_norms": [record["weight_norm"] for record in history],
        "train_accuracy": history[-1]["train_accuracy"],
    }


def _is_trained(file: Path, data: ImageData, config: dict[str, Any]) -> bool:
    """Whether a network of these settings is there, and whole."""
    try:
        return file.is_file() and _agrees(Run.load(file), data, config)
    except UsageError:  # stopped between the card and the weights
        return False


def _agrees(run: Run, data: ImageData, config: dict[str, Any]) -> bool:
    """Whether a network was trained with these settings on data of this name and size."""
    if "data" not in run.config:
        return False  # a file that does not record its training
    wanted: dict[str, Any] = {key: config[key] for key in (*Source.RECIPE, "seed")}
    wanted |= {"objective": objective_of(config).config(), "milestones": list(config["milestones"]), "ema": 0.0}
    if config["precision"] != "auto":
        wanted["precision"] = config["precision"]
    recorded = {"milestones": [], "ema": 0.0} | {k: v for k, v in run.config.items() if k in wanted}
    theirs, network = run.config["data"], run.config["model"]
    ours = (data.name, len(data.train), len(data.test), list(data.shape))
    same_data = tuple(theirs[key] for key in ("name", "train", "test", "shape")) == ours
    same_model = tuple(network.get(k) for k in ("name", "width", "stem")) == tuple(
        config[k] for k in ("model", "width", "stem")
    )
    return recorded == wanted and same_data and same_model


def opened(place: Place, config: dict[str, Any]) -> FeatureClassifier:
    """The trained network of an experiment; :class:`UsageError` where the place does not have it."""
    file = place.network(config["file"])
    if not file.is_file():
        raise UsageError(
            f"networks={str(file.parent)!r} has no {file.name}; name the folder where the trained networks of "
            f"out={str(place.out)!r} are kept, or remove its nodes/network to train them again"
        )
    model = load_model(file)
    assert isinstance(model, FeatureClassifier)
    return model


@experiment(version=1)
def accuracy(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Clean and PGD-20 accuracy on the source's test images."""
    attacks = [PGD(eps, steps=20) for eps in config["evaluated_eps"]]
    score = evaluate(opened(place, config), load_data(place, config).test, attacks, num_samples=config["evaluated"])
    return {
        "clean": float(score.clean),
        "robust": {f"{a.eps:g}": float(score.robust[a.name]) for a in attacks},
        "n": score.n,
    }


@experiment(version=1)
def measures(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Information about the input and in the weights (Fig. 4; sec. 3)."""
    estimates = measure(
        opened(place, config),
        load_data(place, config),
        config["measured"],
        quantities=MEASURES,
        beta=config["beta"],
        prior_variance=config["prior_variance"],
    )
    # Under the name it had before the measure of that name took its bias out: finished results stay valid.
    names = {"weight_log_variance_of_sample": "weight_log_variance"}
    return {names.get(name, name): estimate.to_dict() for name, estimate in estimates.items()}


@experiment(version=3)
def theory(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Prop. 3.2's ratio, what Gaussian noise does beside it, the length of attacks, and Lemma 5.1, on test images."""
    model, data = opened(place, config), load_data(place, config)
    x, _ = stack(data.test, min(config["images"], len(data.test)))
    double = model.double()
    wide = x.double()
    fisher = InputFisher(double, wide)
    trace, top = fisher.per_example_trace(), fisher.per_example_lambda_max()
    ratios = {f"{e:g}": kl_curvature_ratio(double, wide, e, of="means").to_dict() for e in config["ratio_eps"]}
    many, labels = stack(data.test, min(config["attacked"], len(data.test)))
    with seeded(0, many.device):  # whatever ran before in this process
        attacks = PGD(config["attack_eps"], steps=20)(double, many.double(), labels)
    whole = (attacks - many).flatten(1).norm(dim=1) >= 0.99 * config["attack_eps"]
    bounds = [fisher_bounds(double, one) for one in wide.split(1)]
    return {
        "ratios": ratios,
        "training_eps": config["ratio_eps"][-1],
        "lambda_max_less_mean": mean_of(top - trace / x[0].numel()),
        "log_anisotropy": mean_of((top * x[0].numel() / trace).log()[trace > 0]),
        "log_lambda_max": mean_of(top[top > 0].log()),
        "whole_eps": {"hits": int(whole.sum()), "n": len(whole), "eps": config["attack_eps"]},
        "lemma": mean_of(torch.tensor([b.features.value - b.noisy_logits.value for b in bounds])),
        "lemma_unit_noise": mean_of(torch.tensor([b.features.value - b.unit_noise.value for b in bounds])),
        "lemma_labels": mean_of(torch.tensor([b.labels_bound.value - b.labels.value for b in bounds])),
        "images": len(x),
    }


@experiment(version=1)
def longest(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Footnote 1: on how many images the largest loss within eps is above the largest within 0.99 eps."""
    model, data = opened(place, config).double(), load_data(place, config)
    x, y = stack(data.test, min(config["images"], len(data.test)))
    with seeded(0, x.device):
        whole = longer_is_worse(model, x.double(), y, config["attack_eps"])
    return {"hits": int(whole.sum()), "n": len(whole), "eps": config["attack_eps"]}


def longer_is_worse(model: FeatureClassifier, x: Tensor, y: Tensor, eps: float, within: float = 0.99) -> Tensor:
    """(N,) whether the largest loss that is found within eps is above the largest within a smaller ball, from where the
    search in the larger one starts, so that it misses no maximum inside."""
    short = within * eps
    inner = PGD(short, steps=20, step_size=eps / 5, restarts=2)(model, x, y)
    inner = PGD(short, steps=20, step_size=eps / 100).run_from(model, x, y, inner - x)
    outer = PGD(eps, steps=20, step_size=eps / 100).run_from(model, x, y, inner - x)
    with torch.no_grad():
        worse = cross_entropy(model(outer), y) > cross_entropy(model(inner), y)
    return worse & ((outer - x).flatten(1).norm(dim=1) > short)


def mean_of(values: Tensor) -> dict[str, Any]:
    """Mean over images of one value each, (N,), with its standard error, for JSON."""
    return mean_estimate(values, "1", "mean over images").to_dict()


@experiment(version=1)
def features(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Fig. 6: how the classes lie in the representation."""
    return entanglement(opened(place, config), load_data(place, config), config["num_samples"])


@experiment(version=1)
def fine_tuning(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """One fine-tuning of one backbone on one task (Tables 1 to 3, 6 to 12; Figs 10 to 14)."""
    model = opened(place, config)
    channels, side, _ = model.input_shape or (3, 32, 32)
    data = load_data(place, {"data": config["data"], "size": side, "channels": channels})
    mode = config["mode"] if config["mode"] == "linear" else int(config["mode"])
    table = transfer(
        {"": model},
        [data],
        mode,
        [config["seed"]],
        num_train=config["train"],
        attacks=[PGD(eps, steps=20) for eps in config["attack_eps"]],
        num_bounded=config["bounds"] if mode in ("linear", 0) else 0,
        epochs=config["epochs"],
        lr=config["lr"] or RATES,
        augment=config["augment"],
        views=1,
        solver="sgd",
        watch=1 if mode in ("linear", 0) else 500,
        **{key: config[key] for key in Transfers.RECIPE},
    )
    return {key: value for key, value in table.rows[0].items() if key not in ("model", "target")}


@experiment(version=1)
def distance(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Earth mover's distance from the source to a target, by the features of one network of the source."""
    model = opened(place, config)
    channels, side, _ = model.input_shape or (3, 32, 32)
    tasks = [load_data(place, {"data": d, "size": side, "channels": channels}) for d in config["pair"]]
    emd = dataset_distance(*tasks, model, config["num_samples"])
    numbers = {key: getattr(emd, key) for key in ("value", "corrected", "low", "high", "floor")}
    return {**numbers, "by": config["file"]}
