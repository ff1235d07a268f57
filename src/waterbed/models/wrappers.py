"""A network's tensors without the modules that only wrap it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from waterbed.errors import UsageError
from waterbed.models.architectures import bare_name
from waterbed.models.normalisers import find_normalisers, project_of


@dataclass
class Checkpoint:
    """A foreign network's tensors without wrappers' names and second copies.

    ``source`` is the project that the names indicate ("plain" for none), ``mean`` and ``std`` are the normaliser's.
    """

    tensors: dict[str, Tensor]
    source: str
    mean: Tensor | None = None
    std: Tensor | None = None
    notes: list[str] = field(default_factory=list)


def unwrap(tensors: Mapping[str, Tensor], path: Path) -> Checkpoint:
    """Remove wrappers, the normaliser and second copies from a state dict.

    ``robustness`` saves the same network twice, the second time inside its attacker; that copy is dropped.

    Raises:
        UsageError: two normalisers, or two networks that differ.
    """
    normalisers = find_normalisers(tensors)
    places = [place for place in normalisers if not _attacked(place)] or list(normalisers)[:1]
    if len(places) > 1:
        names = " and ".join(repr(normalisers[place][0]) for place in places)
        raise UsageError(f"the file {str(path)!r} normalises twice ({names}); remove the one that is wrong")
    taken = {name for pair in normalisers.values() for name in pair}
    network: dict[str, Tensor] = {}
    copies = 0
    # The attacker's tensors come last, so that the order is that of the network itself.
    for raw in sorted(tensors, key=_attacked):
        if raw in taken:
            continue
        name = bare_name(after_normaliser(raw, places))
        if name in network and not same(network[name], tensors[raw]):
            raise UsageError(f"the file {str(path)!r} has two networks that differ (at {raw!r}); save one of them")
        copies += name in network
        network.setdefault(name, tensors[raw])
    notes = [f"a second copy of {copies} tensors was dropped"] if copies else []
    pair = normalisers[places[0]] if places else None
    if any(map(_attacked, tensors)):
        source = "robustness"
    elif pair is not None:
        source = project_of(*map(bare_name, pair))
    else:
        wide = any(name.startswith("block1.layer.") for name in network)
        source = "torchvision" if "fc.weight" in network and not wide else "plain"
    mean, std = (tensors[name] for name in pair) if pair else (None, None)
    if mean is not None and not bool(mean.any()) and bool((std == 1).all()):
        notes.append("the normaliser changes nothing (mean 0, std 1)")
    return Checkpoint(network, source, mean, std, notes)


def after_normaliser(name: str, places: Iterable[str]) -> str:
    """A tensor's name without the "1." that ``nn.Sequential(normaliser, network)`` gives the network.

    >>> after_normaliser("module.1.conv1.weight", ["module.0"])
    'module.conv1.weight'
    """
    for place in places:
        before, dot, last = place.rpartition(".")
        if last == "0" and name.startswith(f"{before}{dot}1."):
            return before + dot + name.removeprefix(f"{before}{dot}1.")
    return name


def same(a: Tensor, b: Tensor) -> bool:
    """Equal in type, shape and value."""
    return a.dtype == b.dtype and torch.equal(a, b)


def _attacked(name: str) -> bool:
    return "attacker" in name.split(".")
