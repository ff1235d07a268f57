"""What is known by name: sizes, classes, licence and where each data set comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One data set of the catalogue. ``flip``: a mirrored image keeps its class."""

    name: str
    description: str
    classes: int
    train_size: int
    test_size: int
    image: str
    licence: str
    obtain: str
    flip: bool = False
    torchvision: str | None = None


_DOWNLOAD = "download=True fetches it with torchvision"

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
            flip=True,
        ),
        Source(
            name="digits",
            description="handwritten digits of scikit-learn, stratified split with a fixed seed",
            classes=10,
            train_size=1_437,
            test_size=360,
            image="8 x 8 grey",
            licence="CC BY 4.0",
            obtain="embedded",
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
        ),
        Source(
            name="svhn",
            description="house numbers",
            classes=10,
            train_size=73_257,
            test_size=26_032,
            image="32 x 32 RGB",
            licence="non-commercial use",
            obtain=_DOWNLOAD,
            torchvision="SVHN",
        ),
    )
}
