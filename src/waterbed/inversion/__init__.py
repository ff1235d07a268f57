"""Inversion: images that a network cannot tell from given ones, and what they show of what it keeps."""

from waterbed.inversion.descent import OPTIMIZERS
from waterbed.inversion.problem import INITS, LOSSES, MODES
from waterbed.inversion.result import Inversion
from waterbed.inversion.solve import effective_images, invert, invert_label, invert_modes

__all__ = [
    "INITS",
    "LOSSES",
    "MODES",
    "OPTIMIZERS",
    "Inversion",
    "effective_images",
    "invert",
    "invert_label",
    "invert_modes",
]
