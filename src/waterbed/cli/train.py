"""train: a network on a named data set or on a folder of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from waterbed.cli.options import Channels, Download, Radius, Root, Size, options_of, values_of
from waterbed.cli.output import print_rows, say
from waterbed.errors import UsageError
from waterbed.training.config import TrainConfig
from waterbed.training.objective_config import ObjectiveConfig, check_used

if TYPE_CHECKING:
    from waterbed.data.images import ImageData
    from waterbed.models.classifier import FeatureClassifier


@dataclass(kw_only=True)
class _Network:
    """Which network is trained on which data."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Name of a data set, or a folder with train/<class>/* and test/<class>/*."""
    out: str
    """The run folder; an unfinished run in it continues, a finished one is left as it is."""
    model: str = "resnet18"
    """resnet10 ... resnet101, wide_resnet50_2, wide_resnet28_10 ..., preact_resnet18, timm:NAME (such as
    timm:vit_tiny_patch16_224), or package.module:function, your own, which returns a network for num_classes=."""
    stem: str = "cifar"
    """cifar (for small images) or imagenet (for large ones)."""
    width: int = 64
    """Channels of the first stage."""


# In --help the options of the last base come first.
@dataclass(kw_only=True)
class Train(
    options_of(TrainConfig(), trackers=tuple[str, ...], measures=tuple[str, ...], optimizer=str, augment=str),
    options_of(ObjectiveConfig(), eps=Radius),
    _Network,
):
    """Train a network on a named data set or a folder of images; writes a run folder."""

    NAMES_DATA: ClassVar[str] = ""

    dry_run: bool = False
    """Print shapes, parameters, memory and the estimated time, from three steps; train and write nothing."""
    root: Root = None
    download: Download = False
    size: Size = None
    channels: Channels = None

    def goes_on(self) -> bool:
        """Whether the command continues where it was stopped."""
        return not self.dry_run

    def __call__(self) -> Any:
        from waterbed.training.dry_run import dry_run
        from waterbed.training.fit import fit
        from waterbed.training.objectives import make_objective

        objective, config = make_objective(self.objective_config()), self.config()
        data, source = self.load_data()
        model = self.make_model(data, self.seed)
        if self.dry_run:
            rows = dry_run(model, data, objective, config)
            print_rows(["what", "how much"], rows, f"{self.out}, if it is trained")
            return {str(what): how_much for what, how_much in rows}
        run = fit(model, data, objective, self.out, config=config, notes={"source": source})
        last = run.record
        reported = ("loss", "train_accuracy", "validation_clean", "validation_robust", "test_clean", "test_robust")
        values = ", ".join(f"{k.replace('_', ' ')} {last[k]:.4g}" for k in reported if k in last)
        say(f"{self.out}: epoch {last['epoch']}: {values}")
        return {"out": self.out, "record": last}

    def objective_config(self) -> ObjectiveConfig:
        """The objective by its name, with what it trains against."""
        if self.objective == "feature" and ":" not in self.model.removeprefix("timm:"):
            raise UsageError(
                f"--objective feature needs a pretrained network, and --model {self.model} begins untrained; fine-tune "
                "a run (waterbed transfer RUN --mode 2 --objective feature), or name a function that loads your own"
            )
        config = ObjectiveConfig(**values_of(ObjectiveConfig, self))
        check_used(config)
        return config

    def config(self) -> TrainConfig:
        """The settings of the training."""
        return TrainConfig(**values_of(TrainConfig, self))

    def in_force(self) -> dict[str, Any]:
        """What --print-config prints in place of options whose default depends on others."""
        return {"lr": self.config().learning_rate}

    def load_data(self) -> tuple[ImageData, dict[str, Any]]:
        """The data and where they came from."""
        from waterbed.cli.runs import load_with_source

        return load_with_source(self.data, self.root, self.download, self.size, self.channels)

    def make_model(self, data: ImageData, seed: int) -> FeatureClassifier:
        """An untrained network for the data."""
        from waterbed.models.create import create_model

        channels, height, width = data.shape
        size = height if height == width else None
        return create_model(self.model, data.num_classes, self.stem, self.width, channels, seed, size)
