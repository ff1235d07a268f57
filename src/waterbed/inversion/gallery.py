"""draw_gallery: inversions of several networks, as pictures, numbers and one table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.data.decoding import IMAGE_SUFFIXES, image_files, read_image
from waterbed.data.images import ImageData, adapt
from waterbed.data.loading import stack
from waterbed.devices import device_of
from waterbed.errors import UsageError, check_choice, check_count, check_number, check_seed
from waterbed.files import expanded, make_folder, to_json, write_atomic
from waterbed.information.defaults import BETA, PRIOR_VARIANCE
from waterbed.information.weight_fisher import WeightFisher
from waterbed.information.weight_noise import WeightNoise
from waterbed.inversion.defaults import (
    BETAS,
    INIT,
    NUM_IMAGES,
    NUM_SAMPLES,
    NUM_SEEDS,
    OPTIMIZER,
    PRECISION,
    STEPS,
)
from waterbed.inversion.invert import invert, invert_label
from waterbed.inversion.objective import MODES, check_layer
from waterbed.inversion.outputs import animated, check_outputs, kinds_of
from waterbed.inversion.result import Inversion
from waterbed.inversion.study import convergence_table, study_convergence
from waterbed.plots import image_grid, save_figure

STUDIES = ("none", "convergence", "beta")
COLUMNS = ("run", "mode", "loss [% of |z|²]", "SSIM", "RMSE", "|n| / |w|", "accuracy with the noise", "diverged")
RECORDED = (
    *("steps", "lr", "optimizer", "precision", "layer", "init", "fake_relu", "beta", "prior_variance", "betas"),
    *("num_samples", "seed", "mode", "study"),
)
FRAMES = 50  # of an animation, approximately


@dataclass(frozen=True)
class Gallery:
    """The table of a gallery.

    Attributes:
        columns: names of the columns.
        rows: one row per model and inversion, class or arm of the study.
        notes: one sentence on each thing left out.
    """

    columns: Sequence[str]
    rows: list[list[Any]]
    notes: list[str]


def draw_gallery(
    models: Mapping[str, nn.Module],
    load_data: Callable[[str], ImageData],
    out: str | Path = "inversions",
    *,
    mode: str = "all",
    study: str = "none",
    images: str | Path | None = None,
    num_images: int = NUM_IMAGES,
    num_samples: int = NUM_SAMPLES,
    beta: float = BETA,
    betas: Sequence[float] = BETAS,
    prior_variance: float = PRIOR_VARIANCE,
    seeds: int = NUM_SEEDS,
    seed: int = 0,
    steps: int = STEPS,
    lr: float | None = None,
    optimizer: str = OPTIMIZER,
    precision: str = PRECISION,
    init: str = INIT,
    layer: str | None = None,
    fake_relu: bool = False,
    animate: bool = False,
    force: bool = False,
    progress: bool = False,
) -> Gallery:
    """Invert the same images with every model.

    Writes ``out``/NAME.png and ``out``/NAME.json for each model and, for several models whose images have the same
    shape, ``out``/compared.png.

    Args:
        models: name -> network with ``features`` and ``input_shape``.
        load_data: name of a model -> its data. Called after all other checks, and not at all for plain inversions of
            ``images``.
        mode: "plain", "variational", "effective", "all" of them, or "class": one image per class
            (NAME-classes.png and .json), by :func:`waterbed.inversion.invert.invert_label`.
        study: "none"; "beta" inverts in mode "effective" at all ``betas``; "convergence" is
            :func:`waterbed.inversion.study.study_convergence` (convergence-NAME.png and .json).
        images: a folder of pictures of any size; None takes test images.
        num_images: number of images, or the first so many classes.
        num_samples: number of training images for the weight Fisher, and of test images for the accuracy with the
            noise.
        beta, betas, prior_variance: of the :class:`waterbed.WeightNoise`.
        seeds: number of seeds of the convergence study.
        seed: of the start, the noise and the choice of images.
        steps, lr, optimizer, precision, init, layer, fake_relu: as for :func:`waterbed.invert`.
        animate: also write the descent as a GIF.
        force: replace files of these names that are not ours.

    Raises:
        UsageError: a wrong argument, one that this kind of inversion does not use, or a folder without pictures.

    >>> import tempfile
    >>> import waterbed as wb
    >>> data = wb.load_dataset("digits").take(20, 10)
    >>> model = wb.create_model("resnet10", 10, width=2, in_channels=1)
    >>> with tempfile.TemporaryDirectory() as out:
    ...     table = draw_gallery({"mine": model}, lambda name: data, out, mode="plain", steps=1, num_images=2)
    >>> [row[:2] for row in table.rows]
    [['mine', 'plain']]
    """
    arguments = dict(locals())
    check_choice("mode", mode, (*MODES, "all", "class"))
    check_choice("study", study, STUDIES)
    check_count("num_images", num_images)
    check_count("num_samples", num_samples)
    check_count("seeds", seeds)
    check_seed("seed", seed)
    for argument, values in {"beta": [beta], "betas": betas, "prior_variance": [prior_variance]}.items():
        for value in values:
            check_number(argument, value, above=0)
    check_used(arguments)
    out = make_folder(out)
    kinds = [""] if mode == "class" else kinds_of(mode, study, betas)
    check_outputs(out, list(models), mode, study, kinds if animate else [], force)
    notes: list[str] = []
    pictures = {name: _read_pictures(name, m, images, num_images, notes) for name, m in models.items() if images}
    for model in models.values():
        check_layer(model, layer)
    descent = {"steps": steps, "lr": lr, "optimizer": optimizer, "init": init, "precision": precision}
    descent |= {"progress": progress}
    representation = {"layer": layer, "fake_relu": fake_relu}
    frames = {"keep_every": max(1, steps // FRAMES) if animate else None}
    samples = {"num_samples": num_samples, "seed": seed}
    columns: Sequence[str] = COLUMNS
    rows: list[list[Any]] = []
    compared: dict[str, Tensor] = {}
    for name, model in models.items():
        data = None if images and mode == "plain" and study == "none" else load_data(name)
        record = {"network": name, "data": None if data is None else data.name}
        record |= {key: arguments[key] for key in RECORDED}
        if study == "convergence":
            noise = {"betas": betas, "prior_variance": prior_variance, "seeds": tuple(range(seeds))}
            settings = samples | noise | descent | representation
            curves = study_convergence(model, data, out, name, num_images=num_images, **settings)
            columns, arms = convergence_table(curves)
            columns, more = ["run", *columns], [[name, *row] for row in arms]
        elif mode == "class":
            columns = ["run", "class", "cross-entropy [nats]"]
            count = min(num_images, data.num_classes)
            if count < data.num_classes:
                notes.append(f"{count} of {data.num_classes} classes; num_images={data.num_classes} draws all")
            more = _draw_classes(name, model, data, count, out, record, descent | frames | {"seed": seed})
        else:
            if images:
                files, originals = pictures[name]
            else:
                files, originals = [], stack(data.test, min(num_images, len(data.test)), seed)[0]
            record |= {"files": [file.name for file in files]}
            noises = _noises(model, data, mode, study, beta, betas, prior_variance, progress=progress, **samples)
            settings = descent | representation | frames | {"seed": seed}
            results = {
                kind: invert(model, originals, "effective" if study == "beta" else kind, noise, **settings)
                for kind, noise in noises.items()
            }
            accuracies = {kind: _accuracy(noise, model, data, **samples) for kind, noise in noises.items()}
            more = _draw_inversions(name, originals, results, accuracies, out, record)
            compared.setdefault("original", originals)
            compared |= {f"{name}, {kind}" if len(results) > 1 else name: r.images for kind, r in results.items()}
        rows += more
    if len(models) > 1 and compared and len({t.shape for t in compared.values()}) == 1:
        save_figure(image_grid(compared), out / "compared.png")
    return Gallery(columns, rows, list(dict.fromkeys(notes)))


def check_used(arguments: Mapping[str, Any], spell: Callable[[str, Any], str] = "{}={!r}".format) -> None:
    """Raise if an argument of :func:`draw_gallery` is given that this kind of inversion does not use.

    Args:
        arguments: name -> value.
        spell: (name, value) -> the argument as the user writes it.

    Raises:
        UsageError: an argument that is not used differs from its default.
    """
    if arguments["study"] == "convergence":
        kind, unused = "study", ("mode", "images", "animate", "beta")
    elif arguments["mode"] == "class":
        kind, unused = "mode", ("study", "images", "layer", "fake_relu", "beta")
    elif arguments["study"] == "beta":
        kind, unused = "study", ("beta", *(("mode",) if arguments["mode"] != "effective" else ()))
    else:
        return
    parameters = inspect.signature(draw_gallery).parameters
    for name in unused:
        if arguments[name] != parameters[name].default:
            given, other = spell(name, arguments[name]), spell(kind, arguments[kind])
            raise UsageError(f"{given} has no effect with {other}; leave one of them out")


def _noises(
    model: nn.Module,
    data: ImageData | None,
    mode: str,
    study: str,
    beta: float,
    betas: Sequence[float],
    prior_variance: float,
    *,
    num_samples: int,
    seed: int,
    progress: bool,
) -> dict[str, WeightNoise | None]:
    """The noise of each inversion, by the name of the inversion."""
    kinds = kinds_of(mode, study, betas)
    if kinds == ["plain"]:
        return {"plain": None}
    train, _ = stack(data.train, min(num_samples, len(data.train)), seed)
    fisher = WeightFisher(model, train, progress=progress)
    if study == "beta":
        if not betas:
            raise UsageError("betas is empty; pass one or more")
        return {kind: WeightNoise(fisher, value, prior_variance) for kind, value in zip(kinds, betas, strict=True)}
    noise = WeightNoise(fisher, beta, prior_variance)
    return {kind: None if kind == "plain" else noise for kind in kinds}


def _accuracy(noise: WeightNoise | None, model: nn.Module, data: ImageData | None, num_samples: int, seed: int) -> Any:
    """Accuracy on test images with the noise; None without noise."""
    if noise is None:
        return None
    examples = stack(data.test, min(num_samples, len(data.test)), seed)
    return noise.accuracy(*(t.to(device_of(model)) for t in examples))


def _draw_inversions(
    name: str,
    originals: Tensor,
    results: Mapping[str, Inversion],
    accuracies: Mapping[str, Any],
    out: Path,
    record: dict[str, Any],
) -> list[list[Any]]:
    """Write one model's inversions below their originals, animations and numbers; returns rows of :data:`COLUMNS`."""
    save_figure(image_grid({"original": originals, **{k: r.images for k, r in results.items()}}), out / f"{name}.png")
    rows, numbers = [], {}
    for kind, result in results.items():
        if result.frames is not None:
            result.animate(out / animated(name, kind), force=True)  # checked before the work
        accuracy = accuracies[kind]
        numbers[kind] = _numbers(result) | {"accuracy": None if accuracy is None else accuracy.to_dict()}
        relative = float((100 * result.final_clean_losses / result.scale).mean())
        similar = [f"{float(result.similarity()[key].mean()):.3f}" for key in ("ssim", "rmse")]
        correct = "" if accuracy is None else f"{accuracy.short()} %"
        diverged = int(result.diverged.sum())
        rows.append([name, kind, f"{relative:.3g}", *similar, f"{result.noise_size:.3g}", correct, diverged])
    write_atomic(out / f"{name}.json", to_json(numbers | {"settings": record}).encode())
    return rows


