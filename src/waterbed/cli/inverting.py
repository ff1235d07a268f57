"""What ``waterbed invert`` does with one run: pictures and numbers of its inversions, or a study of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from waterbed.cli.common import open_runs, unique_runs, write_json
from waterbed.data.images import IMAGE_SUFFIXES, ImageData, adapt, read_image, stack
from waterbed.devices import device_of
from waterbed.errors import UsageError, check_choice, check_count
from waterbed.files import make_folder
from waterbed.information.weight_fisher import WeightFisher
from waterbed.information.weight_noise import WeightNoise
from waterbed.inversion.invert import effective_images, invert, invert_label
from waterbed.inversion.objective import MODES, check_layer
from waterbed.inversion.result import Inversion
from waterbed.inversion.study import convergence_table, study_convergence
from waterbed.plots import image_grid, save_figure
from waterbed.training.run_folder import Run

if TYPE_CHECKING:
    from waterbed.cli.inspection import Invert

STUDIES = ("none", "convergence", "beta")
COLUMNS = [
    "run",
    "mode",
    "loss [% of |z|²]",
    "SSIM",
    "RMSE",
    "|n| / |w|",
    "accuracy with the noise",
    "diverged",
]


def invert_runs(options: Invert) -> tuple[list[str], list[list[Any]]]:
    """All runs, and one picture that compares them; columns and rows of the table."""
    check_choice("mode", options.mode, (*MODES, "all", "class"))
    check_choice("study", options.study, STUDIES)
    check_count("num_images", options.num_images)
    _check_used(options)
    out = make_folder(options.out)
    columns: list[str] = []
    rows: list[list[Any]] = []
    compared: dict[str, Tensor] = {}
    opened = unique_runs(options.runs)
    pictures = {name: _pictures_for(run, options) for name, run in opened}  # what is wrong with them costs no data
    for _, run in opened:
        check_layer(run.model, options.layer)
    for (name, run), data in zip(opened, _data_for(opened, options), strict=True):
        columns, more = _invert_run(name, run, data, options, pictures[name], compared)
        rows += more
    names = {row[0] for row in rows}
    if len(names) > 1 and compared and len({t.shape for t in compared.values()}) == 1:
        save_figure(image_grid(compared), out / "compared.png")
    return columns, rows


def _data_for(opened: list[tuple[str, Run]], options: Invert) -> Iterator[ImageData | None]:
    """The data of each run; None where one's own pictures are inverted plainly, which takes none."""
    if options.images is not None and options.mode == "plain" and options.study == "none":
        yield from (None for _ in opened)
        return
    for _, _, data in open_runs(opened, options.data, options.root):
        yield data


def _pictures_for(run: Run, options: Invert) -> tuple[list[Path], Tensor] | None:
    """The user's pictures in the shape of the run's images, and their files."""
    if options.images is None:
        return None
    if run.model.input_shape is None:
        raise UsageError(f"{str(run.path)!r} does not say the size of its images; waterbed convert --size writes it")
    return _pictures(options.images, run.model.input_shape, options.num_images)


def _check_used(options: Invert) -> None:
    """Raise where an option is given that this kind of inversion has no use for."""
    if options.study == "convergence":
        kind, unused = "--study convergence", ("mode", "images", "animate", "beta")
    elif options.mode == "class":
        kind, unused = "--mode class", ("study", "images", "layer", "fake_relu", "beta")
    elif options.study == "beta":
        kind, unused = "--study beta", ("beta", *(("mode",) if options.mode != "effective" else ()))
    else:
        return
    defaults = {field.name: field.default for field in fields(options)}
    for name in unused:
        if (given := getattr(options, name)) != defaults[name]:
            raise UsageError(f"--{name.replace('_', '-')} {given} means nothing with {kind}; leave one of them out")


