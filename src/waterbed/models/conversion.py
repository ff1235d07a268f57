"""convert: a foreign checkpoint rewritten as safetensors, with a card that records where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from waterbed.errors import UsageError, check_choice, check_count
from waterbed.files import digest, expanded
from waterbed.models.architectures import image_channels
from waterbed.models.checkpoints import SOURCES, check_weights_output, save_model
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.foreign import load_foreign

READABLE = tuple(source for source in SOURCES if source not in ("run", "huggingface"))


def convert(
    path: str | Path,
    out: str | Path,
    trust: bool = False,
    *,
    source: str = "auto",
    model: nn.Module | None = None,
    mean: Any = None,
    std: Any = None,
    architecture: str | None = None,
    size: int | None = None,
    force: bool = False,
) -> FeatureClassifier:
    """Write a foreign checkpoint as our .safetensors with its card, and return the network.

    Args:
        path: a checkpoint that ``load_model`` reads, or one that needs ``trust``.
        out: ends in .safetensors. The card gets ``provenance``: the source, the normaliser found, notes, the file's
            name and SHA-256, and whether it was trusted.
        trust: unpickle whatever the file holds (with dill, if it was saved so). **This can run code from the file**:
            only for files whose origin you trust. The file written is safe to read.
        source, model, mean, std, architecture: as in ``load_model``.
        size: side of the images that it was trained on, in pixels; by default 32 with a 3 x 3 stem, 224 with 7 x 7.
        force: replace an ``out`` that is not ours.

    Raises:
        UsageError: a file that cannot be read or is not trusted, an unknown network, an ``out`` that holds something
            else.
    """
    check_choice("source", source, READABLE)
    path, out = Path(path).expanduser(), expanded(out)
    if not path.is_file():
        raise UsageError(f"path={str(path)!r} is no file; name a checkpoint (a run folder has Run.export)")
    if path.suffix == ".safetensors" and path.with_suffix(".json").is_file() and source == "auto":
        raise UsageError(f"path={str(path)!r} is in this format already (it has a card); copy both files")
    if out.suffix != ".safetensors" or out.resolve() == path.resolve():
        raise UsageError(f"out={str(out)!r} must end in .safetensors and differ from path; choose another")
    check_weights_output(out, force)
    network = load_foreign(path, source, model, mean, std, architecture, trust=trust)
    if size is not None:
        check_count("size", size)
        network.input_shape = (image_channels(network.state_dict()) or 3, size, size)
    provenance = {**network.loading, "file": path.name, "sha256": _sha256(path), "trusted": trust}
    save_model(network, out, {"provenance": provenance}, force)
    return network


def _sha256(path: Path) -> str:
    """The file's hash in hexadecimal."""
    with open(path, "rb") as file:
        return digest(iter(lambda: file.read(1 << 20), b""))
