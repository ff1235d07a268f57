"""Results that are made up: of single experiments by hand, and of a whole scale."""

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from waterbed.files import write_atomic
from waterbed.inversion.study import THRESHOLDS
from waterbed.plots import curves, save_figure
from waterbed_paper.graph import Graph, Place
from waterbed_paper.page import write_paper_page
from waterbed_paper.plan import plan_nodes
from waterbed_paper.register import CLAIMS
from waterbed_paper.results import Results
from waterbed_paper.scale import Inversions, Scale, Source, Transfers, read_scale
from waterbed_paper.verdicts import judge_claims

TWO_SOURCES = Scale(
    name="made-up",
    about="",
    sources=(
        Source("cifar10", "cifar10", {"0": 3, "0.5": 3, "1": 3, "2": 3}),
        Source("cifar100", "cifar100", {"0": 2, "1": 2}),
    ),
    transfers=Transfers(
        targets=("cifar10", "cifar100", "mnist", "fashion-mnist", "gtsrb"),
        eps=(0.0, 0.5, 1.0, 2.0),
        modes={"linear": 3, "0": 3, "1": 1},
        epochs={"linear": 1, "0": 1, "1": 1},
    ),
    inversions=Inversions(long_eps=(1.0,)),
)


class Reader(HTMLParser):
    """Headings, pictures, anchors, tables and what is fetched."""

    def __init__(self, text):
        super().__init__()
        self.levels, self.pictures, self.ids, self.links, self.scopes = [], [], [], [], []
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "img":
            self.pictures.append(attrs)
        if tag == "th":
            self.scopes.append(attrs.get("scope"))
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [value for key, value in attrs.items() if key in ("href", "src", "srcset", "poster", "data")]


class MadeUp:
    """Results put there by hand, and the evidence that comes of them."""

    def __init__(self, scale, folder):
        self.results = Results(scale, Graph(plan_nodes(scale), Place(folder)))

    def put(self, id, result):
        """A result as if the experiment had run."""
        graph = self.results.graph
        graph.file(id).parent.mkdir(parents=True, exist_ok=True)
        graph.file(id).write_text(json.dumps({"id": id, "key": graph.key(id), "result": result}))

    def evidence(self, claim):
        return list(CLAIMS[claim].evidence(self.results))


@pytest.fixture
def made_up(tmp_path):
    """Nothing run yet, of CIFAR-10 at four eps and CIFAR-100 at two."""
    return MadeUp(TWO_SOURCES, tmp_path)


@pytest.fixture
def made_up_of(tmp_path):
    """The same of a scale of one's own."""
    return lambda scale: MadeUp(scale, tmp_path)


WHOLE_SCALE = """
about = "Made up."
measured = 10
[[sources]]
name = "cifar10"
data = "cifar10"
model = "resnet10"
width = 4
epochs = 2
seeds = { 0 = 3, "0.5" = 1, 1 = 3 }
trades = { 1 = 1 }
gaussian_noise = { 1 = 1 }
evaluated_eps = [0.5]
[[sources]]
name = "small"
data = "cifar100"
model = "resnet18"
seeds = { 0 = 1, 1 = 1 }
inverted = false
[[sources]]
name = "large"
data = "cifar100"
model = "resnet34"
seeds = { 0 = 1, 1 = 1 }
inverted = false
larger_than = "small"
[transfers]
targets = ["cifar10", "svhn", "mnist", "digits"]
modes = { linear = 1, 0 = 3 }
epochs = { linear = 2, 0 = 2 }
train = 1000
[inversions]
images = 4
elsewhere = "digits"
[dimension]
data = "cifar10"
sizes = [16, 32]
"""