def _invert_run(
    name: str,
    run: Run,
    data: ImageData | None,
    options: Invert,
    pictures: tuple[list[Path], Tensor] | None,
    compared: dict[str, Tensor],
) -> tuple[list[str], list[list[Any]]]:
    """Write the pictures and numbers of one run; returns columns and rows of its table, adds to what is compared."""
    out = Path(options.out).expanduser()
    if options.study == "convergence":
        return _study(name, run, data, options)
    settings = {
        "steps": options.steps,
        "lr": options.lr,
        "optimizer": options.optimizer,
        "seed": options.seed,
        "init": options.init,
        "precision": options.precision,
        "keep_every": max(1, options.steps // 50) if options.animate else None,
        "progress": True,
    }
    if options.mode == "class":
        return _classes(name, run, data, options, settings)
    if pictures is not None:
        files, images = pictures
    else:
        files, (images, _) = [], stack(data.test, min(options.num_images, len(data.test)), options.seed)
    settings |= {"layer": options.layer, "fake_relu": options.fake_relu}
    found, noises = _inversions(run, data, images, options, settings)
    save_figure(image_grid({"original": images, **{k: r.images for k, r in found.items()}}), out / f"{name}.png")
    compared.setdefault("original", images)
    compared |= {f"{name}, {kind}" if len(found) > 1 else name: r.images for kind, r in found.items()}
    if options.animate:
        for kind, result in found.items():
            result.animate(out / f"{name}-{kind.replace(' ', '-')}.gif")
    rows, numbers = [], {}
    for kind, result in found.items():
        noise = noises[kind]
        accuracy = None if noise is None else noise.accuracy(*_tested(run, data, options))
        rows.append(_row(name, kind, result, "" if accuracy is None else f"{accuracy.short()} %"))
        numbers[kind] = _numbers(result) | {"accuracy": None if accuracy is None else accuracy.to_dict()}
    said = _said(name, data, options) | {"files": [file.name for file in files]}
    write_json(out / f"{name}.json", numbers | {"settings": said})
    return COLUMNS, rows


def _tested(run: Run, data: ImageData, options: Invert) -> list[Tensor]:
    """Test images and labels behind the accuracy under noise."""
    device = device_of(run.model)
    return [t.to(device) for t in stack(data.test, min(options.num_samples, len(data.test)), options.seed)]


def _said(name: str, data: ImageData | None, options: Invert) -> dict[str, Any]:
    """What the numbers of a file come from."""
    used = ("steps", "lr", "optimizer", "precision", "layer", "init", "fake_relu", "beta", "prior_variance", "betas")
    settings = {key: getattr(options, key) for key in (*used, "num_samples", "seed", "mode", "study")}
    return {"network": name, "data": None if data is None else data.name, **settings}


def _inversions(
    run: Run, data: ImageData, images: Tensor, options: Invert, settings: dict[str, Any]
) -> tuple[dict[str, Inversion], dict[str, WeightNoise | None]]:
    """The inversions asked for and the noise of each, by name."""
    modes = MODES if options.mode == "all" else (options.mode,)
    if modes == ("plain",) and options.study == "none":
        return {"plain": invert(run.model, images, **settings)}, {"plain": None}
    train, _ = stack(data.train, min(options.num_samples, len(data.train)), options.seed)
    fisher = WeightFisher(run.model, train, progress=True)
    if options.study == "beta":
        found = effective_images(run.model, images, fisher, options.betas, options.prior_variance, **settings)
        names = {beta: f"beta {beta:g}" for beta in found}
        noises = {names[beta]: WeightNoise(fisher, beta, options.prior_variance) for beta in found}
        return {names[beta]: result for beta, result in found.items()}, noises
    noise = WeightNoise(fisher, options.beta, options.prior_variance)
    noises = {mode: None if mode == "plain" else noise for mode in modes}
    return {mode: invert(run.model, images, mode, noises[mode], **settings) for mode in modes}, noises


def _classes(
    name: str, run: Run, data: ImageData, options: Invert, settings: dict[str, Any]
) -> tuple[list[str], list[list[Any]]]:
    """An image of each of the first classes."""
    count = min(options.num_images, data.num_classes)
    found = invert_label(run.model, torch.arange(count), image_shape=data.shape, **settings)
    titles = [str(c) for c in data.classes[:count]]
    save_figure(image_grid({"class": found.images}, titles), Path(options.out) / f"{name}-classes.png")
    if options.animate:
        found.animate(Path(options.out) / f"{name}-classes.gif")
    said = _said(name, data, options)
    write_json(Path(options.out) / f"{name}-classes.json", {"classes": titles, **_numbers(found), "settings": said})
    if count < data.num_classes:
        print(f"{count} of {data.num_classes} classes; --num-images {data.num_classes} draws all")
    losses = zip(titles, found.final_losses.tolist(), strict=True)
    return ["run", "class", "cross-entropy [nats]"], [[name, title, f"{loss:.3g}"] for title, loss in losses]


def _study(name: str, run: Run, data: ImageData, options: Invert) -> tuple[list[str], list[list[Any]]]:
    """Fig. 2 for one run."""
    curves = study_convergence(
        run.model,
        data,
        options.out,
        name,
        num_images=options.num_images,
        num_samples=options.num_samples,
        seed=options.seed,
        betas=options.betas,
        prior_variance=options.prior_variance,
        seeds=tuple(range(options.seeds)),
        steps=options.steps,
        lr=options.lr,
        optimizer=options.optimizer,
        precision=options.precision,
        fake_relu=options.fake_relu,
        layer=options.layer,
        init=options.init,
        progress=True,
    )
    columns, rows = convergence_table(curves)
    return ["run", *columns], [[name, *row] for row in rows]


def _row(name: str, kind: str, result: Inversion, accuracy: str) -> list[Any]:
    relative = 100 * result.final_clean_losses / result.scale
    similar = {key: f"{float(value.mean()):.3f}" for key, value in result.similarity().items()}
    size = f"{result.noise_size:.3g}"
    return [
        name,
        kind,
        f"{float(relative.mean()):.3g}",
        similar["ssim"],
        similar["rmse"],
        size,
        accuracy,
        int(result.diverged.sum()),
    ]


def _numbers(result: Inversion) -> dict[str, Any]:
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


def _pictures(folder: str, shape: tuple[int, int, int], count: int) -> tuple[list[Path], Tensor]:
    """The first pictures of a folder in the shape (C, H, W) of the model, as one batch in [0, 1], and their files."""
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise UsageError(f"images={folder!r} is not a folder; name one with pictures")
    every = sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    files = every[:count]
    if not files:
        raise UsageError(f"images={folder!r} has no pictures ({', '.join(IMAGE_SUFFIXES[:3])}, ...); add some")
    if shape[1] != shape[2]:
        raise UsageError(f"the run was trained on {shape[1]} x {shape[2]} images; pictures are only cropped to squares")
    if len(files) < len(every):
        print(f"the first {len(files)} of {len(every)} pictures; --num-images {len(every)} takes all")
    return files, torch.stack([adapt(read_image(f, shape[0]), shape[1], shape[0]) for f in files]).float() / 255
