"""The files of a gallery of inversions, checked before the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from waterbed.files import check_output, is_json_of
from waterbed.plots import is_our_png


def file_pattern(mode: str, study: str) -> str:
    """Name of a network -> stem of the files of its gallery.

    >>> file_pattern("class", "none").format("robust")
    'robust-classes'
    """
    return "convergence-{}" if study == "convergence" else "{}-classes" if mode == "class" else "{}"


def check_outputs(out: Path, names: Sequence[str], mode: str, study: str) -> None:
    """Raise if a file that a gallery of these networks writes is there and is the user's own."""
    for stem in (file_pattern(mode, study).format(name) for name in names):
        check_output(out / f"{stem}.png", is_our_png, None)
        check_output(out / f"{stem}.json", is_json_of("settings"), None)
    if len(names) > 1:
        check_output(out / "compared.png", is_our_png, None)
