"""WebDataset shards: .tar files in which the files of one example follow one another and share a name.

They are read by position. An index, made on the first use of a shard and kept in the user's cache, says where each
image lies. So millions of images are a few files on the disk, and still have a length, any order, exact resuming and
a validation split.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from glob import glob, has_magic
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import torch

from waterbed.data.decoding import IMAGE_SUFFIXES
from waterbed.data.encoded import EncodedImages
from waterbed.data.folders import in_memory_if_small
from waterbed.data.images import ImageData, check_labels
from waterbed.errors import UsageError
from waterbed.files import digest, write_atomic
from waterbed.progress import track

LABEL = "cls"
MOST_CLASSES = 10**6
TESTS = ("test", "val", "validation", "valid")
EXAMPLE = "'shards/{train,test}-*.tar'"


class ShardImages(EncodedImages):
    """Images in shards, decoded on access.

    Args:
        paths: of the shards.
        indices: of each, :func:`read_index`.
    """

    def __init__(self, paths: Sequence[Path], indices: Sequence[np.ndarray]) -> None:
        self.paths = [path.resolve() for path in paths]
        self.shard = np.repeat(np.arange(len(paths)), [len(index) for index in indices])
        self.offset, self.length, labels = np.concatenate(indices).T.copy()
        self.labels = torch.from_numpy(labels)
        self.classes = None

    def content(self, index: int) -> tuple[str, bytes]:
        """Shard and position of an image, and its bytes."""
        path, offset = self.paths[self.shard[index]], int(self.offset[index])
        try:
            with path.open("rb") as file:  # anew, since workers would share its position
                file.seek(offset)
                return f"{path} at byte {offset}", file.read(int(self.length[index]))
        except OSError as error:
            raise UsageError(f"the shard {str(path)!r} cannot be read ({error.strerror}); put it back") from error


def are_shards(name: str) -> bool:
    """Whether a name is a pattern of .tar files."""
    return name.endswith((".tar", ".tar.gz", ".tgz"))


def load_shards(pattern: str, size: int | None, channels: int | None) -> ImageData:
    """The task in the shards of a pattern; see :func:`waterbed.load_dataset`."""
    parts = _parts(pattern)
    train, test = (ShardImages(paths, _indices(paths, f"indexing {part}")) for part, paths in parts.items())
    train.size, train.channels = size, channels
    train.take_shape(None)
    test.size, test.channels = train.size, train.channels
    classes = tuple(map(str, range(int(torch.cat([train.labels, test.labels]).max()) + 1)))
    for part, images in zip(parts, (train, test), strict=True):
        check_labels(images.labels, len(classes), f"{pattern} ({part})")
    name = re.split(r"[{*?\[]", Path(pattern).name)[0].strip("-_.") or Path(pattern).parent.name or "shards"
    train, test = in_memory_if_small(name, train, test, train.decode(0).shape)
    return ImageData(name, train, test, classes)


def _parts(pattern: str) -> dict[str, list[Path]]:
    """The shards to train and to test on, told by a word in the name of the file, or else of its folder."""
    by_word: dict[str, list[Path]] = {}
    for path in _expanded(pattern):
        words = [word for name in (path.name, path.parent.name) for word in re.findall("[a-z]+", name.lower())]
        word = next((word for word in words if word in ("train", *TESTS)), None)
        if word is None:
            raise UsageError(
                f"{str(path)!r} has none of the words train, {', '.join(TESTS)} in its name or its folder's; rename it "
                "to say which part it is, such as train-000000.tar"
            )
        by_word.setdefault(word, []).append(path)
    parts = {
        "train": by_word.get("train", []),
        "test": next((by_word[word] for word in TESTS if word in by_word), []),
    }
    for part, paths in parts.items():
        if not paths:
            raise UsageError(
                f"name_or_folder={pattern!r} names no {part} shards; write a pattern of both parts, such as {EXAMPLE}"
            )
    return parts


def _expanded(pattern: str) -> list[Path]:
    """The files of a pattern with braces ({a,b}, {000..127}) and wildcards, or of several joined by "::"."""
    if "://" in pattern or pattern.startswith("pipe:"):
        raise UsageError(f"name_or_folder={pattern!r} is not on this machine; download the shards and name the files")
    if not pattern.endswith(".tar"):
        raise UsageError(f"name_or_folder={pattern!r} is compressed and so not read by position; unpack it to .tar")
    names: list[str] = []
    for part in pattern.split("::"):
        pieces = re.split(r"\{([^{}]*)\}", str(Path(part).expanduser()))
        choices = [_choices(piece) if i % 2 else [piece] for i, piece in enumerate(pieces)]
        for name in map("".join, product(*choices)):
            names += sorted(glob(name)) if has_magic(name) else [name]
    missing = next((name for name in names if not Path(name).is_file()), None if names else pattern)
    if missing is not None:
        raise UsageError(
            f"name_or_folder={pattern!r}: there is no file {missing!r}; name shards such as {EXAMPLE} or "
            "'train-{000..127}.tar::test-{000..003}.tar'"
        )
    return [Path(name) for name in dict.fromkeys(names)]


def _choices(braces: str) -> list[str]:
    """What stands for a pair of braces.

    >>> _choices("train,test"), _choices("08..11")
    (['train', 'test'], ['08', '09', '10', '11'])
    """
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", braces)
    if ends is None:
        return braces.split(",")
    first, last = ends.groups()
    return [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]


def _indices(paths: Sequence[Path], description: str) -> list[np.ndarray]:
    """The index of every shard."""
    with ThreadPoolExecutor() as pool:
        return list(track(pool.map(_kept_index, paths), description, total=len(paths), enabled=len(paths) > 8))


def _kept_index(path: Path) -> np.ndarray:
    """The index of a shard, from the cache if it is that of this very file; made anew where no cache can be written."""
    state = path.stat()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "waterbed" / "shards"
    kept = cache / f"{digest([f'{path.resolve()} {state.st_size} {state.st_mtime_ns}'])[:32]}.npy"
    with suppress(OSError, ValueError, EOFError):  # not there, or damaged
        return np.load(kept, allow_pickle=False)
    index = read_index(path)
    buffer = BytesIO()
    np.save(buffer, index, allow_pickle=False)
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, buffer.getvalue())
    return index


def read_index(path: Path) -> np.ndarray:
    """Offset and size in bytes, and label, of each image of a shard: int64 (N, 3).

    An example is one image file and one file KEY.cls, which holds the number of its class.

    Raises:
        UsageError: no .tar file, or one that is cut off or empty; an example without image or class.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            rows = [_row(path, key, parts, tar) for key, parts in _examples(tar)]
    except (tarfile.TarError, OSError) as error:
        raise UsageError(f"the shard {str(path)!r} cannot be read ({error}); write or copy it again") from error
    if not rows:
        raise UsageError(f"the shard {str(path)!r} has no examples; leave it out")
    return np.array(rows, dtype=np.int64)


