"""The standard evaluation of robustness: PGD-20, PGD-100 with restarts, AutoAttack, and a check of gradient masking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from waterbed.attacks.balls import BALLS
from waterbed.attacks.pgd import PGD
from waterbed.attacks.radius import parse_eps
from waterbed.data.loading import batches
from waterbed.devices import device_of, seeded, seeded_generator
from waterbed.distributed import gathered, is_main, share
from waterbed.errors import UsageError, check_choice, check_count, check_seed
from waterbed.evaluation import autoattack as autoattack_adapter
from waterbed.evaluation.accuracy import (
    Accuracy,
    accuracies_figure,
    check_dataset,
    check_names,
    check_range,
    correct,
)
from waterbed.evaluation.gradient_masking import CHECKED, QUERIES, Verdict, gather_evidence, judge, random_search
from waterbed.evaluation.radii import CLEAN
from waterbed.evaluation.records import BatchRecord, EvaluationFile, fingerprint
from waterbed.evaluation.search import Attacked, attacked, broken_by
from waterbed.models.states import probe, unchanged
from waterbed.progress import Progress
from waterbed.tables import html_table

AUTOATTACK = ("auto", "always", "never")
INSTALL = "pip install 'waterbed[autoattack]'"

# Runs on the network, x (B, C, H, W), y (B,) and writes its results into the record of the batch.
Stage = Callable[[Attacked, Tensor, Tensor, BatchRecord], None]
# Which images (N,) of x (N, C, H, W), y (N,) an attack breaks, and its warnings.
Breaks = Callable[[Attacked, Tensor, Tensor], tuple[Tensor, list[str]]]


@dataclass(frozen=True)
class RobustnessReport:
    """What :func:`evaluate_standard` returns; accuracies in percent with 95 % Wilson intervals.

    Attributes:
        clean: accuracy on the images as they are.
        robust: accuracy after each attack, by its name, from the weakest to the strongest: an image counts if
            neither this attack nor one before it broke it. None for an attack that was not run.
        notes: remarks on an attack, by its name: why it was not run, or its parts and their warnings.
        masking: whether the gradient can be trusted, with the evidence.
        fell_to: for each image, in the order of ``indices``, the first attack that broke it ("clean": it was
            misclassified as it is); None if none did.
        indices: positions of the images in the data set.
    """

    eps: float
    norm: str
    n: int
    clean: Accuracy
    robust: dict[str, Accuracy | None]
    notes: dict[str, str]
    masking: Verdict
    fell_to: tuple[str | None, ...]
    indices: tuple[int, ...]

    def plot(self) -> Figure:
        """One line per attack, from none to the strongest that was run, with 95 % intervals."""
        return accuracies_figure({CLEAN: self.clean, **self.robust})

    def _repr_html_(self) -> str:
        accuracies = {CLEAN: self.clean, **self.robust}
        rows = [(name, "not run" if a is None else a, self.notes.get(name, "")) for name, a in accuracies.items()]
        caption = f"Accuracy after each attack ({self.norm}, eps {self.eps:g}) on {self.n} images; {self.masking}"
        return html_table(["after", "accuracy, 95 % interval", "note"], rows, caption)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the results of single images."""
        robust = {name: None if a is None else a.to_dict() for name, a in self.robust.items()}
        return {
            "eps": self.eps,
            "norm": self.norm,
            "n": self.n,
            "clean": self.clean.to_dict(),
            "robust": robust,
            "notes": self.notes,
            "masking": self.masking.to_dict(),
        }


