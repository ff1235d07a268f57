"""Transfer: fine-tuning, tables over targets, distance between tasks."""

from waterbed.transfer_learning.distance import class_emd
from waterbed.transfer_learning.finetune import extract_features, finetune
from waterbed.transfer_learning.table import TransferTable, load_for, transfer

__all__ = ["TransferTable", "class_emd", "extract_features", "finetune", "load_for", "transfer"]
