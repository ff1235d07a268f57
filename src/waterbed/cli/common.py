"""What several commands share: opening runs with their data, building objectives, writing files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waterbed.attacks.pgd import PGD
from waterbed.cli.options import from_config
from waterbed.cli.training import Train
from waterbed.data.catalog import CATALOG
from waterbed.data.images import ImageData
from waterbed.data.load import load_dataset
from waterbed.distributed import Engine
from waterbed.errors import UsageError, check_choice, check_count
from waterbed.files import make_folder, to_json, write_atomic
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.create import create_model
from waterbed.reporting.runs import run_names
from waterbed.training.objectives import TRADES, AdversarialTraining, GaussianNoise, Objective, Standard
from waterbed.training.run_folder import Run
from waterbed.training.sweep import Point, sweep
from waterbed.transfer_learning.modes import MODES as TRANSFER_MODES
from waterbed.transfer_learning.transfer import load_for

if TYPE_CHECKING:
    from waterbed.cli.training import Sweep

# Options of ``waterbed train`` that fit takes under the same name.
FIT_OPTIONS = (
    "epochs",
    "batch_size",
    "lr",
    "weight_decay",
    "schedule",
    "milestones",
    "nesterov",
    "momentum",
    "augment",
    "validation",
    "ema",
    "precision",
    "resume",
    "workers",
    "checkpoint_minutes",
    "trackers",
)
OBJECTIVES = ("standard", "adversarial", "trades", "gaussian-noise")


def objective(name: str, eps: float, norm: str, steps: int, beta: float) -> Objective:
    """The objective of ``waterbed train``."""
    check_choice("objective", name, OBJECTIVES)
    if name == "standard":
        return Standard()
    if name == "gaussian-noise":
        return GaussianNoise(eps)
    attack = PGD(eps, norm, steps)
    return AdversarialTraining(attack) if name == "adversarial" else TRADES(attack, beta)


def sweep_recipe(options: Sweep) -> list[Point]:
    """``waterbed sweep``: the recipe's training at every eps and seed."""
    recipe = from_config(Train, Path(options.recipe))
    if not isinstance(recipe.data, str):
        raise UsageError(f'the recipe {options.recipe!r} names no data; add a line such as data = "fashion-mini"')
    check_count("seeds", options.seeds)
    check_choice("objective", recipe.objective, OBJECTIVES)
    data, source = load_with_source(recipe.data, recipe.root, recipe.download, recipe.size, recipe.channels)

    def make_objective(eps: float) -> Objective:
        return objective(
            recipe.objective if eps > 0 else "standard", eps, recipe.norm, recipe.attack_steps, recipe.beta
        )

    def make_model(seed: int) -> FeatureClassifier:
        return create_model(recipe.model, data.num_classes, recipe.stem, recipe.width, data.shape[0], seed)

    return sweep(
        data,
        make_model,
        make_objective,
        options.eps,
        range(options.seeds),
        options.out,
        evaluated_eps=options.evaluated_eps,
        num_samples=options.num_samples,
        num_evaluated=options.num_evaluated,
        launcher=options.launcher,
        notes={"source": source},
        **{name: getattr(recipe, name) for name in FIT_OPTIONS},
    )


def load_with_source(
    name_or_folder: str, root: str | None, download: bool, size: int | None, channels: int | None
) -> tuple[ImageData, dict[str, Any]]:
    """The data, and what the run folder records so that later commands find them again."""
    data = load_dataset(name_or_folder, root, download, size, channels)
    folder = Path(name_or_folder).expanduser()
    named = name_or_folder in CATALOG
    source: dict[str, Any] = {"name_or_folder": name_or_folder if named else str(folder.resolve())}
    if root is not None:
        source["root"] = str(Path(root).resolve())
    return data, source


def unique_runs(paths: Sequence[str]) -> list[tuple[str, Run]]:
    """The runs with a name each."""
    if not paths:
        raise UsageError("runs is empty; name one run folder or more")
    runs = [Run.load(path) for path in paths]
    return list(zip(run_names(runs), runs, strict=True))


def open_runs(
    runs: Sequence[str] | Sequence[tuple[str, Run]], data: str | None, root: str | None
) -> Iterator[tuple[str, Run, ImageData]]:
    """Each run (a path, or opened with its name) with its data, in the shape it was trained with: ``data`` if named,
    else what it was trained on."""
    opened = runs if runs and not isinstance(runs[0], str) else unique_runs(runs)
    for name, run in opened:
        if "data" not in run.config:
            yield name, run, _load_for_foreign(name, run, data, root)
            continue
        source = run.config.get("source", {"name_or_folder": run.config["data"]["name"]})
        channels, height, width = run.config["data"]["shape"]
        size = height if height == width else None
        try:
            loaded = load_dataset(
                data or source["name_or_folder"], root or source.get("root"), size=size, channels=channels
            )
        except UsageError as error:
            hint = "" if data else f"; or name the data of run {name!r} with --data"
            raise UsageError(f"{error}{hint}") from error
        wanted, got = tuple(run.config["data"]["classes"]), tuple(map(str, loaded.classes))
        if loaded.shape != tuple(run.config["data"]["shape"]) or got != wanted:
            raise UsageError(
                f"data={loaded.name!r} has classes {_listed(got)} of shape {loaded.shape}; the run {name!r} was "
                f"trained on {_listed(wanted)} of {tuple(run.config['data']['shape'])}: use such data, or transfer"
            )
        run.model.to(Engine().device)
        yield name, run, loaded


def _load_for_foreign(name: str, run: Run, data: str | None, root: str | None) -> ImageData:
    """The data named, for a network that came without a record of its training; class names cannot be compared."""
    if data is None:
        raise UsageError(f"{name!r} does not record what it was trained on; name its data with --data")
    loaded = load_for(run.model, data, root)
    outputs = run.model.head.out_features
    if outputs != loaded.num_classes:
        raise UsageError(
            f"data={loaded.name!r} has {loaded.num_classes} classes, {name!r} {outputs}; name its own data"
        )
    run.model.to(Engine().device)
    return loaded


def _listed(names: tuple[str, ...]) -> str:
    """The first few of them."""
    return ", ".join(names[:4]) + (f", ... ({len(names)})" if len(names) > 4 else "")


def check_writable(path: str | Path | None) -> None:
    """Raise before the work, not after it, if a result could not be written."""
    if path is not None:
        make_folder(Path(path).expanduser().parent)


def add_to_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write JSON beside what an earlier call left under other keys."""
    path = Path(path).expanduser()
    try:
        before = json.loads(path.read_text()) if path.is_file() else {}
        write_json(path, {**before, **content})
    except (ValueError, TypeError) as error:
        raise UsageError(f"out={str(path)!r} exists and holds something else; choose another") from error


def transfer_mode(mode: str) -> int | str:
    """ "0", "1", "2" as numbers."""
    check_choice("mode", mode, [str(m) for m in TRANSFER_MODES])
    return mode if mode == "linear" else int(mode)


def write_json(path: str | Path | None, content: Any) -> None:
    """Write JSON; nothing if there is no path."""
    write_text(path, to_json(content))


def write_text(path: str | Path | None, content: str) -> None:
    """Write a text file as a whole; nothing if there is no path."""
    if path is None:
        return
    path = Path(path).expanduser()
    make_folder(path.parent)
    write_atomic(path, content.encode())
    print(f"{path} written")