def evaluate_standard(
    model: nn.Module,
    dataset: Any,
    eps: float | str,
    norm: str = "l2",
    num_samples: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    autoattack: str = "auto",
    progress: bool = False,
    batch_size: int = 128,
    workers: int = 0,
) -> RobustnessReport:
    """Robust accuracy at one eps under stronger and stronger attacks, in fp32 and eval mode, and a masking check.

    Clean, PGD-20, PGD-100 with 5 restarts, AutoAttack: each attack runs on the images that none before it broke. The
    check (:mod:`waterbed.evaluation.gradient_masking`) uses the first 128 images that are classified correctly. The
    model's modes and buffers are restored bit for bit, also after an exception.

    Attacks search on a copy of the model in fp32, equal to it up to rounding
    (:func:`waterbed.evaluation.search.attacked`). The model itself decides whether an image is broken, and meets the
    attack where only the copy is fooled. PGD breaks an image if the model misclassifies it at any step.

    Several processes share the batches, with the result of one; the first writes ``out``.

    Args:
        model: images in [0, 1] (N, C, H, W) to logits (N, K), differentiable.
        dataset: map-style, ``(image, label)``.
        eps, norm: radius in pixel units, a number or text such as "8/255", of an "l2" or "linf" ball; AutoAttack's
            l1 is not run.
        num_samples: evaluate on that many examples, drawn with ``seed``; all by default.
        seed: of the choice of examples and, with the number of the batch, of the attacks.
        out: JSON file that is rewritten after every attack on a batch. Called again, the function resumes from
            it, with the same result as without the interruption (on a GPU, up to rounding).
        autoattack: "auto" runs it where its package is installed, "always" requires it, "never" leaves it out.
        batch_size: images attacked together.
        workers: number of processes that load images, for data too large for memory.

    Raises:
        UsageError: images or labels that do not fit, a model without a gradient, no package for
            ``autoattack="always"``, a file ``out`` of another model, other data or other settings.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> data = [(torch.rand(1, 2, 2), 0) for _ in range(3)]
    >>> report = evaluate_standard(model, data, eps=0.1, autoattack="never")
    >>> list(report.robust)
    ['pgd-20 l2 eps=0.1', 'pgd-100 x5 l2 eps=0.1', 'autoattack l2 eps=0.1']
    """
    dataset = check_dataset(dataset, model)
    eps = parse_eps(eps, above=0)
    if norm in BALLS and norm not in autoattack_adapter.NORMS:
        raise UsageError(
            f"norm={norm!r} has no standard AutoAttack here; choose one of {', '.join(autoattack_adapter.NORMS)}, or "
            f"run evaluate(model, dataset, attacks=[PGD(eps, {norm!r})])"
        )
    check_choice("norm", norm, autoattack_adapter.NORMS)
    check_count("batch_size", batch_size)
    check_seed("seed", seed)
    check_count("workers", workers, at_least=0)
    if num_samples is not None:
        check_count("num_samples", num_samples)
    pgds = [PGD(eps, norm, 20), PGD(eps, norm, 100, restarts=5)]
    package = _package(autoattack)
    device = device_of(model)
    order = torch.randperm(len(dataset), generator=seeded_generator(seed))[:num_samples]
    settings = {"weights": fingerprint(model), "eps": eps, "norm": norm, "seed": seed, "batch_size": batch_size}
    settings |= {"images": len(order), "of": len(dataset)}
    with EvaluationFile(out, settings, package) as file, seeded(seed), unchanged(model):
        first, _ = next(batches(dataset, 1, order=order[:1]))
        classes = _classes(model, first.to(device))
        check_names(model, dataset, classes)
        target = attacked(model, first.to(device))
        parts, missing = autoattack_adapter.parts(classes, tuple(first.shape[1:]), norm) if package else ([], "")
        stages = {"clean": _clean, **{pgd.name: _attack(pgd.name, _breaks(pgd)) for pgd in pgds}}
        stages |= _masking(pgds, file, "square" in parts)
        stages |= {_part(part): _attack(_part(part), _autoattack(part, eps, norm)) for part in parts}
        chunks = order.split(batch_size)
        mine = share(range(len(chunks)))
        own = torch.cat([order[:0], *(chunks[i] for i in mine)])
        recorded = file.batches
        known = [(len(chunks[i]), stages.keys() & set(recorded[i].done)) for i in mine if i < len(recorded)]
        with Progress(f"evaluating at eps={eps:g}", len(own) * len(stages), progress and is_main()) as progress_bar:
            progress_bar.skip(sum(images * len(done) for images, done in known))
            drawn = iter(batches(dataset, batch_size, order=own, seed=seed, workers=workers))
            for turn in range(max(gathered(len(mine)))):
                number = mine[turn] if turn < len(mine) else None
                if number is not None:
                    x, y = next(drawn)
                    check_range(y, classes)
                    record = file.batch(number, chunks[number], x, y)
                for place, (name, stage) in enumerate(stages.items()):
                    if number is None or name in record.done:
                        file.exchange(None)
                        continue
                    # One seed per batch and stage, so that a resumed evaluation draws what it would have drawn, and
                    # several processes what one does.
                    stage_seed = np.random.SeedSequence([seed, number, place]).generate_state(1)
                    with seeded(int(stage_seed[0]), device):
                        stage(target, x.to(device), y.to(device), record)
                    record.done.append(name)
                    file.exchange(number)
                    progress_bar.advance(len(y), name)
        report = _report(file, pgds, parts, missing, autoattack)
        file.save(report.to_dict())
    return report


def _package(autoattack: str) -> str | None:
    """Name and version of AutoAttack's package; None where AutoAttack does not run."""
    check_choice("autoattack", autoattack, AUTOATTACK)
    package = None if autoattack == "never" else autoattack_adapter.installed()
    if autoattack == "always" and package is None:
        raise UsageError(f"autoattack='always', but its package is not installed; {INSTALL}")
    return package


