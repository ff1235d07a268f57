"""Phrases that the page, its tables and its figures share."""

from __future__ import annotations

from collections.abc import Sequence

from waterbed_paper.results import Results
from waterbed_paper.scale import SCALES, Source

NOT_RUN, NOT_PRINTED = "not run", "–"


def training_phrase(source: Source) -> str:
    """How a source was trained, in one phrase."""
    images = f"{source.train:,} training images" if source.train else "all training images"
    side = f" at {source.size} x {source.size}" if source.size else ""
    network = f"{source.model} of width {source.width}"
    attack = f"PGD-{source.attack_steps} at eps {source.robust:g}"
    name = source.name if source.name == source.data else f"{source.name} (on {source.data})"
    return f"{name}: {network}, {source.training.epochs} epochs on {images}{side}, robust: {attack}"


def rerun_command(results: Results, only: Sequence[str]) -> str:
    """The command that runs experiments of these beginnings."""
    name = results.scale.name if results.scale.name in SCALES else f"{results.scale.name}.toml"
    place = results.graph.place
    root = " --root DATA" if place.root is not None else ""
    networks = " --networks NETWORKS" if place.networks is not None else ""
    return f"waterbed paper --scale {name}{root}{networks} --out DIR --only {' '.join(only)}"