def _examples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Name and files, by extension, of each example; files of one name follow one another."""
    key, parts = "", {}
    for member in iter(tar.next, None):
        tar.members.clear()  # which it would keep for all files
        if not member.isfile():
            continue
        folder, _, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if f"{folder}/{stem}" != key:
            if parts:
                yield key, parts
            key, parts = f"{folder}/{stem}", {}
        parts[extension.lower()] = member
    if parts:
        yield key, parts


def _row(path: Path, key: str, parts: dict[str, tarfile.TarInfo], tar: tarfile.TarFile) -> tuple[int, int, int]:
    images = [member for extension, member in parts.items() if f".{extension.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    if len(images) != 1 or LABEL not in parts:
        raise UsageError(
            f"the example {key.lstrip('/')!r} in the shard {str(path)!r} has the files {', '.join(parts)}; it must "
            f"have one image and one .{LABEL} with the number of its class"
        )
    text = tar.extractfile(parts[LABEL]).read(100)
    try:
        label = int(text)
        if label >= MOST_CLASSES:
            raise ValueError
    except ValueError as error:
        raise UsageError(
            f"the example {key.lstrip('/')!r} in the shard {str(path)!r} has the class {text[:20]!r}; write whole "
            "numbers from 0"
        ) from error
    return images[0].offset_data, images[0].size, label
