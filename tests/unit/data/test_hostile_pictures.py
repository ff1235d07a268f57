"""Picture files that are damaged, hostile or of a kind whose range is unknown: one line that names the file."""

import io
import os
import struct
import tarfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import waterbed as wb
from waterbed.data.decoding import header, image_files, read_image
from waterbed.data.images import adapt
from waterbed.data.load import absolute

GREY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))


def png(width, height, *chunks):
    """A PNG of that size by its header, with more chunks in it."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * (width * 3 + 1) * min(height, 8)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*c) for c in chunks) + pixels + chunk(b"IEND", b"")


def saved(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


TEXT_BOMB = b"comment\0\0" + zlib.compress(b"a" * 2**26)
HOSTILE = {
    "decompression bomb": (png(30_000, 30_000), "would take too much memory"),
    "text-chunk bomb": (png(8, 8, (b"zTXt", TEXT_BOMB)), "corrupt, or not an image: Decompressed data too large"),
    "many text chunks": (png(8, 8, *[(b"zTXt", b"c\0\0" + zlib.compress(b"a" * 2**19))] * 140), "text chunks"),
    "floats": (saved(Image.fromarray(np.full((8, 8), 0.5, np.float32)), format="TIFF"), "floating-point numbers"),
    "32 bits": (saved(Image.fromarray(np.full((8, 8), 2**30, np.int32)), format="TIFF"), "has 32 bits per pixel"),
    "PostScript": (saved(GREY, format="EPS"), r"corrupt, or not an image\)"),
    "cut off": (saved(GREY, format="PNG")[:45], "corrupt, or not an image"),
    "empty": (b"", "corrupt, or not an image"),
}


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_one_line_that_names_it(name, tmp_path):
    content, message = HOSTILE[name]
    file = tmp_path / "picture.png"
    file.write_bytes(content)
    with pytest.raises(wb.UsageError, match=message) as by_name:
        read_image(file)
    assert "picture.png" in str(by_name.value)
    with pytest.raises(wb.UsageError, match=message):
        read_image("from elsewhere", content=content)
    if "bits" in message or "memory" in message:  # known by the header, before any pixel is read
        with pytest.raises(wb.UsageError, match=message):
            header(str(file))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_read_right_in_every_format(kind):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    image = Image.fromarray(values if kind != "PPM" else values.astype(np.int32))
    read = read_image("x", content=saved(image, format=kind))[0].numpy()
    assert np.abs(read.astype(float) - values / 257).max() <= 0.5


def test_a_pipe_called_png_is_refused_and_does_not_hang(folder):
    os.mkfifo(folder / "train/dark/pipe.png")
    with pytest.raises(wb.UsageError, match=r"pipe.png' is no regular file; remove it"):
        wb.load_dataset(folder)
    os.mkfifo(folder / "train-0.tar")
    with pytest.raises(wb.UsageError, match="there is no file"):
        wb.load_dataset(f"{folder}/train-0.tar::{folder}/test-0.tar")


def test_an_unreadable_folder_is_said_rather_than_left_out(folder, monkeypatch):
    (folder / "train/dark/more").mkdir()
    GREY.save(folder / "train/dark/more/0.png")
    assert len(image_files(folder / "train/dark")) == 13
    real = os.scandir

    def scandir(path):  # these tests may run as root, who may list everything
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(wb.UsageError, match=r"dark/more' cannot be listed \(Permission denied\)"):
        wb.load_dataset(folder)


def test_names_that_are_not_text(folder):
    raw = os.fsencode(folder)
    os.rename(raw + b"/train/dark/0.png", raw + b"/train/dark/\xe9.png")
    for part in (b"/train", b"/test"):
        os.rename(raw + part + b"/dark", raw + part + b"/caf\xe9\x1b[31m")
    data = wb.load_dataset(folder)
    assert data.classes == ("bright", "caf\\udce9\\x1b[31m")
    assert len(data.train) == 24
    os.rename(raw, raw + b"\xe9")
    assert wb.load_dataset(f"{folder}\udce9").name == "pictures\\udce9"
    with pytest.raises(wb.UsageError, match="characters that are not text"):
        absolute(f"{folder}\udce9")


def test_sides_too_unequal_to_resize_are_refused(folder):
    Image.new("L", (1, 700_000)).save(folder / "train/dark/line.png")
    with pytest.raises(wb.UsageError, match=r"line.png' of 700000 x 1 pixels would become 16 x 11200000"):
        wb.load_dataset(folder, size=16)
    assert adapt(torch.zeros(1, 1, 700), 16, 1).shape == (1, 16, 16)


def test_images_too_small_to_be_loaded_again_are_refused_at_once(folder):
    for path in folder.rglob("*.png"):
        Image.new("L", (1, 1)).save(path)
    with pytest.raises(wb.UsageError, match="images of 1 x 1 pixels; pass size=4 or more"):
        wb.load_dataset(folder)
    assert wb.load_dataset(folder, size=4).shape == (1, 4, 4)


def test_a_shard_with_a_class_out_of_all_bounds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part in ("train", "test"):
        with tarfile.open(tmp_path / f"{part}.tar", "w") as tar:
            for extension, content in (("png", saved(GREY, format="PNG")), ("cls", b"99999999999")):
                member = tarfile.TarInfo(f"a.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    with pytest.raises(wb.UsageError, match=r"has the class b'99999999999'; write whole numbers from 0"):
        wb.load_dataset(f"{tmp_path}/t*.tar")


def test_a_damaged_index_of_a_shard_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part in ("train", "test"):
        with tarfile.open(tmp_path / f"{part}.tar", "w") as tar:
            for i in range(2):
                for extension, content in (("png", saved(GREY, format="PNG")), ("cls", str(i).encode())):
                    member = tarfile.TarInfo(f"{i}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    wb.load_dataset(f"{tmp_path}/t*.tar")
    kept = list(tmp_path.rglob("*.npy"))
    assert len(kept) == 2
    for file in kept:
        file.write_bytes(b"")
    assert len(wb.load_dataset(f"{tmp_path}/t*.tar").train) == 2
