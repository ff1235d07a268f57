"""The probe study: what accuracy linear probes of frozen features reach, setting by setting."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from waterbed.devices import seeded
from waterbed.errors import UsageError
from waterbed.files import digest, make_folder, write_atomic
from waterbed.models.features import extract_features
from waterbed.models.tensors import read_safetensors
from waterbed.transfer_learning.activation_cache import Cache
from waterbed.transfer_learning.heads import train_heads
from waterbed_paper.experiments import load_data, opened
from waterbed_paper.graph import Place, experiment
from waterbed_paper.linear_probes import accuracies, logistic_path
from waterbed_paper.scale import Probes

PAPERS_IMAGES = 50_000  # of CIFAR, the smallest of the paper's targets of this protocol


@experiment(version=1)
def probe_study(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Accuracy [%] on held-out and on test images of every probe of one network on one target.

    A "length" is learning rate times steps, as a multiple of the paper's on 50,000 images: for small rates SGD follows
    the gradient flow, and goes as far on fewer images at a rate that is larger in proportion. On the most training
    images SGD runs the whole grid, on fewer the paper's settings (as printed, and at length 1). Logistic regression
    runs its path at every size.
    """
    features = features_of(place, config)
    recipe = {key: config[key] for key in Probes.RECIPE}
    training = replace(Probes.training, **recipe, seed=config["seed"])
    classes, records = int(features["classes"]), []
    for size in config["sizes"]:
        raw = {part: features[part] for part in ("train", "held", "test")}
        raw["train"] = raw["train"][:size]
        labels = {part: features[f"{part}_labels"][: len(x)] for part, x in raw.items()}
        mean, std = raw["train"].mean(0), raw["train"].std(0, correction=0).clamp_min(1e-8)
        standardised = {part: (x - mean) / std for part, x in raw.items()}
        whole = size == max(config["sizes"])
        longer = training.lr * PAPERS_IMAGES / size
        lengths, decays = (config["lengths"], config["weight_decays"]) if whole else ((1.0,), (training.weight_decay,))
        grid = [(training.lr, training.weight_decay)]
        grid += [(longer * length, decay) for length in lengths for decay in decays]
        probes = [(raw, "sgd", grid)]
        if whole and config["standardised_rates"]:
            probes.append((standardised, "sgd", [(lr, training.weight_decay) for lr in config["standardised_rates"]]))
        probes.append((standardised, "logistic", [(None, decay) for decay in config["strengths"]]))
        for x, solver, settings in probes:
            if solver == "sgd":
                with seeded(training.seed, x["train"].device):
                    start = nn.Linear(x["train"].shape[1], classes)
                heads = train_heads(Cache((x["train"][None],), labels["train"]), start, settings, training)
            else:
                heads = logistic_path(x["train"], labels["train"], classes, [decay for _, decay in settings])
            scores = [accuracies(heads, x[part], labels[part]) for part in ("held", "test")]
            for (lr, decay), held, test in zip(settings, *scores, strict=True):
                record = {"solver": solver, "standardised": x is standardised, "size": size, "weight_decay": decay}
                if lr is not None:
                    record |= {"lr": lr, "length": round(lr / longer, 6)}
                records.append(record | {"held": held, "test": test})
    return {"held": len(features["held"]), "test": len(features["test"]), "classes": classes, "probes": records}


def features_of(place: Place, config: dict[str, Any]) -> dict[str, Tensor]:
    """The network's features of the target's training, held-out and test images, with their labels.

    The images are drawn once, the same for every network; training images are in the order of the draw, so that a
    smaller size is a part of a larger one. Features are kept in ``place.out``/features, which may be removed.
    """
    weights = place.network(config["file"])
    asked = [config["file"], config["data"], max(config["sizes"]), config["held"], config["test"]]
    model = opened(place, config)
    key = digest([json.dumps(asked), weights.read_bytes()])[:16]
    file = place.out / "features" / f"{weights.stem}-{config['data']}-{key}.safetensors"
    if file.is_file():
        return read_safetensors(file)
    channels, side, _ = model.input_shape or (3, 32, 32)
    data = load_data(place, {"data": config["data"], "size": side, "channels": channels})
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    count = max(config["sizes"])
    if len(order) < count + config["held"]:
        raise UsageError(
            f"{config['data']!r} has {len(order)} training images, and sizes and held ask for "
            f"{count + config['held']}; lower them in [probes] of the scale"
        )
    images = {"train": order[:count], "held": order[count : count + config["held"]]}
    tested = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[: config["test"]]
    model = model.to(memory_format=torch.channels_last)
    features: dict[str, Tensor] = {"classes": torch.tensor(data.num_classes)}
    for part, indices in (*images.items(), ("test", tested)):
        split = "test" if part == "test" else "train"
        x, y = extract_features(model, data, split, batch_size=64, indices=indices)
        features[part], features[f"{part}_labels"] = x.contiguous(), y
    make_folder(file.parent)
    write_atomic(file, save(features))
    return features
