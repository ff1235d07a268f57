"""The catalogue of named data sets: official splits, customary metric, licence, and where to get each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

METRICS = ("top-1", "mean per-class")


@dataclass(frozen=True)
class Source:
    """One data set of the catalogue. The sizes are those of a complete copy; a copy of any other size is refused.

    Attributes:
        metric: the accuracy customarily reported, one of :data:`METRICS`.
        split: how training and test images are chosen.
        flip: whether a mirrored image keeps its class.
        size: default side in pixels for sets of mixed image sizes (short side resized, then a centre crop).
        torchvision: name of the torchvision class that downloads it.
        folder: where the set unpacks to, below the root.
        marker: a file or folder inside ``folder`` that identifies the set.
        obtain: instructions, with ``<root>`` for the root.

    >>> CATALOG["digits"].classes, CATALOG["oxford-flowers"].metric
    (10, 'mean per-class')
    """

    name: str
    description: str
    classes: int
    train_size: int
    test_size: int
    image: str
    licence: str
    obtain: str
    metric: str = "top-1"
    split: str = "official"
    flip: bool = False
    size: int | None = None
    torchvision: str | None = None
    folder: str = ""
    marker: str = ""

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return 1 if self.image.endswith("grey") else 3

    def instructions(self, root: Path) -> str:
        """How to get the set, with ``root`` filled in."""
        return self.obtain.replace("<root>", str(root))


_DOWNLOAD = "download=True fetches it with torchvision"
_PHOTOGRAPHS = "photographs, RGB"

# Table 4 of the paper has twelve of these sets; every row gives the official counts.
CATALOG: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="fashion-mini",
            description="clothes; the first 1,000 / 200 images of each class of Fashion-MNIST",
            classes=10,
            train_size=10_000,
            test_size=2_000,
            image="28 x 28 grey",
            licence="MIT",
            obtain="embedded",
            split="a subset of the official one",
            flip=True,
        ),
        Source(
            name="digits",
            description="handwritten digits of scikit-learn",
            classes=10,
            train_size=1_437,
            test_size=360,
            image="8 x 8 grey",
            licence="CC BY 4.0",
            obtain="embedded",
            split="stratified, with a fixed seed; there is no official split",
        ),
        Source(
            name="imagenet",
            description="objects; ILSVRC 2012, classes named and ordered by WordNet id as in torchvision's models",
            classes=1000,
            train_size=1_281_167,
            test_size=50_000,
            image=_PHOTOGRAPHS,
            licence="non-commercial",
            obtain="register at https://image-net.org and put ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
            "ILSVRC2012_devkit_t12.tar.gz in <root>/imagenet; download=True unpacks them with torchvision",
            split="official; the validation images are the test images",
            flip=True,
            size=224,
            torchvision="ImageNet",
            folder="imagenet",
            marker="val",
        ),
        Source(
            name="cifar10",
            description="general objects",
            classes=10,
            train_size=50_000,
            test_size=10_000,
            image="32 x 32 RGB",
            licence="none stated",
            obtain=_DOWNLOAD,
            flip=True,
            torchvision="CIFAR10",
            folder="cifar-10-batches-py",
            marker="test_batch",
        ),
        Source(
            name="cifar100",
            description="general objects",
            classes=100,
            train_size=50_000,
            test_size=10_000,
            image="32 x 32 RGB",
            licence="none stated",
            obtain=_DOWNLOAD,
            flip=True,
            torchvision="CIFAR100",
            folder="cifar-100-python",
            marker="test",
        ),
        Source(
            name="mnist",
            description="handwritten digits",
            classes=10,
            train_size=60_000,
            test_size=10_000,
            image="28 x 28 grey",
            licence="CC BY-SA 3.0",
            obtain=_DOWNLOAD,
            torchvision="MNIST",
            folder="MNIST/raw",
            marker="t10k-labels-idx1-ubyte",
        ),
        Source(
            name="fashion-mnist",
            description="clothes",
            classes=10,
            train_size=60_000,
            test_size=10_000,
            image="28 x 28 grey",
            licence="MIT",
            obtain=f"{_DOWNLOAD}; on Debian, the package dataset-fashion-mnist",
            flip=True,
            torchvision="FashionMNIST",
            folder="FashionMNIST/raw",
            marker="t10k-labels-idx1-ubyte",
        ),
        Source(
            name="svhn",
            description="house numbers",
            classes=10,
            train_size=73_257,
            test_size=26_032,
            image="32 x 32 RGB",
            licence="non-commercial",
            obtain=_DOWNLOAD,
            torchvision="SVHN",
            marker="test_32x32.mat",
        ),
        Source(
            name="oxford-flowers",
            description="Oxford Flowers-102: species of flowers",
            classes=102,
            train_size=2_040,
            test_size=6_149,
            image=_PHOTOGRAPHS,
            licence="none stated",
            obtain=_DOWNLOAD,
            metric="mean per-class",
            split="official training and validation images together (10 + 10 per class), as in the paper's Table 4",
            flip=True,
            size=224,
            torchvision="Flowers102",
            folder="flowers-102",
            marker="setid.mat",
        ),
        Source(
            name="cub-200-2011",
            description="Caltech-UCSD Birds-200-2011: species of birds",
            classes=200,
            train_size=5_994,
            test_size=5_794,
            image=_PHOTOGRAPHS,
            licence="non-commercial",
            obtain="unpack CUB_200_2011.tgz of https://data.caltech.edu/records/65de6-vp158 in <root>",
            flip=True,
            size=224,
            folder="CUB_200_2011",
            marker="train_test_split.txt",
        ),
        Source(
            name="fgvc-aircraft",
            description="FGVC-Aircraft (2013b): variants of aircraft",
            classes=100,
            train_size=6_667,
            test_size=3_333,
            image=_PHOTOGRAPHS,
            licence="non-commercial",
            obtain=_DOWNLOAD,
            metric="mean per-class",
            split="official training and validation images together, as in the paper's Table 4",
            flip=True,
            size=224,
            torchvision="FGVCAircraft",
            folder="fgvc-aircraft-2013b",
            marker="data/images_variant_test.txt",
        ),
        Source(
            name="stanford-cars",
            description="makes, models and years of cars",
            classes=196,
            train_size=8_144,
            test_size=8_041,
            image=_PHOTOGRAPHS,
            licence="non-commercial",
            obtain="the original address is gone: from a mirror, put cars_train/, cars_test/, devkit/ and "
            "cars_test_annos_withlabels.mat in <root>/stanford_cars",
            flip=True,
            size=224,
            folder="stanford_cars",
            marker="devkit/cars_train_annos.mat",
        ),
        Source(
            name="stanford-dogs",
            description="breeds of dogs; the photographs are ImageNet's",
            classes=120,
            train_size=12_000,
            test_size=8_580,
            image=_PHOTOGRAPHS,
            licence="non-commercial",
            obtain="unpack images.tar and lists.tar of http://vision.stanford.edu/aditya86/ImageNetDogs in "
            "<root>/stanford-dogs",
            flip=True,
            size=224,
            folder="StanfordDogs",
            marker="train_list.mat",
        ),
        Source(
            name="mit-indoor",
            description="MIT Indoor-67: scenes",
            classes=67,
            train_size=5_360,
            test_size=1_340,
            image=_PHOTOGRAPHS,
            licence="none stated",
            obtain="unpack indoorCVPR_09.tar of https://web.mit.edu/torralba/www/indoor.html in <root>/mit-indoor and "
            "put TrainImages.txt and TestImages.txt beside its Images/",
            metric="mean per-class",
            flip=True,
            size=224,
            folder="indoorCVPR_09",
            marker="TrainImages.txt",
        ),
        Source(
            name="cinic-imagenet",
            description="CINIC-10 without its images from CIFAR-10 (the paper's Table 5): the classes of CIFAR-10",
            classes=10,
            train_size=70_000,
            test_size=70_000,
            image="32 x 32 RGB",
            licence="CC BY 4.0",
            obtain="unpack CINIC-10.tar.gz of https://datashare.ed.ac.uk/handle/10283/3192 in <root>/cinic-imagenet",
            split="the official training and test images that come from ImageNet; the validation images are left out",
            flip=True,
            size=32,
            folder="CINIC-10",
            marker="train",
        ),
        Source(
            name="caltech101",
            description="Caltech-101: objects, without the background class",
            classes=101,
            train_size=3_030,
            test_size=5_647,
            image=_PHOTOGRAPHS,
            licence="CC BY 4.0",
            obtain=_DOWNLOAD,
            metric="mean per-class",
            split="30 training images per class, drawn by the SHA-256 of class/file, the rest for testing; there is no "
            "official split",
            flip=True,
            size=224,
            torchvision="Caltech101",
            folder="caltech101",
            marker="101_ObjectCategories",
        ),
        Source(
            name="gtsrb",
            description="German traffic signs",
            classes=43,
            train_size=26_640,
            test_size=12_630,
            image="15 to 250 pixels, RGB",
            licence="none stated",
            obtain=_DOWNLOAD,
            split="torchvision's: training images of the first round (the final round has 39,209), test images of "
            "the final one",
            size=32,
            torchvision="GTSRB",
            folder="gtsrb",
            marker="GT-final_test.csv",
        ),
        Source(
            name="tiny-imagenet-100",
            description="objects; every second class of Tiny-ImageNet (200 classes, by WordNet id)",
            classes=100,
            train_size=10_000,
            test_size=2_500,
            image="64 x 64 RGB",
            licence="non-commercial",
            obtain="unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip and put 100 training images of "
            "every second class in <root>/tiny-imagenet-100/train/<class>, 25 others in "
            "<root>/tiny-imagenet-100/test/<class>",
            split="100 and 25 of the training images per class; there is no official split",
            flip=True,
            size=64,
            folder="tiny-imagenet-100",
            marker="train",
        ),
        Source(
            name="omniglot",
            description="Omniglot: handwritten characters of eight alphabets",
            classes=242,
            train_size=3_630,
            test_size=1_210,
            image="32 x 32 grey",
            licence="MIT",
            obtain="of https://github.com/brendenlake/omniglot, put 15 drawings of every character, inverted, in "
            "<root>/omniglot/train/<character>, the 5 of other people in <root>/omniglot/test/<character>",
            split="by who drew (15 and 5 people per character); there is no official split of this task",
            size=32,
            folder="omniglot",
            marker="train",
        ),
    )
}
