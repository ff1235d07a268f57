"""Images per second of the folder path compared with torchvision's ImageFolder in a plain DataLoader.

    python benchmarks/loading.py [--folder DIR] [--workers 2] [--repeats 7] [--size 64] [--batch 128] [--out FILE.json]

DIR has train/<class>/* and test/<class>/*; by default 1,500 JPEG files of 400 x 300 pixels are made. Nothing is done
with the batches. Every loader resizes the short side, crops the centre and yields float32 in [0, 1]; "same pixels"
decodes to a tensor first, as ours does, which is checked, and "PIL" is the customary Resize of the PIL image. Each
repetition takes all loaders in turn, so that other work on the machine meets all alike; the time is that of a whole
pass, with workers that run already where they stay alive ("persistent"; ours always do), and start anew elsewhere.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import waterbed as wb
from waterbed.data import folders
from waterbed.data.loading import Loader
from waterbed.environment import environment


def make_folder(folder: Path, count: int = 1500) -> None:
    """JPEG files of smooth colours, of the size of common photographs."""
    rng = np.random.default_rng(0)
    for part, number in (("train", count), ("test", 2)):
        for i in range(number):
            place = folder / part / f"class{i % 2}"
            place.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
            coarse.resize((400, 300), Image.Resampling.BICUBIC).save(place / f"{i:05d}.jpg", quality=90)


def seconds_of(batches: Callable[[], Iterable[Any]]) -> float:
    began = time.perf_counter()
    for _ in batches():
        pass
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folders.IN_MEMORY_BYTES = 0  # as if the set were too large for memory
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.folder is None:
            make_folder(folder)
        seconds, count = measure(folder, options)
    rates = {name: [count / s for s in times] for name, times in seconds.items()}
    print(f"{count} images, {options.workers} workers, {options.repeats} repetitions in turn, images/s")
    rows = {}
    for name, values in rates.items():
        ratios = [ours / other for ours, other in zip(rates["waterbed"], values, strict=True)]
        rows[name] = {"median": median(values), "slowest": min(values), "fastest": max(values)}
        rows[name] |= {"waterbed_is_faster_by": median(ratios), "pairs": ratios}
        print(
            f"{name:40} median {median(values):7.0f}  ({min(values):.0f} - {max(values):.0f})  "
            f"waterbed {median(ratios):.2f} x ({min(ratios):.2f} - {max(ratios):.2f})"
        )
    if options.out is not None:
        names = ("workers", "repeats", "size", "batch")
        content = {"images_per_second": rows, "images": count, **{name: getattr(options, name) for name in names}}
        content |= {"order": "all loaders in turn in each repetition"}
        content |= {"environment": environment()}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=2) + "\n")


def measure(folder: Path, options: argparse.Namespace) -> tuple[dict[str, list[float]], int]:
    """Seconds of each pass by loader, and the number of images."""
    data = wb.load_dataset(folder, size=options.size, channels=3)
    resize = [options.size]
    same = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(resize, antialias=True),
            v2.CenterCrop(resize),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    customary = transforms.Compose(
        [transforms.Resize(options.size), transforms.CenterCrop(options.size), transforms.ToTensor()]
    )
    loading = {"batch_size": options.batch, "num_workers": options.workers, "shuffle": True}
    theirs = ImageFolder(folder / "train", same)
    first, other = (torch.stack([part[i][0] for i in range(0, len(part), 97)]) for part in (data.train, theirs))
    torch.testing.assert_close(first, other, rtol=0, atol=1e-6)  # torchvision multiplies by 1 / 255
    kept = [DataLoader(theirs, persistent_workers=options.workers > 0, **loading)]
    plain = [DataLoader(theirs, **loading), DataLoader(ImageFolder(folder / "train", customary), **loading)]
    with Loader(data.train, workers=options.workers) as loader:
        methods: dict[str, Callable[[], Iterable[Any]]] = {
            "waterbed": lambda: loader.batches(options.batch, order=torch.randperm(len(data.train))),
            "ImageFolder, same pixels": lambda: plain[0],
            "ImageFolder, same pixels, persistent": lambda: kept[0],
            "ImageFolder, PIL": lambda: plain[1],
        }
        seconds: dict[str, list[float]] = {name: [] for name in methods}
        for repetition in range(-1, options.repeats):  # the first starts the workers and reads the files once
            for name, method in methods.items():
                taken = seconds_of(method)
                if repetition >= 0:
                    seconds[name].append(taken)
        kept.clear()
    return seconds, len(data.train)


if __name__ == "__main__":
    main()
