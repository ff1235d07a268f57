"""Transfer: fine-tuning, tables over targets, distance between tasks, scores of backbones."""

from waterbed.transfer_learning.choose import Choice, choose
from waterbed.transfer_learning.distance import DatasetDistance, class_emd, dataset_distance
from waterbed.transfer_learning.features import extract_features
from waterbed.transfer_learning.finetune import finetune
from waterbed.transfer_learning.scores import h_score, leep, logme
from waterbed.transfer_learning.table import TransferTable, transfer
from waterbed.transfer_learning.targets import load_for
from waterbed.transfer_learning.tradeoff import TradeOff, trade_off

__all__ = [
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
    "load_for",
    "logme",
    "trade_off",
    "transfer",
]
