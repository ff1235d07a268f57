"""train: a network on a named data set or on a folder of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from waterbed.cli.options import options_of, values_of
from waterbed.cli.output import print_rows
from waterbed.training.objective_config import ObjectiveConfig

if TYPE_CHECKING:
    from waterbed.data.images import ImageData
    from waterbed.models.classifier import FeatureClassifier

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


@dataclass(kw_only=True)
class _Network:
    """What is trained on what."""

    data: Positional[str]
    """Name of a data set, or a folder with train/<class>/* and test/<class>/*."""
    out: str
    """The run folder; an unfinished run there goes on, a finished one is left as it is."""
    model: str = "resnet18"
    """resnet10, resnet18, resnet34, resnet50, resnet101 or wide_resnet50_2."""
    stem: str = "cifar"
    """cifar (small images) or imagenet (large ones)."""
    width: int = 64
    """Channels of the first stage."""


@dataclass(kw_only=True)
class Train(options_of(ObjectiveConfig()), _Network):  # the options of the last base come first
    """Train a network on a named data set or a folder of images; writes a run folder."""

    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    """one-cycle, cosine, step or constant."""
    milestones: tuple[int, ...] = ()
    """Epochs after which schedule=step falls to a tenth; by default 1/3 and 2/3 of all."""
    nesterov: bool = True
    """Nesterov's momentum."""
    momentum: float = 0.9
    augment: str = "auto"
    """auto, crop-flip, crop or none."""
    validation: float = 0.0
    """Fraction of the training images held out to choose the epoch; 0 keeps the last."""
    ema: float = 0.0
    """Decay per step of averaged weights, such as 0.995, to watch and keep in place of the last; 0 for none."""
    seed: int = 0
    precision: str = "auto"
    """auto, fp32 or bf16."""
    resume: str = "auto"
    """auto or never."""
    workers: int = 0
    """Processes that decode images, for data too large for memory."""
    checkpoint_minutes: float = 15.0
    """Within long epochs the state is saved that often."""
    trackers: tuple[str, ...] = ()
    """tensorboard, wandb, mlflow, beside metrics.jsonl."""
    dry_run: bool = False
    """Show shapes, parameters, memory and the time it would take, from three steps; train and write nothing."""
    root: str | None = None
    """Where named data sets lie."""
    download: bool = False
    """Fetch a named data set that is missing."""
    size: int | None = None
    """Side of the square images."""
    channels: int | None = None
    """1 (grey) or 3 (RGB)."""

    def __call__(self) -> None:
        from waterbed.training.dry_run import dry_run
        from waterbed.training.fit import fit
        from waterbed.training.objectives import make_objective

        objective = make_objective(self.objective_config())
        data, source = self.load_data()
        model = self.make_model(data, self.seed)
        if self.dry_run:
            rows = dry_run(model, data, objective, self.epochs, self.batch_size, self.precision)
            print_rows(["what", "how much"], rows, f"{self.out} would be")
            return
        run = fit(model, data, objective, self.out, seed=self.seed, notes={"source": source}, **self.settings())
        last = run.kept
        reported = ("loss", "train_accuracy", "validation_clean", "validation_robust", "test_clean", "test_robust")
        values = ", ".join(f"{k.replace('_', ' ')} {last[k]:.4g}" for k in reported if k in last)
        print(f"{self.out}: epoch {last['epoch']}: {values}")

    def objective_config(self) -> ObjectiveConfig:
        """The objective by its name, with what it trains against."""
        return ObjectiveConfig(**values_of(ObjectiveConfig, self))

    def settings(self) -> dict[str, Any]:
        """What :func:`waterbed.fit` takes under the same names, but the seed."""
        return {name: getattr(self, name) for name in FIT_OPTIONS}

    def load_data(self) -> tuple[ImageData, dict[str, Any]]:
        """The data and where they came from."""
        from waterbed.cli.runs import load_with_source

        return load_with_source(self.data, self.root, self.download, self.size, self.channels)

    def make_model(self, data: ImageData, seed: int) -> FeatureClassifier:
        """An untrained network for the data."""
        from waterbed.models.create import create_model

        return create_model(self.model, data.num_classes, self.stem, self.width, data.shape[0], seed)