def _draw_classes(
    name: str,
    model: nn.Module,
    data: ImageData,
    count: int,
    out: Path,
    record: dict[str, Any],
    settings: dict[str, Any],
) -> list[list[Any]]:
    """Write an image of each of the first ``count`` classes, and the numbers; returns rows with their cross-entropy."""
    result = invert_label(model, torch.arange(count), image_shape=data.shape, **settings)
    titles = [str(c) for c in data.classes[:count]]
    save_figure(image_grid({"class": result.images}, titles), out / f"{name}-classes.png")
    if result.frames is not None:
        result.animate(out / animated(f"{name}-classes", ""), force=True)
    content = {"classes": titles, **_numbers(result), "settings": record}
    write_atomic(out / f"{name}-classes.json", to_json(content).encode())
    return [[name, title, f"{loss:.3g}"] for title, loss in zip(titles, result.final_losses.tolist(), strict=True)]


def _numbers(result: Inversion) -> dict[str, Any]:
    """The numbers recorded of an inversion: one per image, except for ``noise_size``."""
    numbers = {
        "final_losses": result.final_losses.tolist(),
        "final_clean_losses": result.final_clean_losses.tolist(),
        "scale": result.scale.tolist(),
        "noise_size": result.noise_size,
        "lr": result.lr.tolist(),
        "diverged": result.diverged.tolist(),
    }
    if result.originals is not None:
        numbers |= {key: value.tolist() for key, value in result.similarity().items()}
    return numbers


def _read_pictures(
    name: str, model: nn.Module, folder: str | Path, count: int, notes: list[str]
) -> tuple[list[Path], Tensor]:
    """The first ``count`` picture files of a folder, and a batch of them in [0, 1] in the model's shape (C, H, W)."""
    if model.input_shape is None:
        raise UsageError(f"{name!r} does not record the size of its images; waterbed convert --size records it")
    channels, height, width = model.input_shape
    place = expanded(folder, "images")
    if not place.is_dir():
        raise UsageError(f"images={str(folder)!r} is not a folder; pass one with pictures")
    paths = image_files(place)
    files = paths[:count]
    if not files:
        raise UsageError(f"images={str(folder)!r} has no pictures ({', '.join(IMAGE_SUFFIXES[:3])}, ...); add some")
    if height != width:
        raise UsageError(f"{name!r} takes {height} x {width} images; pictures are only cropped to squares")
    if len(files) < len(paths):
        notes.append(f"the first {len(files)} of {len(paths)} pictures; num_images={len(paths)} takes all")
    pictures = [adapt(read_image(f, channels), height, channels, str(f)) for f in files]
    return files, torch.stack(pictures).float() / 255
