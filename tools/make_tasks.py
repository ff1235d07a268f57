"""Make the further tasks of the paper's Figs 3, 7 and 8 beside the data sets: letters, and tasks of coarser classes.

Usage: ``python tools/make_tasks.py DATA`` where DATA holds cifar100, caltech101, gtsrb and omniglot as folders.

``letters`` shows the Latin letters of the fonts of this machine, one class a letter (capital and small), split by
family, as notMNIST did. The others are hard links to the images of a set, whose classes are joined: variants of that
set, not further data. A folder that exists is left as it is.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from fontTools.ttLib import TTCollection, TTFont, TTLibError
from PIL import Image, ImageChops, ImageDraw, ImageFont

SIDE, MARGIN = 32, 3
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NOT_LATIN = ("emoji", "symbol", "math", "dingbat", "ornament", "initial", "icon", "music", "braille", "barcode")

CIFAR100 = """
aquatic_mammals: beaver dolphin otter seal whale
fish: aquarium_fish flatfish ray shark trout
flowers: orchid poppy rose sunflower tulip
food_containers: bottle bowl can cup plate
fruit_and_vegetables: apple mushroom orange pear sweet_pepper
household_electrical_devices: clock keyboard lamp telephone television
household_furniture: bed chair couch table wardrobe
insects: bee beetle butterfly caterpillar cockroach
large_carnivores: bear leopard lion tiger wolf
large_man-made_outdoor_things: bridge castle house road skyscraper
large_natural_outdoor_scenes: cloud forest mountain plain sea
large_omnivores_and_herbivores: camel cattle chimpanzee elephant kangaroo
medium-sized_mammals: fox porcupine possum raccoon skunk
non-insect_invertebrates: crab lobster snail spider worm
people: baby boy girl man woman
reptiles: crocodile dinosaur lizard snake turtle
small_mammals: hamster mouse rabbit shrew squirrel
trees: maple_tree oak_tree palm_tree pine_tree willow_tree
vehicles_1: bicycle bus motorcycle pickup_truck train
vehicles_2: lawn_mower rocket streetcar tank tractor
"""
CALTECH101 = """
birds: emu flamingo flamingo_head ibis pigeon rooster
buildings_and_places: minaret pagoda pyramid
faces_and_figures: Faces Faces_easy buddha garfield snoopy
food_and_plants: bonsai joshua_tree lotus pizza strawberry sunflower water_lilly
furniture: ceiling_fan chair chandelier lamp menorah windsor_chair
instruments: accordion bass electric_guitar euphonium gramophone grand_piano mandolin metronome saxophone
insects_and_arachnids: ant butterfly dragonfly mayfly scorpion tick
mammals: Leopards beaver cougar_body cougar_face dalmatian elephant gerenuk hedgehog kangaroo llama okapi panda platypus rhino wild_cat
objects: anchor barrel binocular brain camera cannon cellphone cup dollar_bill ewer headphone inline_skate laptop revolver scissors soccer_ball stapler stop_sign umbrella watch wheelchair wrench yin_yang
reptiles_and_extinct: brontosaurus crocodile crocodile_head hawksbill stegosaurus trilobite
sea_animals: crab crayfish dolphin lobster nautilus octopus sea_horse starfish
vehicles: Motorbikes airplanes car_side ferry helicopter ketch schooner
"""  # noqa: E501
GTSRB = """
danger: 11 18 19 20 21 22 23 24 25 26 27 28 29 30 31
end_of_restriction: 06 32 41 42
mandatory: 33 34 35 36 37 38 39 40
prohibitory: 00 01 02 03 04 05 07 08 09 10 15 16
right_of_way: 12 13 14 17
"""


def groups(table: str) -> Callable[[str], str]:
    """Class -> group, of lines "group: class class". The first line that names a class decides."""
    found: dict[str, str] = {}
    for line in table.strip().splitlines():
        group, _, names = line.partition(": ")
        for name in names.split():
            found.setdefault(name, group)
    return found.__getitem__


VARIANTS = {
    "cifar100-superclasses": ("cifar100", groups(CIFAR100)),
    "caltech101-groups": ("caltech101", groups(CALTECH101)),
    "gtsrb-kinds": ("gtsrb", groups(GTSRB)),
    "omniglot-alphabets": ("omniglot", lambda name: name.rpartition("-")[0]),
}


def join_classes(data: Path, name: str, of: str, group: Callable[[str], str]) -> int:
    """Link the images of ``of`` below the groups of their classes; returns how many."""
    links = 0
    for part in ("train", "test"):
        for image in sorted((data / of / part).glob("*/*")):
            link = data / name / part / group(image.parent.name) / f"{image.parent.name}-{image.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(image)
            links += 1
    return links


def families(folders: list[Path]) -> dict[str, list[Path]]:
    """Family -> its fonts that have every letter, capital and small."""
    found: dict[str, list[Path]] = {}
    for file in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in (".ttf", ".otf")):
        try:
            font = TTFont(file)
        except (TTLibError, OSError):
            continue
        name = font["name"].getBestFamilyName() or file.stem
        has = font.getBestCmap() or {}
        letters = all(ord(letter) in has for letter in LETTERS + LETTERS.lower())
        if letters and not isinstance(font, TTCollection) and not any(word in name.lower() for word in NOT_LATIN):
            found.setdefault(re.split(r"[ -]", name.lower())[0], []).append(file)
    return found


def draw(font: Path, letter: str) -> Image.Image | None:
    """A letter, white on black, as large as fits; None where the font draws nothing."""
    canvas = Image.new("L", (256, 256))
    ImageDraw.Draw(canvas).text((64, 32), letter, 255, ImageFont.truetype(font, 128))
    box = canvas.getbbox()
    if box is None:
        return None
    glyph = canvas.crop(box)
    scale = (SIDE - 2 * MARGIN) / max(glyph.size)
    glyph = glyph.resize([max(1, round(scale * side)) for side in glyph.size], Image.Resampling.LANCZOS)
    picture = Image.new("L", (SIDE, SIDE))
    picture.paste(glyph, ((SIDE - glyph.width) // 2, (SIDE - glyph.height) // 2))
    return picture


def make_letters(data: Path, folders: list[Path]) -> int:
    """One image a font and letter; a quarter of the families are for the test. Returns how many images."""
    images = 0
    for family, fonts in families(folders).items():
        part = "test" if hashlib.sha256(family.encode()).digest()[0] < 64 else "train"
        for letter in LETTERS + LETTERS.lower():
            drawn: list[Image.Image] = []
            for font in fonts:
                picture = draw(font, letter)
                # A family's fonts may share a glyph: the same image twice says nothing new.
                if picture is None or any(ImageChops.difference(picture, other).getbbox() is None for other in drawn):
                    continue
                drawn.append(picture)
                case = "capital" if letter.isupper() else "small"
                file = data / "letters" / part / letter.upper() / f"{family}-{font.stem}-{case}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                picture.save(file)
                images += 1
    return images


def main(data: Path, folders: list[Path]) -> None:
    """Make every task whose folder is not there."""
    if not (data / "letters").exists():
        print("letters:", make_letters(data, folders), "images")
    for name, (of, group) in VARIANTS.items():
        if (data / of).is_dir() and not (data / name).exists():
            print(f"{name}:", join_classes(data, name, of, group), "images of", of)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:] or ["/usr/share/fonts"]])
