"""TrainConfig: every setting of a training, declared once with its default, its range and one line of help."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from waterbed.errors import SEEDS, UsageError, UsageTypeError, check_choice, check_count, check_number
from waterbed.own_code import OWN_CODE, check_name, names_own_code

# Here, not where they are implemented, so that the command line reads them without importing torch.
SCHEDULES = ("one-cycle", "cosine", "step", "constant")
AUGMENTATIONS = ("auto", "crop-flip", "crop", "flip", "resized-crop-flip", "none")
OF_IMAGES = ("augment", "randaugment", "color_jitter", "rotation", "lighting")  # what changes each image
OF_LABELS = ("mixup", "cutmix", "label_smoothing")  # what makes labels probabilities
PRECISIONS = ("auto", "fp32", "bf16")
RESUMES = ("auto", "never")
# Optimisers by name, each with the learning rate that it takes by default.
OPTIMIZERS = {"sgd": 0.1, "adamw": 1e-3}
OF_NAMED_OPTIMIZERS = ("lr", "momentum", "nesterov", "weight_decay")  # a factory sets its own


def _setting(default: Any, help: str, *, recorded: bool = True, **valid: Any) -> Any:
    """A field with one line of help and what is valid: ``choices``, ``at_least``, ``above``, ``below``.

    ``recorded``: whether a resumed run must agree with it.
    """
    return field(default=default, metadata={"help": help, "recorded": recorded, **valid})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings of one training. :func:`waterbed.fit` takes one, or its fields as keywords.

    Raises:
        UsageError: a value out of its range, or milestones without ``schedule="step"``.
        UsageTypeError: a value of the wrong type.

    >>> TrainConfig(optimizer="adamw").learning_rate
    0.001
    >>> TrainConfig(epochs=0)
    Traceback (most recent call last):
        ...
    waterbed.errors.UsageError: epochs=0 must be a whole number >= 1
    """

    epochs: int = _setting(30, "passes over the training images", at_least=1)
    batch_size: int = _setting(128, "images in a step, of each process", at_least=2)
    lr: float | None = _setting(
        None,
        f"largest learning rate; by default {', '.join(f'{rate} with {name}' for name, rate in OPTIMIZERS.items())}",
        above=0,
    )
    momentum: float = _setting(0.9, "momentum of SGD", at_least=0, below=1)
    weight_decay: float = _setting(5e-4, "weight decay", at_least=0)
    schedule: str = _setting(
        "one-cycle",
        "one-cycle (rises over 30 % of the steps, then falls as a cosine), cosine, step or constant",
        choices=SCHEDULES,
    )
    augment: Any = _setting(  # noqa: RUF009 - a string or a function is not changed
        "auto",
        "crop-flip, crop, flip, resized-crop-flip (as for ImageNet), none, or auto: crops always, flips where a "
        "mirrored image keeps its class; package.module:function is your own transform of one image (C, H, W) in "
        "[0, 1], such as one of torchvision's v2 (in Python also the transform itself)",
        choices=(*AUGMENTATIONS, OWN_CODE),
    )
    randaugment: int = _setting(
        0, "magnitude, up to 30, of the two operations of RandAugment on each image; 0 for none", at_least=0, below=31
    )
    color_jitter: float = _setting(
        0.0, "brightness, contrast and saturation of each image are multiplied by up to 1 ± this", at_least=0
    )
    rotation: float = _setting(0.0, "each image is turned by up to so many degrees either way", at_least=0)
    lighting: float = _setting(
        0.0, "deviation of the colour shift along ImageNet's principal components (AlexNet's is 0.1)", at_least=0
    )
    mixup: float = _setting(
        0.0, "alpha of mixup, whose share is Beta(alpha, alpha); with cutmix, each batch gets one of them", at_least=0
    )
    cutmix: float = _setting(0.0, "alpha of cutmix", at_least=0)
    label_smoothing: float = _setting(0.0, "share of each label that is spread over all classes", at_least=0, below=1)
    validation: float = _setting(
        0.0,
        "fraction of the training images held out to choose the epoch that is kept; 0 keeps the last",
        at_least=0,
        below=1,
    )
    watch: int = _setting(
        1000, "after each epoch, accuracies on that many held-out (else test) images; 0 for none", at_least=0
    )
    seed: int = _setting(0, "seed of data order, augmentation and attacks", at_least=0, below=SEEDS)
    milestones: tuple[int, ...] = _setting(
        (), "epochs after which schedule=step falls to a tenth; by default 1/3 and 2/3 of all", at_least=1
    )
    nesterov: bool = _setting(True, "Nesterov's form of momentum")
    ema: float = _setting(
        0.0,
        "decay per step of averaged weights, such as 0.995, to watch and keep in place of the last; 0 for none",
        at_least=0,
        below=1,
    )
    optimizer: Any = _setting(  # noqa: RUF009 - a string or a function is not changed
        "sgd",
        "sgd, adamw, or package.module:function, your own of a list of parameters, which returns a "
        "torch.optim.Optimizer (in Python also the function itself)",
        choices=(*OPTIMIZERS, OWN_CODE),
    )
    decay_norms: bool = _setting(True, "weight decay also on normalisation layers and biases")
    clip_norm: float = _setting(
        0.0, "largest norm of the gradient, to which a longer one is scaled down; 0 for none", at_least=0
    )
    accumulate: int = _setting(1, "batches whose mean gradient makes one step of the optimizer", at_least=1)
    sync_batchnorm: bool = _setting(
        False, "with several processes, batch norms over the images of all of them, as if they were one batch"
    )
    compile: bool = _setting(
        False, "torch.compile the network and the attacked copy: minutes at the start, then faster steps on a GPU"
    )
    precision: str = _setting(
        "auto", "fp32, bf16, or auto: bf16 where the hardware multiplies it", recorded=False, choices=PRECISIONS
    )
    resume: str = _setting(
        "auto",
        "auto continues out, or returns its finished run; never refuses a folder that holds a run",
        recorded=False,
        choices=RESUMES,
    )
    workers: int = _setting(
        0, "processes that decode images, for data too large for memory", recorded=False, at_least=0
    )
    threads: int = _setting(
        0,
        "CPU threads, on which the last digits depend; 0 takes as many of torch's as other processes leave cores free "
        "when the run starts, and goes on with that number",
        recorded=False,
        at_least=0,
    )
    checkpoint_minutes: float = _setting(
        15.0, "minutes after which the state is saved within a long epoch", recorded=False, at_least=0
    )
    trackers: tuple[Any, ...] = _setting(
        (), "beside metrics.jsonl: tensorboard, wandb, mlflow (in Python also objects)", recorded=False
    )
    measures: Mapping[str, Any] | tuple[str, ...] = _setting(
        (), "quantities of waterbed measure to record (in Python also a dict of their arguments)", recorded=False
    )
    measure_every: int = _setting(1, "epochs between two records of measures", recorded=False, at_least=1)
    progress: bool = _setting(True, "show a progress bar with the time left", recorded=False)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.type.startswith("tuple"):  # a list reads as well in a call
                object.__setattr__(self, setting.name, _as_tuple(setting.name, value))
                values = getattr(self, setting.name)
            else:
                values = (value,)
            check = _CHECKS.get(setting.type)
            for value in values if check is not None else ():
                check(setting.name, value, setting.metadata)
        if self.milestones and self.schedule != "step":
            raise UsageError(f"milestones={self.milestones!r} belong to schedule='step', not {self.schedule!r}")
        self._check_factory()

    def _check_factory(self) -> None:
        """A factory takes no rate, momentum or decay from here."""
        if not self.own_optimizer:
            return
        defaults = {setting.name: setting.default for setting in fields(self)}
        for name in (*OF_NAMED_OPTIMIZERS, "decay_norms"):
            if getattr(self, name) != defaults[name]:
                raise UsageError(
                    f"{name}={getattr(self, name)!r} does not reach optimizer={shown(self.optimizer)}, which "
                    "sets its own; leave it out, or pass optimizer='sgd'"
                )

    @property
    def own_optimizer(self) -> bool:
        """Whether the optimiser is the user's, with settings of its own."""
        return not (isinstance(self.optimizer, str) and self.optimizer in OPTIMIZERS)

    @property
    def learning_rate(self) -> float | None:
        """``lr``, or the default of the optimiser; None with a factory, which has its own.

        ``lr`` itself stays None, so that ``replace(config, optimizer="adamw")`` also changes the default.
        """
        return OPTIMIZERS[self.optimizer] if self.lr is None and not self.own_optimizer else self.lr

    def of_images(self) -> dict[str, Any]:
        """The settings that change each image, which a cache of augmented images is made with."""
        return {name: getattr(self, name) for name in OF_IMAGES}

    @classmethod
    def of(
        cls, config: TrainConfig | None, settings: Mapping[str, Any], base: TrainConfig | None = None
    ) -> TrainConfig:
        """``config`` (else ``base``, else the defaults) with ``settings`` in place of its own.

        Raises:
            UsageError: a name that is no setting; the nearest one is named.

        >>> TrainConfig.of(None, {"epoch": 3})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        waterbed.errors.UsageError: the setting='epoch' is unknown; choose one of ... (did you mean 'epochs'?)
        """
        if config is not None and not isinstance(config, TrainConfig):
            raise UsageTypeError(f"config={config!r} must be a TrainConfig; write TrainConfig(epochs=30)")
        names = [setting.name for setting in fields(cls)]
        for name in settings:
            check_choice("the setting", name, names)
        return replace(config or base or cls(), **settings)

    def record(self) -> dict[str, Any]:
        """What a run folder records of the recipe, as TOML has it; a resumed run must agree with it."""
        plain: dict[str, Callable[[Any], Any]] = {
            "float": float,
            "float | None": float,
            "tuple[int, ...]": list,
            "Any": lambda value: value if isinstance(value, str) else _description(value),
        }
        unused = () if not self.own_optimizer else (*OF_NAMED_OPTIMIZERS, "decay_norms")
        in_force = {setting.name: getattr(self, setting.name) for setting in fields(self)} | {"lr": self.learning_rate}
        return {
            setting.name: plain.get(setting.type, lambda value: value)(in_force[setting.name])
            for setting in fields(self)
            if setting.metadata["recorded"] and setting.name not in unused
        }

    def rate(self, done: float) -> float:
        """Factor on ``lr`` after a fraction ``done`` of all steps."""
        if self.schedule == "one-cycle":
            return 0.04 + 0.96 * done / 0.3 if done < 0.3 else 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7))
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "step":
            drops = self.milestones or (self.epochs / 3, 2 * self.epochs / 3)
            return 0.1 ** sum(done * self.epochs >= epoch - 1e-6 for epoch in drops)
        return 1.0


