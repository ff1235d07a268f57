"""AutoAttack, run from the package pyautoattack.

Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks". Why this package: it is the authors' code repackaged for PyPI, needs nothing but torch and numpy, and takes
a seed and a device; the standard version is RobustBench's, in l2 and linf. Others: torchattacks runs APGD and FAB for
10 steps instead of 100 and pins an old ``requests``; the ensemble of adversarial-robustness-toolbox differs (DeepFool
instead of FAB, no targeted APGD); the authors' repository is not on PyPI.

The package assumes ten classes. Here the targeted parts get K - 1 targets, and the parts that are not defined for a
task are left out and named. An image counts as broken only if it lies in the ball and in [0, 1] and the model, run once
more, misclassifies it.
"""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from waterbed.attacks.balls import as_images
from waterbed.evaluation.search import Attacked, broken_after

PACKAGE = "pyautoattack"
NORMS = {"l2": "L2", "linf": "Linf"}


def installed() -> str | None:
    """Name and version of the package, or None."""
    try:
        return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def parts(classes: int, shape: tuple[int, ...], norm: str) -> tuple[list[str], str]:
    """The parts of AutoAttack that are defined for a task, in order, and why others are not ("" if all are).

    Args:
        classes: K.
        shape: (C, H, W) of an image.

    >>> parts(10, (3, 32, 32), "l2")
    (['apgd-ce', 'apgd-t', 'fab-t', 'square'], '')
    >>> parts(2, (3, 32, 32), "linf")
    (['apgd-ce', 'fab-t', 'square'], 'no apgd-t: its DLR loss needs 4 classes')
    """
    chosen, missing = ["apgd-ce"], []
    if classes >= 4:
        chosen.append("apgd-t")
    elif classes == 3:  # the untargeted DLR loss takes three logits, the targeted one four
        chosen.append("apgd-dlr")
        missing.append("apgd-dlr instead of apgd-t, whose DLR loss needs 4 classes")
    else:
        missing.append("no apgd-t: its DLR loss needs 4 classes")
    chosen.append("fab-t")
    if norm == "linf" or min(shape[-2:]) >= 5:
        chosen.append("square")
    else:
        missing.append("no square: in l2 it needs images of 5 x 5 pixels or more")
    return chosen, "; ".join(missing)


def run_part(
    part: str,
    target: Attacked,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: str,
    seed: int,
    queries: int = 5000,
) -> tuple[Tensor, list[str]]:
    """Which images one part of AutoAttack breaks, (N,) bool, and the warnings that the package logged.

    Args:
        part: "apgd-ce", "apgd-dlr", "apgd-t", "fab-t" or "square", with the settings of the standard version.
        target: frozen and in eval mode (:func:`waterbed.models.states.unchanged`): FAB calls backward().
        x, y: (N, C, H, W) in [0, 1] and (N,), classified correctly.
        eps: radius in pixel units.
        queries: most queries per image that Square makes.

    Raises:
        ImportError: without the package.
    """
    from pyautoattack import AutoAttack

    classes = target.network(x[:1]).shape[1]
    logged: list[str] = []

    def search(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        attack = AutoAttack(model, norm=NORMS[norm], eps=eps, seed=seed, device=x.device, version="standard")
        attack.attacks_to_run = [part]
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
        attack.square.n_queries = queries
        with _listening() as warnings:
            x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=len(x))
        logged.extend(warnings)
        return torch.where(as_images(_inside(x_adv, x, eps, norm), x), x_adv, x)

    return broken_after(search, target, x, y), logged


def _inside(x_adv: Tensor, x: Tensor, eps: float, norm: str) -> Tensor:
    """(N,) whether an image is in the ball, up to float32 rounding, and in [0, 1]; one with NaN is not."""
    size = torch.linalg.vector_norm((x_adv - x).flatten(1), ord=2 if norm == "l2" else torch.inf, dim=1)
    return (size <= eps * (1 + 1e-4)) & ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)


@contextmanager
def _listening() -> Iterator[list[str]]:
    """The warnings that the package logs, as a list; the trace function that it replaces is restored."""
    logger, texts, trace = logging.getLogger("auto-attack"), [], sys.gettrace()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: texts.append(record.getMessage().split(" See flags_doc")[0])
    # Logged for any DLR loss with three classes, also for the untargeted one, which needs no more.
    handler.addFilter(lambda record: "targeted DLR loss" not in record.getMessage())
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield texts
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        sys.settrace(trace)
