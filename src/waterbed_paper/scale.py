"""A scale of reproduction: which networks, tasks and settings. One TOML file per scale, the same code for all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

from waterbed.errors import UsageError, UsageTypeError, check_choice
from waterbed.files import read_toml
from waterbed.information.defaults import BETA, PRIOR_VARIANCE
from waterbed.training.config import TrainConfig
from waterbed.transfer_learning.protocols import PAPER

SCALES = ("demo", "cpu", "gpu", "full")
# What a scale's file does not say of a recipe.
SOURCE_TRAINING = TrainConfig(epochs=12, lr=0.1, augment="crop-flip")
FINE_TUNING = TrainConfig()
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)  # of fine-tuning, for modes that name none
SMALL_TRAINING = TrainConfig(epochs=6, lr=0.1, augment="none")
PAPERS_PROBE = replace(PAPER, decay_norms=False)  # as in logistic regression, weight decay leaves the bias alone
OBJECTIVES = ("adversarial", "trades", "gaussian-noise")


@dataclass(frozen=True)
class Network:
    """One training of a source: objective, eps (0 is standard training) and seed."""

    source: str
    objective: str
    eps: float
    seed: int

    @property
    def name(self) -> str:
        """Such as "cifar10/eps-1/seed-0"."""
        label = "standard" if self.eps == 0 else f"eps-{self.eps:g}"
        kind = "" if self.objective in ("adversarial", "standard") else f"{self.objective}-"
        return f"{self.source}/{kind}{label}/seed-{self.seed}"

    @property
    def file(self) -> str:
        """Such as "cifar10-eps-1.safetensors"; the seed is named from 1 on."""
        stem = self.name.removesuffix(f"/seed-{self.seed}").replace("/", "-")
        return stem + (f"-seed-{self.seed}" if self.seed else "") + ".safetensors"


@dataclass(frozen=True)
class Source:
    """A task to train on, how, and at which eps.

    Attributes:
        name: in the results, and of the paper's row.
        seeds: eps -> how many seeds, from 0 on; eps 0 is standard training.
        trades, gaussian_noise: the same for the other objectives.
        training: the recipe; a scale's file gives the settings in ``RECIPE`` beside the other keys.
        evaluated_eps: radii of the PGD-20 evaluation.
        inverted: whether its networks are inverted, too.
        larger_than: the source of the same task with a smaller network (Tables 3, 11 and 12).
        measured, modes: as those of the scale and of its transfers, which they replace for this source.
        minutes: an estimate: one epoch of standard training times the epochs, on two cores.
    """

    RECIPE: ClassVar = ("epochs", "batch_size", "lr", "weight_decay", "schedule", "milestones", "augment")

    name: str
    data: str
    seeds: dict[str, int]
    size: int | None = None
    train: int | None = None
    test: int | None = None
    model: str = "resnet18"
    stem: str = "cifar"
    width: int = 64
    training: TrainConfig = SOURCE_TRAINING
    attack_steps: int = 7
    trades: dict[str, int] = field(default_factory=dict)
    gaussian_noise: dict[str, int] = field(default_factory=dict)
    evaluated_eps: tuple[float, ...] = (0.5, 1.0)
    inverted: bool = True
    larger_than: str | None = None
    measured: int | None = None
    modes: dict[str, int] | None = None
    minutes: float = 1.0

    def networks(self) -> Iterator[Network]:
        """All trainings, standard first."""
        for objective, seeds in zip(OBJECTIVES, (self.seeds, self.trades, self.gaussian_noise), strict=True):
            for eps, count in sorted((float(e), n) for e, n in seeds.items()):
                for seed in range(count):
                    yield Network(self.name, objective if eps > 0 else "standard", eps, seed)

    def network(self, eps: float, seed: int = 0) -> Network:
        """The standard network (eps 0), or the adversarially trained one at an eps."""
        return Network(self.name, "adversarial" if eps > 0 else "standard", eps, seed)

    @property
    def eps(self) -> list[float]:
        """The eps of its adversarial trainings, 0 for the standard one."""
        return sorted(float(e) for e in self.seeds)

    @property
    def robust(self) -> float:
        """The eps of "the robust network" of the tables: 1 as in the paper, else the largest."""
        return 1.0 if 1.0 in self.eps else max(self.eps)

    def seeds_at(self, eps: float) -> int:
        """How many seeds are trained at an eps."""
        return next((n for e, n in self.seeds.items() if float(e) == eps), 0)


@dataclass(frozen=True)
class Transfers:
    """Fine-tuning: sources x targets x modes.

    Attributes:
        modes: mode -> how many source seeds it is run for; both_protocols: also by the paper's and a tuned.
        eps: of the backbones; 0 is the standard one.
        train: at most so many training images.
        training: what all modes share of the recipe, as in :class:`Source`.
        epochs, augment: by mode.
        lr: by mode; of several the best on held-out images; RATES for modes that are not named.
    """

    RECIPE: ClassVar = ("batch_size", "weight_decay", "schedule", "milestones", "nesterov")

    targets: tuple[str, ...] = ()
    modes: dict[str, int] = field(default_factory=dict)
    eps: tuple[float, ...] = (0.0, 1.0)
    train: int | None = None
    epochs: dict[str, int] = field(default_factory=dict)
    augment: dict[str, str] = field(default_factory=dict)
    lr: dict[str, tuple[float, ...]] = field(default_factory=dict)
    training: TrainConfig = FINE_TUNING
    both_protocols: dict[str, int] = field(default_factory=dict)
    attack_eps: tuple[float, ...] = (0.25, 0.5)
    bounds: int = 50
    minutes: float = 1.0


@dataclass(frozen=True)
class Inversions:
    """Pictures and convergence: images, steps, noise.

    Attributes:
        beta, prior_variance: of the noise in all modes and in the effective information.
        other_betas: noise of these sizes is drawn once as well, for Fig. 1.
        elsewhere: a task whose images are inverted too.
        convergence_*: of the study of Fig. 2 in which every arm has a part; long_*: of that to as many steps as the
            paper's, on few images; without long_eps it is not run.
    """

    images: int = 16
    shown: int = 8
    steps: int = 500
    optimizer: str = "adam"
    beta: float = BETA
    other_betas: tuple[float, ...] = (1e-10, 1e-9)
    prior_variance: float = PRIOR_VARIANCE
    num_samples: int = 500
    precision: str = "fp32"
    elsewhere: str | None = None
    convergence_images: int = 8
    convergence_steps: int = 300
    convergence_seeds: int = 2
    convergence_betas: tuple[float, ...] = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6)
    convergence_eps: tuple[float, ...] = (0.0, 1.0)
    long_images: int = 4
    long_steps: int = 10_000
    long_seeds: int = 3
    long_betas: tuple[float, ...] = (1e-10, 1e-9)
    long_eps: tuple[float, ...] = ()
    minutes: float = 1.0


@dataclass(frozen=True)
class Dimension:
    """Small standard networks on one task at several sizes of images, for the claim about the number of pixels.

    Attributes:
        sizes: sides of the images, each twice the one before.
        training: the recipe, as in :class:`Source`.
        images: test images behind the measure.
        minutes: an estimate of one training, on two cores.
    """

    RECIPE: ClassVar = ("epochs", "batch_size", "lr", "augment")

    data: str
    sizes: tuple[int, ...]
    seeds: int = 3
    train: int | None = None
    test: int | None = None
    model: str = "resnet10"
    width: int = 16
    training: TrainConfig = SMALL_TRAINING
    images: int = 100
    minutes: float = 1.0


@dataclass(frozen=True)
class Probes:
    """The probe study: linear probes of frozen features, networks x targets, in many settings each.

    Attributes:
        sources, targets: which; a source is no target of its own task.
        further: targets of Figs 3, 7 and 8 alone -> the set whose images they are, with coarser classes; "" for none.
        eps: of the backbones; 0 is the standard one.
        sizes: training images of the target. The grid is run on the most.
        held, test: other training images that choose, and test images.
        training: the paper's protocol.
        lengths: of SGD on the features as they are, beside the protocol as printed; 1 is as far as the paper's went.
        weight_decays: at these lengths.
        standardised_rates: learning rates on standardised features.
        strengths: weight decays of logistic regression on standardised features.
        minutes: an estimate of one network and target.
    """

    RECIPE: ClassVar = ("epochs", "batch_size", "lr", "weight_decay", "schedule", "milestones")

    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    further: dict[str, str] = field(default_factory=dict)
    eps: tuple[float, ...] = (0.0, 1.0)
    sizes: tuple[int, ...] = (250, 700, 2000)
    held: int = 500
    test: int = 1500
    training: TrainConfig = PAPERS_PROBE
    lengths: tuple[float, ...] = (1.0, 4.0)
    weight_decays: tuple[float, ...] = (0.0, 5e-4, 5e-3)
    standardised_rates: tuple[float, ...] = (0.01, 0.1)
    strengths: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    minutes: float = 0.5


@dataclass(frozen=True)
class Scale:
    """Everything that a reproduction does.

    Attributes:
        about: one sentence for the page: how this differs from the paper.
        sources: networks to train.
        measured: images behind each measure.
        dimension: for the claim about the number of pixels; None: not run.
        probes: the probe study; without targets not run.
    """

    name: str
    about: str
    sources: tuple[Source, ...]
    transfers: Transfers = Transfers()
    inversions: Inversions = Inversions()
    dimension: Dimension | None = None
    probes: Probes = Probes()
    measured: int = 500
    precision: str = TrainConfig.precision

    def source(self, name: str) -> Source:
        """By its name."""
        return next(source for source in self.sources if source.name == name)

    def measured_of(self, source: Source) -> int:
        """How many images are behind each measure of a source's networks."""
        return self.measured if source.measured is None else source.measured

    def modes_of(self, source: Source) -> dict[str, int]:
        """Mode of fine-tuning -> how many of a source's seeds it is run for."""
        return self.transfers.modes if source.modes is None else source.modes