# How a training is run and shown, not what is trained: a run that is resumed need not agree with it.
UNRECORDED = tuple(setting.name for setting in fields(TrainConfig) if not setting.metadata["recorded"])


def documented(function: Callable) -> Callable:
    """Puts a line a setting in place of ``{settings}`` in the function's docstring, so that help() explains them."""
    lines = [f"{setting.name} ({setting.default!r}): {setting.metadata['help']}." for setting in fields(TrainConfig)]
    function.__doc__ = (function.__doc__ or "").replace("{settings}", "\n        ".join(lines))
    return function


def qualified_name(function: Callable[..., Any]) -> str:
    """Where a function or the class of a callable object is defined: what a record says of it.

    >>> qualified_name(math.sqrt)
    'math.sqrt'
    """
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def shown(function: Callable[..., Any] | str) -> str:
    """How a message calls a user's function: as it was named, else where it is defined."""
    return repr(function) if isinstance(function, str) else qualified_name(function)


def _description(function: Callable[..., Any]) -> str:
    """What a record says of a user's function or object: its own words where they give its settings, else its name."""
    words = " ".join(repr(function).split())
    return qualified_name(function) if hasattr(function, "__qualname__") or " at 0x" in words else words


def _as_tuple(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise UsageError(f"{name}={value!r} must be a list; write {name}=[{value!r}]")
    return tuple(value)


def _check_number(name: str, value: Any, valid: Mapping[str, Any]) -> None:
    check_number(name, value, above=valid.get("above"), at_least=valid.get("at_least"))
    if value >= valid.get("below", math.inf):
        raise UsageError(f"{name}={value!r} must be below {valid['below']}")


def _check_whole(name: str, value: Any, valid: Mapping[str, Any]) -> None:
    check_count(name, value, valid["at_least"])
    _check_number(name, value, valid)


def _check_flag(name: str, value: Any, valid: Mapping[str, Any]) -> None:
    if not isinstance(value, bool):
        raise UsageTypeError(f"{name}={value!r} must be True or False")


def _check_named_or_own(name: str, value: Any, valid: Mapping[str, Any]) -> None:
    """One of the choices, or the user's own: a function, or its name where that is one of them."""
    if OWN_CODE in valid["choices"] and names_own_code(value):
        check_name(name, value)
    elif not isinstance(value, str) and not callable(value):
        raise UsageTypeError(f"{name} is of type {type(value).__name__}; pass a function, or one of {valid['choices']}")
    elif not callable(value):
        check_choice(name, value, valid["choices"])


# By the annotation of the field.
_CHECKS: dict[str, Callable[[str, Any, Mapping[str, Any]], None]] = {
    "int": _check_whole,
    "tuple[int, ...]": lambda name, value, valid: check_count(name, value, valid["at_least"]),
    "float": _check_number,
    "float | None": lambda name, value, valid: None if value is None else _check_number(name, value, valid),
    "str": lambda name, value, valid: check_choice(name, value, valid["choices"]),
    "Any": _check_named_or_own,
    "bool": _check_flag,
}
