"""The plan of a reproduction: the experiments of a scale, each with its settings, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from waterbed_paper import (
    experiments,
    experiments_inversion,
    experiments_probe,
    experiments_protocols,
    experiments_shift,
    small_models,
)
from waterbed_paper.graph import Node
from waterbed_paper.scale import Network, Scale, Source, recipe

EVALUATED = 2000
STEP_SIZES = ("tuned", "common")  # of the long study of convergence
WEIGHTS_ABOUT_DATA = {"linear": 0, "one-hidden-layer": 4}


def plan_nodes(scale: Scale) -> list[Node]:
    """Every experiment of the scale, each after what it needs."""
    nodes = [Node("example-3.3", small_models.example_3_3, {"size": 20, "images": 200, "seed": 0}, seconds=1)]
    for name, hidden in WEIGHTS_ABOUT_DATA.items():
        config = {"hidden": hidden, "eps": 0.5, "seeds": 5, "train": 150, "examples": 30, "weight_decay": 1e-3}
        nodes.append(Node(f"dataset-fisher/{name}", small_models.dataset_fisher, config, seconds=40 if hidden else 1))
    nodes += _of_dimensions(scale)
    for source in scale.sources:
        for network in source.networks():
            nodes += _of_network(scale, source, network)
        nodes += _inversions_by_eps(scale, source)
        nodes += _distances(scale, source)
    nodes += _probes(scale)
    return nodes


def _of_dimensions(scale: Scale) -> Iterator[Node]:
    if scale.dimension is not None:
        d = scale.dimension
        shared = {key: getattr(d, key) for key in ("data", "train", "test", "model", "width", "images")} | recipe(d)
        for size in d.sizes:
            for seed in range(d.seeds):
                config = {**shared, "size": size, "seed": seed}
                yield Node(anisotropy_id(scale, size, seed), small_models.anisotropy, config, seconds=60 * d.minutes)


def anisotropy_id(scale: Scale, size: int, seed: int) -> str:
    """The id of the node of a small network trained at one size of images."""
    return f"anisotropy/{scale.dimension.data}/size-{size}/seed-{seed}"  # type: ignore[union-attr]


def node_id(kind: str, network: Network, *rest: str) -> str:
    """The id of a network's node."""
    return "/".join((kind, network.name, *rest))


def _of_network(scale: Scale, source: Source, network: Network) -> Iterator[Node]:
    data = {key: getattr(source, key) for key in ("data", "size", "train", "test")}
    config: dict[str, Any] = {"file": network.file, **data}
    training = recipe(source) | {key: getattr(source, key) for key in ("model", "stem", "width", "attack_steps")}
    training |= {"objective": network.objective, "eps": network.eps, "seed": network.seed}
    training["precision"] = scale.precision
    passes = 1 if network.eps == 0 or network.objective == "gaussian-noise" else 1 + source.attack_steps
    trained = node_id("network", network)
    seconds = 60 * source.minutes * passes
    yield Node(trained, experiments.network, {**config, **training}, seconds=seconds)

    def then(kind: str, function: Any, more: dict[str, Any], minutes: float) -> Node:
        return Node(node_id(kind, network), function, {**config, **more}, (trained,), 60 * minutes)

    evaluated = {"evaluated_eps": source.evaluated_eps, "evaluated": EVALUATED}
    yield then("accuracy", experiments.accuracy, evaluated, source.minutes / 4)
    i = scale.inversions
    noise = {"beta": i.beta, "prior_variance": i.prior_variance}
    yield then("measures", experiments.measures, {"measured": scale.measured_of(source), **noise}, source.minutes)
    eps = {"ratio_eps": (*experiments.RATIO_EPS, source.robust), "attack_eps": 0.05}
    # Its claims are about images, so one seed is enough, but for the one that compares trainings with noise.
    compared = {float(eps): seeds for eps, seeds in source.gaussian_noise.items()}.get(network.eps, 0)
    if network.seed < max(1, compared):
        yield then("theory", experiments.theory, {"images": 50, "attacked": 300, **eps}, source.minutes / 2)
    if network == source.network(network.eps) and network.eps in (0.0, source.robust):
        yield then("longest", experiments.longest, {"images": 200, "attack_eps": 0.05}, source.minutes / 2)
    if network.objective in ("standard", "adversarial"):
        yield then("features", experiments.features, {"num_samples": 1000}, 0.3)
        if network.eps in (0.0, source.robust):
            yield then("shift", experiments_shift.shift, {"images": 1000}, 0.5)
        if source.inverted:
            more = {key: getattr(i, key) for key in ("images", "shown", "steps", "optimizer", "num_samples")}
            more |= {"precision": i.precision, "elsewhere": i.elsewhere, "seed": network.seed, **noise}
            yield then("inversions", experiments_inversion.inversions, more, i.minutes)
            if network.eps in (0.0, source.robust):
                more = {key: value for key, value in more.items() if key not in ("shown", "elsewhere", "beta")}
                target = {**more, "beta": i.beta, "precision": "fp32"}
                yield then("noise-target", experiments_inversion.noise_on_target, target, i.minutes)
                more["other_betas"] = i.other_betas
                yield then("noise-sizes", experiments_inversion.noise_sizes, more, i.minutes * len(i.other_betas) / 6)
            if network.seed == 0 and network.eps in i.convergence_eps:
                more = {key: getattr(i, f"convergence_{key}") for key in ("images", "steps", "seeds", "betas")}
                more |= {"num_samples": i.num_samples, "prior_variance": i.prior_variance, "precision": i.precision}
                yield then("convergence", experiments_inversion.convergence_study, more, 2 * i.minutes)
            if network.seed == 0 and network.eps in i.long_eps:
                more = {key: getattr(i, f"long_{key}") for key in ("images", "steps", "seeds", "betas")}
                # In fp32: a descent in bf16 ends at the loss that its rounding leaves.
                more |= {"num_samples": i.num_samples, "prior_variance": i.prior_variance, "precision": "fp32"}
                for step_size in STEP_SIZES:
                    kind, one = f"convergence-{step_size}", {**more, "step_size": step_size}
                    yield then(kind, experiments_inversion.long_convergence, one, 30 * i.minutes)
        yield from _fine_tunings(scale, network, trained)
        yield from _both_protocols(scale, network, trained)