def read_scale(name_or_file: str | Path) -> Scale:
    """A scale by its name, or from a TOML file of the same form.

    Raises:
        UsageError: an unknown name, a file that is not TOML, an unknown key, or a setting out of its range.

    >>> read_scale("demo").sources[0].data
    'fashion-mini'
    """
    text = str(name_or_file)
    if text.endswith(".toml"):
        file, name = Path(text).expanduser(), Path(text).stem
    else:
        if text not in SCALES:
            known = ", ".join(map(repr, SCALES))
            raise UsageError(f"scale={text!r} is unknown; choose one of {known}, or name a TOML file of your own")
        file, name = resources.files("waterbed_paper").joinpath(f"scales/{text}.toml"), text
    try:
        values = read_toml(file)
    except OSError as error:
        raise UsageError(f"scale={text!r} cannot be read ({error.strerror}); name a TOML file") from error
    except ValueError as error:
        raise UsageError(f"scale={text!r} is not TOML ({error}); mend it") from error
    parts = {"transfers": Transfers, "inversions": Inversions, "dimension": Dimension, "probes": Probes}
    for key, kind in parts.items():
        if key in values:
            values[key] = _filled(kind, values[key], f"[{key}]", text)
    values["sources"] = tuple(_filled(Source, s, "[[sources]]", text) for s in values.get("sources", []))
    if not values["sources"]:
        raise UsageError(f"scale={text!r} has no [[sources]]; add one")
    return _filled(Scale, {"name": name, **values}, "the file", text)


