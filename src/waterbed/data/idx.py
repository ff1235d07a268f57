"""Folders of idx files (the MNIST format), gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from waterbed.errors import UsageError

_PARTS = {"train": "train", "test": "t10k"}


def find_idx(folder: str | Path) -> dict[str, Path]:
    """The four idx files of a folder (or of its ``raw`` subfolder), by key such as ``train-images``.

    Empty if the folder holds no idx file at all; :class:`UsageError` if only some of the four are there.
    """
    folder = Path(folder)
    for place in (folder, folder / "raw"):
        found = {}
        for split, prefix in _PARTS.items():
            for kind in ("images", "labels"):
                files = sorted(f for f in place.glob(f"{prefix}*{kind}*idx*") if f.is_file())
                if files:
                    found[f"{split}-{kind}"] = files[0]
        if len(found) == 4:
            return found
        if found:
            missing = sorted({f"{s}-{k}" for s in _PARTS for k in ("images", "labels")} - set(found))
            raise UsageError(
                f"name_or_folder={str(folder)!r} lacks the idx file of {', '.join(missing)}; "
                "put train-images-idx3-ubyte, train-labels-idx1-ubyte and their t10k pair (or .gz) there"
            )
    return {}


def read_idx(path: str | Path) -> np.ndarray:
    """Read one idx file of unsigned bytes; :class:`UsageError` if it is cut short or something else."""
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != 8:
            raise ValueError("it does not start as an idx file of unsigned bytes")
        dims = np.frombuffer(raw, dtype=">i4", count=raw[3], offset=4)
        values = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * raw[3])
        return values.reshape(tuple(int(d) for d in dims))
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"the idx file {str(path)!r} cannot be read ({error}); fetch it again") from error


def read_idx_folder(
    folder: str | Path,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """``(train_images, train_labels), (test_images, test_labels)``: uint8 (N, H, W) and (N,)."""
    files = find_idx(folder)
    if not files:
        raise UsageError(f"folder={str(folder)!r} holds no idx files; name the folder that does")
    parts = []
    for split in _PARTS:
        images, labels = read_idx(files[f"{split}-images"]), read_idx(files[f"{split}-labels"])
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UsageError(
                f"{str(files[f'{split}-images'])!r} has shape {images.shape} and its labels {labels.shape}; "
                "(N, H, W) and (N,) belong together: fetch both again"
            )
        parts.append((images, labels))
    return parts[0], parts[1]
