"""The command that brings networks of other projects in: convert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import Positional, arg

from waterbed.cli.options import Force
from waterbed.cli.output import say


@dataclass
class Convert:
    """Write a checkpoint of another project (or a run) as .safetensors with a JSON card, to use, keep or share."""

    file: Annotated[Positional[str], arg(metavar="FILE")]
    """A .pt, .pth, .bin or .safetensors file, or a run folder."""
    out: str
    """The new file; ends in .safetensors."""
    source: str = "auto"
    """What wrote the file: auto, safetensors, robustness, robustbench, torchvision, timm."""
    architecture: str | None = None
    """timm's name of the network, if its tensors do not tell."""
    size: int | None = None
    """Side of the images it was trained on; by default 32 for a 3 x 3 stem and 224 for a 7 x 7 one."""
    mean: tuple[float, ...] = ()
    """Normalisation the network was trained with, one number per channel, if the file has none."""
    std: tuple[float, ...] = ()
    """Goes with --mean."""
    force: Force = False
    trust: bool = False
    """Unpickle a file that holds more than weights. This can run code in the file: only if you trust its origin."""

    def __call__(self) -> Any:
        from pathlib import Path

        from waterbed.models.conversion import convert

        if Path(self.file).expanduser().is_dir():
            model = self._export()
        else:
            model = convert(
                self.file,
                self.out,
                self.trust,
                source=self.source,
                mean=self.mean or None,
                std=self.std or None,
                architecture=self.architecture,
                size=self.size,
                force=self.force,
            )
        described = summary(model)
        say(f"{self.out} written: {described}")
        return {"out": self.out, "summary": described}

    def _export(self) -> Any:
        """A run's weights with its config and history."""
        from waterbed.errors import UsageError
        from waterbed.training.run_folder import Run

        foreign = ("architecture", "size", "mean", "std", "trust")
        given = [name for name in foreign if getattr(self, name)] + ["source"] * (self.source not in ("auto", "run"))
        if given:
            raise UsageError(
                f"--{given[0]} is for files of other projects, but {self.file!r} is a folder; leave it out"
            )
        run = Run.load(self.file)
        run.export(self.out, force=self.force)
        return run.model


def summary(model: Any) -> str:
    """One line on a network that was read: what it is, where from, and its normaliser."""
    built = model.architecture or {"name": type(model).__name__}
    network = built["name"] + "".join(
        f", {text.format(built[key])}"
        for key, text in (("stem", "{} stem"), ("width", "width {}"), ("num_classes", "{} classes"))
        if key in built
    )
    if model.input_shape is not None:
        network += ", images {} x {} x {}".format(*model.input_shape)
    normaliser = f"normaliser: {model.loading['normaliser']}"
    if model.mean is not None:
        mean, std = (" ".join(f"{v:.4g}" for v in t.flatten().tolist()) for t in (model.mean, model.std))
        normaliser += f" (mean {mean}, std {std})"
    return "; ".join([network, f"source: {model.loading['source']}", normaliser, *model.loading["notes"]])
