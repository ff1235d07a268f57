"""Probes of features that are already there: a linear classifier on top, by a protocol or at each of many settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.devices import seeded
from waterbed.errors import UsageError, UsageTypeError, check_choice, check_number
from waterbed.evaluation.accuracy import Accuracy, score_of
from waterbed.training.config import TrainConfig
from waterbed.transfer_learning.activation_cache import Cache
from waterbed.transfer_learning.heads import OF_HEADS, can_train_heads, head_accuracies, train_heads
from waterbed.transfer_learning.logistic import STRENGTHS, fit_logistic, held_out
from waterbed.transfer_learning.protocols import PROTOCOLS, fixed_recipe
from waterbed.transfer_learning.search import GRIDS, Chosen, Pair, Search
from waterbed.transfer_learning.settings import FINETUNING, SOLVERS

Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features, and what it reaches.

    Attributes:
        accuracy: on the test examples, with its Wilson interval.
        mean_per_class: [%], averaged over the classes that occur.
        solver: "logistic" or "sgd".
        protocol: "tuned", the paper's that it was trained by, or "given" where nothing was chosen.
        standardised: whether the features were.
        lr, weight_decay: of SGD; None for logistic regression.
        strength: the inverse strength C of logistic regression; None for SGD.
        edge: at which end of what was searched the choice lies, in words; "" for none.
    """

    accuracy: Accuracy
    mean_per_class: float
    solver: str
    protocol: str
    standardised: bool
    lr: float | None = None
    weight_decay: float | None = None
    strength: float | None = None
    edge: str = ""


def probe(
    train: Examples,
    test: Examples,
    *,
    solver: str = "logistic",
    protocol: str = "tuned",
    standardise: bool | None = None,
    strengths: Sequence[float] = STRENGTHS,
    validation: float = 0.1,
    num_classes: int | None = None,
    **settings: Any,
) -> Probe:
    """Fit a linear classifier to features and score it on others.

    Args:
        train, test: features (N, d) and labels (N,). The test examples choose nothing.
        solver: "logistic" (:func:`fit_logistic`), or "sgd", whose learning rate and weight decay are chosen by
            successive halving over a grid that is widened where its end is best.
        protocol: "tuned", or "paper" and "paper-imagenet" for the fixed settings of appendix C, which are those of SGD.
        standardise: bring features to mean 0 and standard deviation 1 by those of the training examples; by default for
            logistic regression and not for SGD.
        strengths: of logistic regression.
        validation: the fraction of the training examples that is held out to choose.
        num_classes: by default as many as the labels say.
        settings: the recipe of SGD, the fields of :class:`waterbed.TrainConfig` over :func:`waterbed.finetune`'s
            defaults; its ``seed`` also draws the held-out examples and the first weights.

    Raises:
        UsageError: settings that mean nothing to the solver or contradict the protocol; shapes that do not fit.

    >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> found = probe((x[:200], y[:200]), (x[200:], y[200:]))
    >>> found.accuracy > 90, found.accuracy.n, found.solver
    (True, 100, 'logistic')
    """
    check_choice("solver", solver, SOLVERS)
    check_choice("protocol", protocol, PROTOCOLS)
    train, test = _checked(train, "train"), _checked(test, "test")
    classes = num_classes or int(max(train[1].max(), test[1].max())) + 1
    if protocol != "tuned":
        recipe = fixed_recipe(protocol, settings)
        _check_of_heads(settings, recipe)
        standardised = bool(standardise)
        pair = (recipe.lr, recipe.weight_decay)
        predicted = _predicted(train, test, classes, [pair], recipe, standardised)[0]
        return _scored(predicted, test[1], "sgd", protocol, standardised, lr=pair[0], weight_decay=pair[1])
    if solver == "logistic":
        seed = settings.pop("seed", FINETUNING.seed)
        for name, value in settings.items():
            raise UsageError(f"{name}={value!r} means nothing to solver='logistic'; leave it out, or pass solver='sgd'")
        standardised = standardise is None or standardise
        fitted = fit_logistic(*train, classes, seed, validation, strengths, standardised)
        more = {"strength": fitted.strength, "edge": fitted.edge}
        return _scored(fitted.predict(test[0]), test[1], "logistic", protocol, standardised, **more)
    recipe = _recipe({name: value for name, value in settings.items() if name not in ("lr", "weight_decay")})
    standardised = bool(standardise)
    search = Search.of(GRIDS["sgd"], recipe, recipe.epochs, settings.get("lr"), settings.get("weight_decay"))
    chosen = _chosen_pair(search, train, classes, recipe, standardised, validation)
    pair = (chosen.lr, chosen.weight_decay)
    predicted = _predicted(train, test, classes, [pair], recipe, standardised)[0]
    more = {"lr": pair[0], "weight_decay": pair[1], "edge": chosen.edge}
    return _scored(predicted, test[1], "sgd", protocol, standardised, **more)


