"""Image files and their bytes as pixels: what Pillow reads rightly, and a line for everything else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from waterbed.errors import UsageError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# Whatever a file is called: Pillow would start Ghostscript for PostScript in a .png.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP", "JPEG2000")
SIXTEEN_BITS = ("PNG", "PPM")  # of which Pillow calls 16 bits per pixel "I", like 32 of TIFF
GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L")


def read_image(path: str | Path, channels: int | None = None, content: bytes | None = None) -> Tensor:
    """One file as uint8 (C, H, W).

    Args:
        channels: 1 (grey) or 3 (RGB); None keeps grey files grey and reads all others as RGB.
        content: the bytes of the file, where they come from elsewhere; ``path`` then names it in messages.

    Raises:
        UsageError: the file cannot be opened, is not an image, is one of 32 bits or floats per pixel, whose range it
            does not record, or unpacks to far more than it holds.
    """
    with opened(path, content) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip at 255
            upright = Image.fromarray((np.asarray(upright).clip(0, 65535) / 257).round().astype(np.uint8))
        grey = channels == 1 or (channels is None and upright.mode in GREY_MODES)
        return tvf.pil_to_tensor(upright.convert("L" if grey else "RGB"))


def header(path: str | Path, content: bytes | None = None) -> tuple[bool, tuple[int, int]]:
    """Whether a file, or its content, is a grey image, and its (H, W); raises as :func:`read_image`."""
    with opened(path, content) as image:
        sideways = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the axes
        return image.mode in GREY_MODES, (image.width, image.height) if sideways else (image.height, image.width)


@contextmanager
def opened(path: str | Path, content: bytes | None = None) -> Iterator[Image.Image]:
    """The image, whose pixels are not read yet. What Pillow raises about it in the block is a UsageError, too."""
    named = f"the image {str(path)!r}"
    try:
        if content is None and not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would never end
            raise UsageError(f"{named} is no regular file; remove it")
        with Image.open(path if content is None else BytesIO(content), formats=FORMATS) as image:
            if image.mode == "F" or (image.mode == "I" and image.format not in SIXTEEN_BITS):
                bits = "floating-point numbers" if image.mode == "F" else "32 bits"
                raise UsageError(
                    f"{named} has {bits} per pixel, of a range that it does not record; save it with 8 or 16 bits"
                )
            yield image
    except UsageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(f"{named} would take too much memory ({error}); reduce or remove it") from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{named} cannot be read (corrupt, or not an image); remove or replace it") from error
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UsageError(f"{named} cannot be opened ({error.strerror})") from error
    except Exception as error:  # Pillow raises almost anything on a damaged file, and ValueError on a text-chunk bomb
        reason = str(error).strip(".") or type(error).__name__
        raise UsageError(
            f"{named} cannot be read (corrupt, or not an image: {reason}); remove or replace it"
        ) from error


def image_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The image files in a folder and its subfolders, sorted.

    Raises:
        UsageError: a folder cannot be listed, so that images would be missing.
    """

    def refuse(error: OSError) -> None:
        raise UsageError(
            f"the folder {str(error.filename)!r} cannot be listed ({error.strerror}); change its permissions or remove "
            "it"
        ) from error

    return sorted(
        Path(place, name)
        for place, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and fnmatch(name, pattern)
    )
