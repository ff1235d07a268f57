"""How much information the representation keeps about the input, and the weights about the data."""

from waterbed.information.curvature import (
    FisherBounds,
    fisher_bounds,
    gaussian_curvature_ratio,
    kl_curvature_ratio,
)
from waterbed.information.dataset import dataset_information
from waterbed.information.effective import effective_information
from waterbed.information.estimate import Estimate
from waterbed.information.input_fisher import InputFisher
from waterbed.information.summary import measure
from waterbed.information.weight_fisher import WeightFisher
from waterbed.information.weight_noise import WeightNoise

__all__ = [
    "Estimate",
    "FisherBounds",
    "InputFisher",
    "WeightFisher",
    "WeightNoise",
    "dataset_information",
    "effective_information",
    "fisher_bounds",
    "gaussian_curvature_ratio",
    "kl_curvature_ratio",
    "measure",
]
