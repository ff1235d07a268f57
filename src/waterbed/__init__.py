"""Waterbed: train robust representations, measure the information they keep, invert and transfer them.

>>> import waterbed as wb
>>> wb.load_dataset("digits").shape
(1, 8, 8)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from waterbed.attacks import PGD
    from waterbed.data import ImageData, load_dataset, stack
    from waterbed.errors import DivergenceError, UsageError
    from waterbed.evaluation import Score, evaluate
    from waterbed.information import (
        Estimate,
        FisherBounds,
        InputFisher,
        WeightFisher,
        WeightNoise,
        dataset_information,
        effective_information,
        fisher_bounds,
        gaussian_curvature_ratio,
        kl_curvature_ratio,
        measure,
    )
    from waterbed.inversion import Inversion, effective_images, invert, invert_label
    from waterbed.models import (
        FeatureClassifier,
        check_normalisation,
        convert,
        create_model,
        load_model,
        save_model,
        weight_norm,
    )
    from waterbed.objectives import TRADES, AdversarialTraining, GaussianNoise, Standard
    from waterbed.reporting import report
    from waterbed.robustness import RobustnessReport, evaluate_standard
    from waterbed.runs import Run
    from waterbed.training import fit
    from waterbed.transfer_learning import (
        Choice,
        DatasetDistance,
        TradeOff,
        TransferTable,
        choose,
        class_emd,
        dataset_distance,
        extract_features,
        finetune,
        h_score,
        leep,
        logme,
        trade_off,
        transfer,
    )

__version__ = "0.1.0"

# Where each public name lives; imported on first use, so that ``import waterbed`` loads no torch.
_HOMES = {
    "attacks": ["PGD"],
    "data": ["ImageData", "load_dataset", "stack"],
    "errors": ["DivergenceError", "UsageError"],
    "evaluation": ["Score", "evaluate"],
    "information": [
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
    ],
    "inversion": ["Inversion", "effective_images", "invert", "invert_label"],
    "models": [
        "FeatureClassifier",
        "check_normalisation",
        "convert",
        "create_model",
        "load_model",
        "save_model",
        "weight_norm",
    ],
    "objectives": ["TRADES", "AdversarialTraining", "GaussianNoise", "Standard"],
    "reporting": ["report"],
    "robustness": ["RobustnessReport", "evaluate_standard"],
    "runs": ["Run"],
    "training": ["fit"],
    "transfer_learning": [
        "Choice",
        "DatasetDistance",
        "TradeOff",
        "TransferTable",
        "choose",
        "class_emd",
        "dataset_distance",
        "extract_features",
        "finetune",
        "h_score",
        "leep",
        "logme",
        "trade_off",
        "transfer",
    ],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "PGD",
    "TRADES",
    "AdversarialTraining",
    "Choice",
    "DatasetDistance",
    "DivergenceError",
    "Estimate",
    "FeatureClassifier",
    "FisherBounds",
    "GaussianNoise",
    "ImageData",
    "InputFisher",
    "Inversion",
    "RobustnessReport",
    "Run",
    "Score",
    "Standard",
    "TradeOff",
    "TransferTable",
    "UsageError",
    "WeightFisher",
    "WeightNoise",
    "check_normalisation",
    "choose",
    "class_emd",
    "convert",
    "create_model",
    "dataset_distance",
    "dataset_information",
    "effective_images",
    "effective_information",
    "evaluate",
    "evaluate_standard",
    "extract_features",
    "finetune",
    "fisher_bounds",
    "fit",
    "gaussian_curvature_ratio",
    "h_score",
    "invert",
    "invert_label",
    "kl_curvature_ratio",
    "leep",
    "load_dataset",
    "load_model",
    "logme",
    "measure",
    "report",
    "save_model",
    "stack",
    "trade_off",
    "transfer",
    "weight_norm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'waterbed' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"waterbed.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