def recipe(part: Source | Transfers | Dimension | Probes) -> dict[str, Any]:
    """The settings of a part's recipe that an experiment is given.

    >>> recipe(Dimension("cifar10", (16, 32)))
    {'epochs': 6, 'batch_size': 128, 'lr': 0.1, 'augment': 'none'}
    """
    return {key: getattr(part.training, key) for key in part.RECIPE}


def _filled(kind: type, values: dict[str, Any], place: str, file: str) -> Any:
    """An instance of a dataclass from TOML's values; those of its recipe go into its ``training``."""
    known = {f.name: f for f in fields(kind)}
    training, settings = known.pop("training", None), {}
    recipe = kind.RECIPE if training is not None else ()
    given = {}
    for key, value in values.items():
        check_choice(f"scale={file!r}, {place}: the key", key, (*known, *recipe))
        if key in recipe:
            settings[key] = value
            continue
        if str(known[key].type).startswith("dict") and not isinstance(value, dict):
            raise UsageError(f"{place} of scale={file!r} has {key} = {value!r}; give a table, as {{ name = value }}")
        given[key] = tuple(value) if isinstance(value, list) else value
    if training is not None:
        try:
            given["training"] = replace(training.default, **settings)
        except (UsageError, UsageTypeError) as error:
            raise UsageError(f"scale={file!r}, {place}: {error}") from error
    try:
        return kind(**given)
    except TypeError as error:
        raise UsageError(f"{place} of scale={file!r} is incomplete ({error}); add what is missing") from error