def result_of(id, config, place, rng):
    """A result of the form that the experiment of this kind gives."""
    kind, eps = id.split("/")[0], config.get("eps", 1.0 if "eps-1" in id else 0.0)

    def estimate(value, n=20):
        return {"value": value + 0.05 * rng.standard_normal(), "stderr": 0.02, "n": n}

    if kind == "network":
        return {"file": config["file"], "weight_norms": list(30 - 3 * rng.random(12).cumsum()), "train_accuracy": 80.0}
    if kind == "accuracy":
        return {"clean": 90 - 8 * eps, "robust": {f"{e:g}": 20 + 30 * eps for e in config["evaluated_eps"]}, "n": 100}
    if kind == "measures":
        names = ("input_fisher_trace", "input_fisher_lambda_max", "input_fisher_relative_trace")
        names += ("weight_rescaling_invariant_trace", "weight_log_variance", "effective_information")
        return {name: estimate(3.0 - eps) for name in names}
    if kind == "theory":
        keys = ("lambda_max_less_mean", "log_lambda_max", "lemma", "lemma_labels", "lemma_unit_noise")
        ratios = {f"{e:g}": estimate(1.0) for e in config["ratio_eps"]}
        whole = {"hits": 99, "n": 100, "eps": 0.05}
        return {
            "ratios": ratios,
            "training_eps": config["ratio_eps"][-1],
            "whole_eps": whole,
            **{key: estimate(1.0) for key in keys},
        }
    if kind == "dataset-fisher":
        return {"standard": [1.0, 2.0, 1.5], "robust": [0.5, 0.9, 0.8]}
    if kind == "anisotropy":
        return {"log_anisotropy": estimate(math.log(config["size"])), "pixels": 3 * config["size"] ** 2}
    if kind == "features":
        labels = rng.integers(0, 10, 200)
        points = (rng.standard_normal((200, 2)) + 5 * np.stack([np.cos(labels), np.sin(labels)], 1)).tolist()
        loss = {"value": 1.0, "stderr": 0.1}
        numbers = {"silhouette": 0.2, "neighbours": 70.0, "n": 200}
        return {"soft_nearest_neighbour_loss": loss, **numbers, "t_sne": points, "labels": labels.tolist()}
    if kind == "inversions":
        result = {"noise_size": 0.1}
        for task in ("own", "elsewhere"):
            for mode in ("plain", "variational", "effective"):
                result[f"{task}/{mode}"] = {"ssim": rng.random(4).tolist(), "identified": [True, False, True, True]}
            result[f"{task}/grey_ssim"] = [0.2] * 4
            result[f"{task}/picture"] = f"{config['file']}-{task}.png"
            (place.out / "pictures").mkdir(exist_ok=True)
            save_figure(curves({"y": [1, 2]}, "x", "y"), place.out / "pictures" / result[f"{task}/picture"])
        return result
    if kind == "noise-sizes":
        return {f"{beta:g}": {"noise_size": 0.05, "ssim": rng.random(4).tolist()} for beta in config["other_betas"]}
    if kind == "inversions-by-eps":
        (place.out / "pictures").mkdir(exist_ok=True)
        save_figure(curves({"y": [1, 2]}, "x", "y"), place.out / "pictures" / f"{config['name']}-by-eps.png")
        rows = {name: {"ssim": rng.random(4).tolist()} for name in config["files"]}
        return {"picture": f"{config['name']}-by-eps.png", "rows": rows}
    if kind == "noise-target":
        similar = {mode: {"ssim": rng.random(4).tolist()} for mode in ("plain", "variational", "effective")}
        return {"noise_size": 0.05, **similar}
    if kind == "longest":
        return {"hits": 99, "n": 100, "eps": 0.05}
    if kind == "shift":
        grades = {name: [70 - 5 * eps - grade for grade in range(3)] for name in ("blur", "jpeg")}
        return {"clean": 90 - 8 * eps, "corrupted": grades, "n": 100}
    if kind.startswith("convergence"):
        steps = [0, 1, 3, 10, 30, 100]
        falling = [[0.8 / (1 + s), 1 / (1 + s), 1.2 / (1 + s)] for s in steps]
        gains = {key: [1.0, 1.1, 0.9] for key in ("gain_clean", "gain_objective", "speed_up", "last_tenth")}
        arm = {"steps": steps, "quartiles": {"losses": falling, "clean_losses": falling}, **gains}
        names = ("plain", "variational, beta 1e-08", "effective, beta 1e-08")
        return {"arms": [{"arm": name, "lr": 1.0, **arm} for name in names], "thresholds": list(THRESHOLDS)}
    if kind == "transfer":
        final = 60 + 10 * eps + rng.standard_normal()
        history = [{"epoch": e, "test_clean": final * e / config["epochs"]} for e in range(1, config["epochs"] + 1)]
        attacked = {f"pgd-20 l2 eps={e:g}": 30.0 for e in config["attack_eps"]}
        return {"accuracy": final, "n": 26032, "history": history, **attacked}
    if kind == "protocols":
        names = {name.partition("-")[0]: shift for name, shift in zip(config["protocols"], (5.0, -5.0), strict=True)}
        return {name: {"accuracy": 60 + shift + rng.standard_normal(), "n": 26032} for name, shift in names.items()}
    if kind == "distance":
        value = float(rng.random())
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "floor": 0.1}
    return {"relative_difference": 1e-12}


def fill(graph, skip=()):
    """Write a result of every experiment but those whose id starts so."""
    rng = np.random.default_rng(0)
    for id, node in graph.nodes.items():
        if not id.startswith(tuple(skip) or ("-",)):
            record = {"key": graph.key(id), "result": result_of(id, node.config, graph.place, rng)}
            record |= {"seconds": 36.0, "environment": {"torch": "2", "device": "a" if "eps" in id else "b"}}
            graph.file(id).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(graph.file(id), json.dumps(record).encode())


def filled(folder, scale=WHOLE_SCALE, skip=()):
    folder.mkdir(exist_ok=True)
    file = folder / "made-up.toml"
    file.write_text(scale)
    read = read_scale(file)
    graph = Graph(plan_nodes(read), Place(folder))
    fill(graph, skip)
    return Results(read, graph)


@pytest.fixture(scope="session")
def results_in():
    """Makes up all results of a scale in a folder."""
    return filled


@pytest.fixture(scope="session")
def whole_scale():
    """The text of a scale of three sources."""
    return WHOLE_SCALE


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A page of which the fine-tunings from the larger network and example 3.3 were not run."""
    out = tmp_path_factory.mktemp("paper") / "out"
    results = filled(out, skip=("transfer/large", "example-3.3"))
    judged = judge_claims(results)
    page = write_paper_page(results, judged, out)
    text = page.read_text()
    return out, results, judged, text, Reader(text)
