"""Accuracy on test images that were corrupted as cameras and codecs do, by the operations of torchvision and Pillow."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from waterbed.data.loading import stack
from waterbed.devices import seeded
from waterbed.models.classifier import FeatureClassifier
from waterbed.models.states import frozen
from waterbed_paper.experiments import load_data, opened
from waterbed_paper.graph import Place, experiment


def _pixelate(images: Tensor, factor: float) -> Tensor:
    side = [max(1, round(factor * length)) for length in images.shape[-2:]]
    return F.resize(F.resize(images, side), list(images.shape[-2:]), InterpolationMode.NEAREST)


def _jpeg(images: Tensor, quality: int) -> Tensor:
    """Through Pillow, as data sets are read: torchvision's own encoder is on its way out."""
    decoded = []
    for image in images:
        buffer = BytesIO()
        F.to_pil_image(image).save(buffer, "JPEG", quality=quality)
        decoded.append(F.pil_to_tensor(Image.open(buffer)))
    return torch.stack(decoded).to(images) / 255


# Families and grades after Hendrycks and Dietterich (2019), "Benchmarking neural network robustness to common
# corruptions and perturbations": three of their five grades for 32 x 32; name -> (operation, its grades).
CORRUPTIONS: dict[str, tuple[Callable[[Tensor, Any], Tensor], tuple[float, ...]]] = {
    "gaussian noise": (lambda x, sigma: F.gaussian_noise(x, sigma=sigma), (0.04, 0.06, 0.1)),
    "blur": (lambda x, sigma: F.gaussian_blur(x, 2 * int(4 * sigma) + 1, sigma), (0.5, 0.75, 1.0)),
    "brightness": (F.adjust_brightness, (1.2, 1.5, 2.0)),
    "contrast": (F.adjust_contrast, (0.75, 0.5, 0.3)),
    "pixelate": (_pixelate, (0.75, 0.6, 0.4)),
    "jpeg": (_jpeg, (80, 50, 20)),
}


@experiment(version=1)
def shift(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Accuracy [%] on clean test images, and on each corruption of them at each grade."""
    model, data = opened(place, config), load_data(place, config)
    images, labels = stack(data.test, min(config["images"], len(data.test)))
    with seeded(0, images.device):
        corrupted = {
            name: [accuracy_on(model, corrupt(images, grade).clamp(0, 1), labels) for grade in grades]
            for name, (corrupt, grades) in CORRUPTIONS.items()
        }
    return {"clean": accuracy_on(model, images, labels), "corrupted": corrupted, "n": len(images)}


def accuracy_on(model: FeatureClassifier, images: Tensor, labels: Tensor) -> float:
    """Percent of images that are classified as their label."""
    with frozen(model), torch.no_grad():
        right = [model(x).argmax(1) == y for x, y in zip(images.split(250), labels.split(250), strict=True)]
    return 100 * float(torch.cat(right).double().mean())
