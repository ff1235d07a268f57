"""Explorer: what several networks make of one image, as functions that the page of ``waterbed explore`` calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from waterbed.attacks.pgd import PGD
from waterbed.data.decoding import read_image
from waterbed.data.images import adapt
from waterbed.data.loading import stack
from waterbed.devices import device_of, seeded
from waterbed.errors import UsageError, check_choice, check_count
from waterbed.information.weight_fisher import WeightFisher
from waterbed.information.weight_noise import WeightNoise
from waterbed.inversion.invert import invert
from waterbed.models.features import extract_features
from waterbed.models.states import probe

STEPS_BETWEEN_IMAGES = 25  # of an inversion that is watched
FISHER_IMAGES = 100  # training images behind the weight noise


class Explorer:
    """The networks of one data set and some of its images.

    Args:
        models: name -> network, all for images of one shape.
        data: what they were trained on.
        num_images: test images to choose from, and training images among which the nearest are found.
        seed: of the choice of images, and of what is random in attacks and inversions.

    Raises:
        UsageError: networks for images of different shapes or for other classes than the data's, or no network.

    >>> import waterbed as wb
    >>> data = wb.load_dataset("digits").take(30, 10)
    >>> explorer = Explorer({"small": wb.create_model("resnet10", 10, width=2, in_channels=1)}, data, num_images=10)
    >>> explorer.predict(explorer.images[0])["small"].shape
    torch.Size([10])
    """

    def __init__(self, models: Mapping[str, nn.Module], data: Any, num_images: int = 300, seed: int = 0) -> None:
        check_count("num_images", num_images)
        if not models:
            raise UsageError("models is empty; pass one network or more")
        for name, model in models.items():
            shape = getattr(model, "input_shape", None)
            if shape is not None and tuple(shape) != tuple(data.shape):
                raise UsageError(
                    f"{name!r} takes images of {tuple(shape)}, and {data.name} has {data.shape}; leave it out"
                )
            known = probe(model, torch.zeros(1, *data.shape, device=device_of(model))).shape[1]
            if known != len(data.classes):
                raise UsageError(
                    f"{name!r} knows {known} classes, and {data.name} has {len(data.classes)}; leave it out"
                )
        self.models, self.data, self.seed = dict(models), data, seed
        self.classes = [str(name) for name in data.classes]
        self.images, self.labels = stack(data.test, min(num_images, len(data.test)), seed)
        self.train_images, self.train_labels = stack(data.train, min(num_images, len(data.train)), seed)
        # Computed when they are first asked for, and then kept.
        self.fisher, self.features, self.map = cache(self._fisher), cache(self._features), cache(self._map)

    def read(self, path: str | Path) -> Tensor:
        """A picture file of any size as an image (C, H, W) of the shape that the networks take.

        Raises:
            UsageError: it is not a picture.
        """
        channels, height, width = self.data.shape
        if height != width:
            raise UsageError(f"the networks take {height} x {width} images; pictures are only cropped to squares")
        return adapt(read_image(Path(path), channels), height, channels).float() / 255

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """Name of a network -> probabilities (K,) of the classes."""
        return {
            name: probe(model, image[None].to(device_of(model)))[0].softmax(0).cpu()
            for name, model in self.models.items()
        }

    def attack(self, name: str, image: Tensor, eps: float, norm: str, steps: int = 20) -> Tensor:
        """The image attacked by PGD away from the class that the network gives it; as it is at eps 0."""
        model = self._model(name)
        if eps == 0:
            return image
        x = image[None].to(device_of(model))
        with seeded(self.seed):
            return PGD(eps, norm, steps)(model, x, probe(model, x).argmax(1))[0].cpu()

    def descend(
        self, name: str, image: Tensor, mode: str = "plain", steps: int = 500, beta: float = 1e-6
    ) -> Iterator[tuple[int, float, Tensor]]:
        """An inversion as it goes: (steps so far, loss as a share of |z|^2, image), until the caller stops asking."""
        model = self._model(name)
        check_count("steps", steps)
        noise = None if mode == "plain" else WeightNoise(self.fisher(name), beta)
        found, rates = None, None
        for start in range(0, steps, STEPS_BETWEEN_IMAGES):
            result = invert(
                model,
                image[None].to(device_of(model)),
                mode,
                noise,
                min(STEPS_BETWEEN_IMAGES, steps - start),
                rates,
                "sgd",
                # One draw of the noise for the whole descent, or new ones in every part of it.
                self.seed + (start if mode == "effective" else 0),
                **({} if found is None else {"init": found}),
            )
            found, rates = result.images, result.lr
            loss = float((result.final_clean_losses / result.scale)[0])
            yield start + len(result.losses), loss, found[0].detach().cpu()

    def effective(
        self, name: str, image: Tensor, betas: Sequence[float], steps: int = 200
    ) -> Iterator[tuple[float, Tensor]]:
        """The effective image at each information level: (beta, image)."""
        for beta in betas:
            *_, (_, _, found) = self.descend(name, image, "effective", steps, beta)
            yield beta, found

    def nearest(self, name: str, image: Tensor, count: int = 8) -> list[tuple[int, float]]:
        """The training images with the nearest features: (position in ``train_images``, distance)."""
        z = self._extracted(name, image[None])
        distances = torch.cdist(z.double(), self.features(name).double())[0]
        order = distances.argsort()[:count].tolist()
        return [(i, float(distances[i])) for i in order]

    def at(self, name: str, x: float, y: float) -> int:
        """The position in ``images`` of the one that lies nearest to a point of the map."""
        return int(np.square(self.map(name) - (x, y)).sum(1).argmin())

    def _model(self, name: str) -> nn.Module:
        check_choice("name", name, self.models)
        return self.models[name]

    def _fisher(self, name: str) -> WeightFisher:
        images = self.train_images[:FISHER_IMAGES]
        return WeightFisher(self._model(name), images.to(device_of(self._model(name))))

    def _features(self, name: str) -> Tensor:
        """Of the training images, (N, d)."""
        return self._extracted(name, self.train_images)

    def _map(self, name: str) -> np.ndarray:
        """t-SNE of the test images' features, (N, 2), in the unit square."""
        from sklearn.manifold import TSNE

        z = self._extracted(name, self.images).numpy()
        perplexity = max(1, min(30, len(z) // 4))
        placed = TSNE(init="pca", random_state=self.seed, perplexity=perplexity).fit_transform(z.astype("float32"))
        return (placed - placed.min(0)) / np.maximum(np.ptp(placed, axis=0), 1e-12)

    def _extracted(self, name: str, images: Tensor) -> Tensor:
        features, _ = extract_features(self._model(name), [(image, 0) for image in images])
        return features.flatten(1)
