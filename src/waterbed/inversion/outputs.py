"""The files of a gallery of inversions, checked before the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from waterbed.files import check_output, is_json_of
from waterbed.inversion.objective import MODES
from waterbed.inversion.result import is_our_gif
from waterbed.plots import is_our_png


def file_pattern(mode: str, study: str) -> str:
    """Name of a network -> stem of the files of its gallery.

    >>> file_pattern("class", "none").format("robust")
    'robust-classes'
    """
    return "convergence-{}" if study == "convergence" else "{}-classes" if mode == "class" else "{}"


def check_outputs(
    out: Path, names: Sequence[str], mode: str, study: str, kinds: Sequence[str], force: bool = False
) -> None:
    """Raise if a file that a gallery of these networks writes is there and is the user's own.

    Args:
        kinds: of the inversions that are animated.
    """
    for stem in (file_pattern(mode, study).format(name) for name in names):
        check_output(out / f"{stem}.png", is_our_png, force)
        check_output(out / f"{stem}.json", is_json_of("settings"), force)
        for animation in (out / animated(stem, kind) for kind in kinds):
            check_output(animation, is_our_gif, force)
    if len(names) > 1:
        check_output(out / "compared.png", is_our_png, force)


def kinds_of(mode: str, study: str, betas: Sequence[float]) -> list[str]:
    """The names of the inversions of one network."""
    if study == "beta":
        return [f"beta {value:g}" for value in betas]
    return list(MODES) if mode == "all" else [mode]


def animated(stem: str, kind: str) -> str:
    """The name of an animation; one of all classes has no kind."""
    return f"{stem}-{kind.replace(' ', '-')}.gif" if kind else f"{stem}.gif"