def _classes(model: nn.Module, x: Tensor) -> int:
    """The number of classes K; raise unless the logits have a gradient with respect to the images."""
    classes = probe(model, x, "dataset images").shape[1]
    with torch.enable_grad():
        if not model(x.clone().requires_grad_()).requires_grad:
            raise UsageError(
                "model gives logits without a gradient with respect to x; remove its detach() or no_grad()"
            )
    return classes


def _clean(target: Attacked, x: Tensor, y: Tensor, record: BatchRecord) -> None:
    record.fell_to = [None if right else "clean" for right in correct(target.network, x, y).tolist()]


def _attack(name: str, breaks: Breaks) -> Stage:
    """The stage that attacks the images that nothing has broken yet."""

    def stage(target: Attacked, x: Tensor, y: Tensor, record: BatchRecord) -> None:
        unbroken = [i for i, fell in enumerate(record.fell_to) if fell is None]
        if unbroken:
            broken, warnings = breaks(target, x[unbroken], y[unbroken])
            record.warnings += warnings
            for i in torch.tensor(unbroken)[broken.cpu()].tolist():
                record.fell_to[i] = name

    return stage


def _breaks(pgd: PGD) -> Breaks:
    return lambda target, x, y: (broken_by(pgd, target, x, y), [])


def _autoattack(part: str, eps: float, norm: str, queries: int = 5000) -> Breaks:
    """One part of AutoAttack, seeded by the stage."""
    return lambda target, x, y: autoattack_adapter.run_part(
        part, target, x, y, eps, norm, torch.initial_seed(), queries
    )


def _part(part: str) -> str:
    return f"autoattack {part}"


def _masking(pgds: Sequence[PGD], file: EvaluationFile, square: bool) -> dict[str, Stage]:
    """The stage that gathers evidence of gradient masking; named after its gradient-free search."""
    eps, norm = pgds[0].eps, pgds[0].norm
    by_square = _autoattack("square", eps, norm, QUERIES)

    def search(target: Attacked, x: Tensor, y: Tensor) -> Tensor:
        return by_square(target, x, y)[0] if square else random_search(target, x, y, eps, norm)

    def stage(target: Attacked, x: Tensor, y: Tensor, record: BatchRecord) -> None:
        record.evidence = {}
        # Counted on the clean images, not on the evidence, which another process may be gathering at this moment.
        checked = sum(fell != "clean" for batch in file.before(record) for fell in batch.fell_to)
        chosen = [i for i, fell in enumerate(record.fell_to) if fell != "clean"][: max(0, CHECKED - checked)]
        if chosen:
            fell = [record.fell_to[i] for i in chosen]
            known = {"pgd-20": {pgds[0].name}, "pgd": {pgd.name for pgd in pgds}}
            broken = {key: torch.tensor([f in names for f in fell], device=x.device) for key, names in known.items()}
            record.evidence = gather_evidence(target, x[chosen], y[chosen], eps, norm, search, broken)

    return {f"masking by {'square' if square else 'random search'}": stage}


def _report(
    file: EvaluationFile, pgds: Sequence[PGD], parts: Sequence[str], missing: str, autoattack: str
) -> RobustnessReport:
    eps, norm = pgds[0].eps, pgds[0].norm
    fell = [f for batch in file.batches for f in batch.fell_to]
    stages = ["clean", *(pgd.name for pgd in pgds), *map(_part, parts)]
    counts = [sum(f not in stages[: i + 1] for f in fell) for i in range(len(stages))]
    after = {name: Accuracy(count, len(fell)) for name, count in zip(stages, counts, strict=True)}
    name = f"autoattack {norm} eps={eps:g}"
    robust: dict[str, Accuracy | None] = {pgd.name: after[pgd.name] for pgd in pgds}
    robust[name] = after[stages[-1]] if parts else None
    if parts:
        broken = ", ".join(f"{part} broke {fell.count(_part(part))}" for part in parts)
        warnings = dict.fromkeys(w for batch in file.batches for w in batch.warnings)
        note = "; ".join([broken, *([missing] if missing else []), *warnings])
    else:
        note = f"not run ({INSTALL})" if autoattack != "never" else "not run (autoattack='never')"
    evidence: dict[str, list[bool]] = {}
    for batch in file.batches:
        for key, values in batch.evidence.items():
            evidence.setdefault(key, []).extend(values)
    left = counts[len(pgds)]
    return RobustnessReport(
        eps=eps,
        norm=norm,
        n=len(fell),
        clean=after["clean"],
        robust=robust,
        notes={name: note},
        masking=judge(evidence, (left - counts[-1], left) if parts else None),
        fell_to=tuple(fell),
        indices=tuple(i for batch in file.batches for i in batch.indices),
    )
