"""Folders of idx files (the MNIST format), gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from waterbed.errors import UsageError

_PARTS = {"train": "train", "test": "t10k"}


def find_idx(folder: str | Path) -> dict[str, Path]:
    """The four idx files of a folder (or of its ``raw`` subfolder), by keys such as ``train-images``.

    Empty if the folder holds no idx file at all.

    Raises:
        UsageError: only some of the four files are there.

    >>> find_idx("no-such-folder")
    {}
    """
    folder = Path(folder)
    for place in (folder, folder / "raw"):
        files = {}
        for split, prefix in _PARTS.items():
            for kind in ("images", "labels"):
                candidates = sorted(f for f in place.glob(f"{prefix}*{kind}*idx*") if f.is_file())
                if candidates:
                    files[f"{split}-{kind}"] = candidates[0]
        if len(files) == 4:
            return files
        if files:
            missing = sorted({f"{s}-{k}" for s in _PARTS for k in ("images", "labels")} - set(files))
            raise UsageError(
                f"name_or_folder={str(folder)!r} lacks the idx file of {', '.join(missing)}; "
                "put train-images-idx3-ubyte, train-labels-idx1-ubyte and their t10k pair (or .gz) there"
            )
    return {}


def read_idx(path: str | Path) -> np.ndarray:
    """One idx file of unsigned bytes, as uint8 of the shape in its header.

    Raises:
        UsageError: the file is truncated, or not an idx file of unsigned bytes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))  # one dimension of size 2, then its values
    ...     read_idx(path).tolist()
    [7, 9]
    """
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != 8:
            raise ValueError("its header is not that of an idx file of unsigned bytes")
        dims = np.frombuffer(raw, dtype=">i4", count=raw[3], offset=4)
        values = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * raw[3])
        return values.reshape(tuple(int(d) for d in dims))
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"the idx file {str(path)!r} cannot be read ({error}); download it again") from error


def read_idx_folder(
    folder: str | Path,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """``(train_images, train_labels), (test_images, test_labels)``: uint8 (N, H, W) and (N,).

    Raises:
        UsageError: files are missing or damaged, or images and labels do not match.
    """
    files = find_idx(folder)
    if not files:
        raise UsageError(f"folder={str(folder)!r} has no idx files; pass the folder that has")
    parts = []
    for split in _PARTS:
        images, labels = read_idx(files[f"{split}-images"]), read_idx(files[f"{split}-labels"])
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UsageError(
                f"{str(files[f'{split}-images'])!r} has shape {images.shape} and its labels {labels.shape}; "
                "they must be (N, H, W) and (N,): download both again"
            )
        parts.append((images, labels))
    return parts[0], parts[1]