def probe_grid(
    train: Examples,
    test: Examples,
    pairs: Sequence[Pair],
    *,
    standardise: bool = False,
    num_classes: int | None = None,
    **settings: Any,
) -> list[Probe]:
    """One linear probe by SGD for each pair (learning rate, weight decay), all trained at once.

    What a single setting would have shown, and how much hangs on it: nothing is chosen, so nothing is held out.

    Args:
        train, test, standardise, num_classes, settings: as for :func:`probe`.
        pairs: P of them. A training that diverges counts every test example as wrong.

    Returns:
        P probes, in the order of ``pairs``.

    >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> [p.lr for p in probe_grid((x, y), (x, y), [(0.1, 0.0), (1.0, 5e-4)], epochs=2)]
    [0.1, 1.0]
    """
    train, test = _checked(train, "train"), _checked(test, "test")
    classes = num_classes or int(max(train[1].max(), test[1].max())) + 1
    for rate, decay in pairs:
        check_number("lr", rate, above=0)
        check_number("weight_decay", decay, at_least=0)
    predicted = _predicted(train, test, classes, pairs, _recipe(settings), standardise)
    return [
        _scored(classes_of, test[1], "sgd", "given", standardise, lr=rate, weight_decay=decay)
        for classes_of, (rate, decay) in zip(predicted, pairs, strict=True)
    ]


def _chosen_pair(
    search: Search, train: Examples, classes: int, recipe: TrainConfig, standardise: bool, validation: float
) -> Chosen:
    """Learning rate and weight decay, chosen on the training examples alone."""
    if not search.compares:
        return search.only
    kept, held = held_out(len(train[1]), validation, recipe.seed)
    features = _standardised(train[0], train[0][kept]) if standardise else train[0]
    cache, start = Cache((features[None],), train[1]), _first_head(train[0].shape[1], classes, recipe.seed)

    def accuracies(pairs: Sequence[Pair], epochs: int) -> list[float]:
        return head_accuracies(cache, start, pairs, replace(recipe, epochs=epochs), kept, held)

    return search.best(accuracies)


def _predicted(
    train: Examples, test: Examples, classes: int, pairs: Sequence[Pair], recipe: TrainConfig, standardise: bool
) -> Tensor:
    """Classes (P, N) of the test examples by heads trained at each pair; -1 where the training diverged."""
    x, x_test = (_standardised(part[0], train[0]) if standardise else part[0] for part in (train, test))
    start = _first_head(x.shape[1], classes, recipe.seed)
    heads = train_heads(Cache((x[None],), train[1]), start, pairs, recipe)
    return heads.predict(x_test).masked_fill(~heads.finite.cpu().unsqueeze(1), -1)


def _standardised(features: Tensor, by: Tensor) -> Tensor:
    """Features (N, d) less the mean of ``by`` (M, d), over its standard deviation."""
    return (features - by.mean(0)) / by.std(0, correction=0).clamp_min(1e-8)


def _first_head(width: int, classes: int, seed: int) -> nn.Linear:
    with seeded(seed):
        return nn.Linear(width, classes)


def _recipe(settings: dict[str, Any]) -> TrainConfig:
    recipe = TrainConfig.of(None, settings, FINETUNING)
    if not can_train_heads(recipe):
        raise UsageError(
            f"optimizer={recipe.optimizer!r}, accumulate={recipe.accumulate!r} and clip_norm={recipe.clip_norm!r} "
            "cannot be honoured: probes are trained by plain SGD; leave them out, or use finetune"
        )
    _check_of_heads(settings, recipe)
    return recipe


def _check_of_heads(settings: dict[str, Any], recipe: TrainConfig) -> None:
    """What was given must be obeyed: a probe sees features alone."""
    for name in settings:
        if name not in (*OF_HEADS, "progress") and getattr(recipe, name) != getattr(FINETUNING, name):
            raise UsageError(
                f"{name}={settings[name]!r} means nothing to a probe of features; leave it out, or use finetune"
            )


def _checked(examples: Any, name: str) -> Examples:
    """Float32 features (N, d) and labels (N,)."""
    if not (isinstance(examples, tuple | list) and len(examples) == 2 and all(map(torch.is_tensor, examples))):
        raise UsageTypeError(f"{name}= must be a pair of tensors, features (N, d) and labels (N,)")
    features, labels = examples
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise UsageError(
            f"{name}= has shapes {tuple(features.shape)} and {tuple(labels.shape)}; pass features (N, d) and "
            "labels (N,)"
        )
    return features.float(), labels.long()


def _scored(predicted: Tensor, labels: Tensor, solver: str, protocol: str, standardised: bool, **more: Any) -> Probe:
    score = score_of(predicted, labels)
    return Probe(score.clean, score.mean_per_class, solver, protocol, standardised, **more)
