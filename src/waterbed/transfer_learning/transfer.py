"""transfer: fine-tune several backbones on several target tasks, with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import nn

from waterbed.attacks.attack import Attack
from waterbed.data.load import load_dataset
from waterbed.data.loading import stack
from waterbed.data.task import as_task
from waterbed.errors import UsageError, UsageTypeError, check_choice, check_count, check_seed
from waterbed.evaluation.accuracy import evaluate
from waterbed.information.bounds import fisher_bounds
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.heads import as_classifier, with_linear_head
from waterbed.progress import Progress
from waterbed.training.run_folder import Run
from waterbed.transfer_learning.finetune import finetune, read_recipe, solver_of
from waterbed.transfer_learning.frozen_trunk import FrozenTrunk, trunk_for
from waterbed.transfer_learning.modes import MODES, fingerprint
from waterbed.transfer_learning.records import RowsFile, data_fingerprint
from waterbed.transfer_learning.settings import FINETUNING
from waterbed.transfer_learning.table import TransferTable


def transfer(
    models: Mapping[str, nn.Module],
    targets: Sequence[Any],
    mode: int | str = 0,
    seeds: Sequence[int] = (0, 1, 2),
    root: str | Path | None = None,
    progress: bool = False,
    *,
    protocol: str = "tuned",
    num_train: int | None = None,
    attacks: Sequence[Attack] = (),
    num_attacked: int = 500,
    num_bounded: int = 0,
    keep: str | Path | None = None,
    **settings: Any,
) -> TransferTable:
    """Fine-tune every model on every target and evaluate on its test set (Table 1's layout).

    The trunk of a model on a target is cached, and learning rate and weight decay are chosen, once for all seeds.

    Args:
        models: name -> source network, any that :func:`waterbed.wrap` takes.
        targets: names or folders for ``load_dataset`` (brought to each model's image size and channels), or data
            objects, used as they are.
        mode: of :func:`finetune`.
        seeds: one fine-tuning each; of logistic regression, which has no randomness, one in all.
        root: where named data sets lie.
        protocol: of :func:`finetune`: "tuned" for each model and target, or the fixed settings of the "paper". Every
            row says by which it was trained.
        num_train: at most that many training images of each target, the same for all models and seeds.
        attacks: also attack ``num_attacked`` test images of each fine-tuned model: does the robustness survive?
        num_bounded: also report both sides of Lemma 5.1 (:func:`waterbed.fisher_bounds`) on that many test images.
        keep: a file to which every row is written as it is done, and from which finished rows are read: an interrupted
            comparison resumes.
        settings: any other keyword of :func:`finetune`, for every fine-tuning: ``config=``, ``epochs=5``.

    Raises:
        UsageError: no models, targets or seeds; targets that cannot be loaded; a setting that is misspelt or that
            :func:`finetune` cannot honour.

    >>> import waterbed as wb
    >>> digits = wb.load_dataset("digits").take(100, 50)
    >>> model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    >>> table = transfer({"small": model}, [digits], "linear", seeds=[0], epochs=1, lr=0.1)
    >>> [(row["model"], row["target"], row["n"]) for row in table.rows]
    [('small', 'digits', 50)]
    """
    if not isinstance(models, Mapping) or isinstance(targets, str):
        raise UsageTypeError(
            "models must be a dict of name -> model, and targets a list; write {'robust': model}, ['digits']"
        )
    settings = {"protocol": protocol, **settings}
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise UsageTypeError(f"seeds={seeds!r} must be a list; write seeds=[{seeds!r}]")
    for seed in seeds:
        check_seed("seeds", seed)
    seeds = [int(seed) for seed in seeds]
    check_choice("mode", mode, MODES)
    if not models or not targets or not seeds:
        raise UsageError(
            f"models, targets and seeds have {len(models)}, {len(targets)} and {len(seeds)} entries; pass one or more"
        )
    check_count("num_bounded", num_bounded, at_least=0)
    check_count("num_attacked", num_attacked)
    recipe = read_recipe(settings)
    if "seed" in settings or recipe.seed != FINETUNING.seed:
        raise UsageError(f"seed={recipe.seed!r} is set for each fine-tuning by transfer; pass seeds=[{recipe.seed}]")
    if "trunk" in settings:
        raise UsageError("trunk= is made by transfer for each model and target; leave it out")
    if solver_of(mode, settings) == "logistic":
        seeds = seeds[:1]  # it has no randomness: more seeds would be the same number again
    finished = RowsFile(keep)
    targets = [target if isinstance(target, str | Path) else as_task(target) for target in targets]
    # Everything is loaded before anything is trained, so that a wrong name costs nothing.
    shape = next((target.shape for target in targets if hasattr(target, "shape")), None)
    models = {name: as_classifier(model, shape) for name, model in models.items()}
    tasks = _load_targets(models, targets, root, num_train)
    table = TransferTable()
    caching = {name: settings[name] for name in ("cache", "views", "device") if name in settings}
    workers = recipe.workers
    caching |= {**recipe.of_images(), "seed": seeds[0], "workers": workers}
    total = len(models) * len(targets) * len(seeds)
    with Progress("transfer", total, progress) as progress_bar:
        for target, task in tasks.items():
            for name, network in models.items():
                data = task[name]
                model = with_linear_head(network, data.shape)
                source = {"source": fingerprint(model), "data": data_fingerprint(data)}
                # The trunk is run when the first row asks for it, and the rate chosen once for a backbone and a task.
                trunk = cache(partial(trunk_for, model, data, mode, **caching))
                chosen, edge = dict(settings), ""
                for seed in seeds:
                    asked = {**source, "mode": str(mode), "seed": seed, "first_seed": seeds[0], "settings": settings}
                    asked |= {"attacks": attacks, "num_attacked": num_attacked if attacks else 0, "bounds": num_bounded}
                    row = finished.find(asked)
                    if row is None:
                        run = finetune(model, data, mode, seed=seed, trunk=trunk(), progress=False, **chosen)
                        row = {"model": name, "target": target, **row_of(run, mode, seed, data, trunk(), workers)}
                        row["edge"] = row["edge"] or edge
                        row |= _under_attack(run.model, data, attacks, num_attacked, workers)
                        row |= _bounds(run.model, data, num_bounded, workers) | {"history": run.history}
                        finished.add(asked, row)
                    if row["solver"] == "sgd" and protocol == "tuned":
                        chosen |= {"lr": row["lr"], "weight_decay": row["weight_decay"]}
                    edge = row["edge"]
                    table.rows.append({**row, "model": name, "target": target})
                    progress_bar.advance(message=f"{target}, {name}: {row['accuracy']:.2f} %")
    return table


def _load_targets(
    models: Mapping[str, nn.Module], targets: Sequence[Any], root: str | Path | None, num_train: int | None
) -> dict[str, dict[str, Any]]:
    """Target -> model -> data in the model's image shape."""
    names = [str(t) if isinstance(t, str | Path) else t.name for t in targets]
    if len(set(names)) < len(names):
        raise UsageError(f"targets has {max(names, key=names.count)!r} twice; name each once")
    load = target_loader(root)
    tasks = [
        {name: load(model, target) if isinstance(target, str | Path) else target for name, model in models.items()}
        for target in targets
    ]
    short = [str(next(iter(task.values())).name) for task in tasks]
    if len(set(short)) < len(short):
        short = names  # folders of one name in different places
    if num_train is not None:
        tasks = [{name: data.take(num_train, len(data.test)) for name, data in task.items()} for task in tasks]
    return dict(zip(short, tasks, strict=True))


def row_of(
    run: Run, mode: int | str, seed: int, data: Any, trunk: FrozenTrunk | None, workers: int = FINETUNING.workers
) -> dict[str, Any]:
    """A row of the table but for model and target: accuracy on the test set, and how it was trained."""
    score = evaluate(run.model, data.test, workers=workers) if trunk is None else trunk.score(run.model)
    how = run.config["finetune"]
    steps = how["solver"] == "sgd"
    return {
        "mode": mode,
        "seed": seed,
        "accuracy": float(score.clean),
        "low": score.clean.low,
        "high": score.clean.high,
        "mean_per_class": score.mean_per_class,
        "metric": getattr(data, "metric", "top-1"),
        "n": score.n,
        "protocol": how["protocol"],
        "solver": how["solver"],
        "lr": run.config.get("lr") if steps else None,
        "weight_decay": run.config.get("weight_decay") if steps else None,
        "strength": None if steps else run.history[-1]["strength"],
        "edge": how["edge"] if steps else run.history[-1]["edge"],
    }


def _under_attack(
    model: nn.Module, data: Any, attacks: Sequence[Attack], num_samples: int, workers: int
) -> dict[str, float]:
    """Robust accuracy under each attack, by its name."""
    if not attacks:
        return {}
    score = evaluate(model, data.test, attacks, num_samples=num_samples, workers=workers)
    return {"num_attacked": score.n} | {name: float(accuracy) for name, accuracy in score.robust.items()}


def _bounds(model: FeatureClassifier, data: Any, num_samples: int, workers: int) -> dict[str, float]:
    """Both sides of Lemma 5.1's two true forms, in nats/pixel^2, each with its standard error."""
    if num_samples == 0:
        return {}
    bounds = fisher_bounds(model, stack(data.test, num_samples, workers=workers)[0])
    sides = {"labels": bounds.labels, "labels_bound": bounds.labels_bound}
    sides |= {"noisy_logits": bounds.noisy_logits, "features": bounds.features}
    return {f"fisher_{k}{part}": v for k, e in sides.items() for part, v in (("", e.value), ("_stderr", e.stderr))}


def load_for(model: nn.Module, name_or_folder: str | Path, root: str | Path | None = None) -> Any:
    """``load_dataset`` in the image size and channels that ``model`` was trained with."""
    return target_loader(root)(model, name_or_folder)


def target_loader(root: str | Path | None = None) -> Callable[[nn.Module, str | Path], Any]:
    """:func:`load_for` that reads a data set once for all networks of one image shape."""

    @cache
    def load(name_or_folder: str | Path, size: int | None, channels: int | None) -> Any:
        return load_dataset(name_or_folder, root, size=size, channels=channels)

    def load_in_its_shape(model: nn.Module, name_or_folder: str | Path) -> Any:
        shape = getattr(model, "input_shape", None)
        if shape is not None and shape[1] != shape[2]:
            raise UsageError(f"model.input_shape={shape} is not square; load the target yourself and pass it as data")
        built_for = (getattr(model, "architecture", None) or {}).get("in_channels")
        return load(name_or_folder, *((None, built_for) if shape is None else (shape[1], shape[0])))

    return load_in_its_shape
