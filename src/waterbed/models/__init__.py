"""Models: a classifier with its normalisation inside, the networks of the paper, and their files."""

from waterbed.models.checkpoints import load_model, read_card, save_model, write_atomic
from waterbed.models.classifier import (
    FeatureClassifier,
    check_weights,
    evaluating,
    frozen,
    probe,
    weight_norm,
)
from waterbed.models.conversion import convert
from waterbed.models.create import RESNETS, create_model
from waterbed.models.folding import folded
from waterbed.models.normalisers import NormalisationCheck, check_normalisation

__all__ = [
    "RESNETS",
    "FeatureClassifier",
    "NormalisationCheck",
    "check_normalisation",
    "check_weights",
    "convert",
    "create_model",
    "evaluating",
    "folded",
    "frozen",
    "load_model",
    "probe",
    "read_card",
    "save_model",
    "weight_norm",
    "write_atomic",
]
