"""doctor: what is installed, what the machine offers, and what would slow training down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waterbed.cli.output import print_rows

OPENS = {
    "foreign": "--model timm:NAME; checkpoints of timm, and those saved with dill (robustness)",
    "hf": "hf:owner/name for a network or a data set; Run.push_to_hub",
    "tensorboard": "train --trackers tensorboard",
    "wandb": "train --trackers wandb",
    "mlflow": "train --trackers mlflow",
    "slurm": "--launcher slurm, local or debug (sweep, paper)",
    "autoattack": "AutoAttack in evaluate --attacks standard",
    "lpips": "perceptual distance of inversions",
    "explore": "waterbed explore RUN: a local page to attack and invert images on",
    "completion": "waterbed completion SHELL: commands, options and files at the tab key",
    "curvature": "EKFAC and XTrace from curvlinops",
}
"""For each optional extra that adds to the library: what can be done with it."""


@dataclass
class Doctor:
    """Say what is installed, which device and precision training takes, how many cores are free, and disk room."""

    def __call__(self) -> Any:
        found = examine()
        versions, machine = found["versions"], found["machine"]
        rows = [[name, version] for name, version in versions.items()]
        rows.append(["device", f"{machine['device']}, {machine['name']}"])
        rows.append(["precision", f"{machine['precision']} with --precision auto"])
        load = "unknown" if machine["load"] is None else f"{machine['load']:.1f}"
        rows.append(["cores", f"{machine['cores']} (load {load}), {machine['threads']} threads"])
        rows += [
            [f"disk, {d['of']}", f"{d['free_gb']:.1f} of {d['total_gb']:.1f} GB free, {d['path']}"]
            for d in found["disk"]
        ]
        print_rows(["what", "found"], rows, "Installation and machine")
        extras = [[name, _installed(extra["missing"]), extra["opens"]] for name, extra in found["extras"].items()]
        print_rows(["extra", "installed", "opens"], extras, "Optional extras: pip install 'waterbed[NAME]'")
        for line in found["advice"]:
            print(f"! {line}")
        return found


def examine() -> dict[str, Any]:
    """Everything that ``waterbed doctor`` says, as plain values."""
    import os

    from waterbed.data.named import data_root
    from waterbed.distributed import Engine
    from waterbed.environment import environment

    facts, engine = environment(), Engine("auto")
    machine = {
        "device": str(engine.device),
        "name": facts.pop("device"),
        "precision": engine.precision,
        "cores": facts.pop("cores"),
        "threads": facts.pop("threads"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # Windows has none
    }
    disk = [_room("current folder", Path.cwd()), _room("data", data_root())]
    return {
        "versions": facts,
        "machine": machine,
        "disk": disk,
        "extras": {name: {"missing": missing(name), "opens": opens} for name, opens in OPENS.items()},
        "advice": advice(machine, disk),
    }


def _room(of: str, path: Path) -> dict[str, Any]:
    """Room on the disk that holds a path, or will."""
    import shutil

    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    usage = shutil.disk_usage(there)
    return {"of": of, "path": str(path), "free_gb": usage.free / 1e9, "total_gb": usage.total / 1e9}


def _installed(lacking: list[str] | None) -> str:
    if lacking is None:
        return "unknown (install waterbed again)"
    return f"no ({', '.join(lacking)})" if lacking else "yes"


def missing(extra: str) -> list[str] | None:
    """The packages of an extra that are not installed; None if the installed waterbed, an older one, declares none.

    >>> missing("slurm") in ([], ["submitit"])
    True
    """
    import re
    from importlib.metadata import PackageNotFoundError, requires, version

    lacking, declared = [], False
    for line in requires("waterbed") or ():
        requirement, _, marker = line.partition(";")
        if not re.search(rf"""extra == ['"]{extra}['"]""", marker):
            continue
        declared = True
        name = re.match(r"[\w.-]+", requirement)[0]
        try:
            version(name)
        except PackageNotFoundError:
            lacking.append(name)
    return lacking if declared else None


def advice(machine: dict[str, Any], disk: list[dict[str, Any]]) -> list[str]:
    """What to mend: more threads than free cores on a CPU, and disks with less than 2 GB free.

    >>> advice({"device": "cpu", "cores": 8, "load": 6.2, "threads": 8}, [])
    ['8 threads for about 2 free cores; set OMP_NUM_THREADS=2']
    """
    lines = []
    if machine["device"] == "cpu" and machine["load"] is not None:
        free = max(1, round(machine["cores"] - machine["load"]))
        if machine["threads"] > free:
            cores = "core" if free == 1 else "cores"
            lines.append(f"{machine['threads']} threads for about {free} free {cores}; set OMP_NUM_THREADS={free}")
    lines += [
        f"the disk of {d['path']} has {d['free_gb']:.1f} GB free; make room" for d in disk if d["free_gb"] < LITTLE_ROOM
    ]
    return lines


LITTLE_ROOM = 2.0
"""GB below which a download or a few run folders may fill the disk."""
