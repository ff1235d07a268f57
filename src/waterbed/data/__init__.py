"""Data: embedded sets, those of the catalogue, and folders, all as float32 (C, H, W) in [0, 1]."""

from waterbed.data.catalog import CATALOG, Source
from waterbed.data.images import FolderImages, ImageData, TensorImages, adapt, batches, stack
from waterbed.data.load import load_dataset

__all__ = [
    "CATALOG",
    "FolderImages",
    "ImageData",
    "Source",
    "TensorImages",
    "adapt",
    "batches",
    "load_dataset",
    "stack",
]