def _inversions_by_eps(scale: Scale, source: Source) -> Iterator[Node]:
    """The networks of the first seed, adversarially trained or standard."""
    if source.inverted and len(source.eps) > 2:
        trained = {n.eps: n for n in source.networks() if n.objective in ("standard", "adversarial") and n.seed == 0}
        config: dict[str, Any] = {key: getattr(source, key) for key in ("name", "data", "size", "train", "test")}
        config["files"] = {f"eps {eps:g}" if eps else "standard": n.file for eps, n in sorted(trained.items())}
        config |= {key: getattr(scale.inversions, key) for key in ("shown", "steps", "optimizer", "precision")}
        needs = tuple(node_id("network", n) for n in trained.values())
        seconds = 60 * scale.inversions.minutes * len(trained) / 6
        id, config = f"inversions-by-eps/{source.name}", {**config, "seed": 0}
        yield Node(id, experiments_inversion.inversions_by_eps, config, needs, seconds)


def _both_protocols(scale: Scale, network: Network, trained: str) -> Iterator[Node]:
    """Of the backbones that the tables compare; modes that cost little on a cache."""
    t, source = scale.transfers, scale.source(network.source)
    if network.eps not in (0.0, source.robust):
        return
    papers = "paper-imagenet" if source.data == "imagenet" else "paper"
    for mode, seeds in t.both_protocols.items():
        for target in t.targets if network.seed < seeds else ():
            if target != source.data:
                config = {"file": network.file, "data": target, "mode": mode, "seed": network.seed, "train": t.train}
                id = node_id("protocols", network, target, f"mode-{mode}")
                config["protocols"] = ("tuned", papers)
                # Measured on one core at the cpu scale.
                seconds = t.minutes * (45 if mode == "linear" else 150)
                yield Node(id, experiments_protocols.protocols, config, (trained,), seconds)


def _fine_tunings(scale: Scale, network: Network, trained: str) -> Iterator[Node]:
    t = scale.transfers
    if network.eps not in t.eps:
        return
    source = scale.source(network.source)
    for mode, seeds in scale.modes_of(source).items():
        if network.seed >= seeds:
            continue
        for target in t.targets:
            if target == source.data:
                continue
            config = {"file": network.file, "data": target, "mode": mode, "seed": network.seed, "train": t.train}
            config |= {"epochs": t.epochs[mode], "augment": t.augment.get(mode, "none"), "lr": t.lr.get(mode, ())}
            config |= recipe(t) | {"attack_eps": t.attack_eps, "bounds": t.bounds}
            id = node_id("transfer", network, target, f"mode-{mode}")
            yield Node(id, experiments.fine_tuning, config, (trained,), 60 * t.minutes)


def _distances(scale: Scale, source: Source) -> Iterator[Node]:
    """By the standard network of the first seed, which the page names."""
    network = next(source.networks())
    needs = (node_id("network", network),)
    probed = (*scale.probes.targets, *scale.probes.further) if source.name in scale.probes.sources else ()
    for target in dict.fromkeys((*scale.transfers.targets, *probed)):
        if source.data not in (target, scale.probes.further.get(target)):
            config = {"file": network.file, "pair": (source.data, target), "num_samples": 5000}
            yield Node(f"distance/{source.name}/{target}", experiments.distance, config, needs, 3 * source.minutes)


def _probes(scale: Scale) -> Iterator[Node]:
    """Target by target: reading a data set takes longer than the probes of a network."""
    p = scale.probes
    own = ("sizes", "held", "test", "lengths", "weight_decays", "standardised_rates", "strengths")
    shared: dict[str, Any] = {key: getattr(p, key) for key in own} | recipe(p)
    few = {"sizes": (max(p.sizes),), "lengths": (1.0,), "weight_decays": (p.training.weight_decay,)}
    few = shared | few | {"standardised_rates": ()}
    for target in (*p.targets, *p.further):
        for source in map(scale.source, p.sources):
            networks = source.networks() if source.data not in (target, p.further.get(target)) else ()
            for network in networks:
                among = (0.0, source.robust) if target in p.further else p.eps
                if network.eps in among and network.objective in ("standard", "adversarial"):
                    settings = few if target in p.further else shared
                    config = {"file": network.file, "data": target, "seed": network.seed, **settings}
                    needs = (node_id("network", network),)
                    id = node_id("probe", network, target)
                    yield Node(id, experiments_probe.probe_study, config, needs, 60 * p.minutes)
