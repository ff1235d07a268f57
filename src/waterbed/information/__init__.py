"""How much information the representation keeps about the input, and the weights about the data."""

from waterbed.information.estimate import Estimate
from waterbed.information.input_fisher import InputFisher
from waterbed.information.weight_fisher import WeightFisher
from waterbed.information.weight_noise import WeightNoise

__all__ = ["Estimate", "InputFisher", "WeightFisher", "WeightNoise"]
