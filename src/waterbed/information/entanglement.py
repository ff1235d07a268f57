"""How entangled the classes are in a representation (Fig. 6): numbers beside the t-SNE picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from waterbed.devices import seeded_generator
from waterbed.errors import UsageError
from waterbed.information.estimate import GROUPS, SAMPLE_SIZE, Estimate, jackknife_error
from waterbed.information.geometry import check_features
from waterbed.models.features import extract_features

NEIGHBOURS = 10
CHUNK_VALUES = 2**24  # distances held at a time


def soft_nearest_neighbour_loss(features: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """-log of the share of an example's neighbours that are of its class, weighted by exp(-distance^2 / temperature),
    for each example (N,), in nats: the higher, the more entangled.

    Frosst et al. (2019), "Analyzing and improving representations with the soft nearest neighbor loss", eq. 1. Features
    (N, d) are centred and divided by their root mean square distance, so that the loss does not depend on their scale.

    >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    >>> apart = soft_nearest_neighbour_loss(x, torch.tensor([0, 0, 1, 1])).mean()
    >>> mixed = soft_nearest_neighbour_loss(x, torch.tensor([0, 1, 0, 1])).mean()
    >>> bool(apart < mixed)
    True
    """
    features = features.double()
    distances = torch.cdist(features, features).square()
    distances = distances / distances.mean() / temperature
    weights = -distances.fill_diagonal_(torch.inf)
    same = labels[:, None] == labels[None, :]
    return weights.logsumexp(1) - weights.masked_fill(~same, -torch.inf).logsumexp(1)


def soft_nearest_neighbours(features: Tensor, labels: Tensor, temperature: float = 1.0) -> Estimate:
    """Mean of :func:`soft_nearest_neighbour_loss` with its standard error, by batches: memory of a copy of the features
    and 384 MiB, time N^2 d.

    Images without another of their class have no loss and are left out. The loss depends on N: compare at one N. As
    every example is also a neighbour of the others, the error is the jackknife's over groups of examples, at the scale
    of the distances of the whole sample.

    >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    >>> y = torch.tensor([0, 0, 1, 1])
    >>> e = soft_nearest_neighbours(x, y)
    >>> abs(e.value - float(soft_nearest_neighbour_loss(x, y).mean())) < 1e-12
    True
    """
    features = check_features(features)
    labels = labels.to(features.device)
    n = len(features)
    groups = min(n, GROUPS)
    group = torch.arange(n, device=features.device) % groups
    members = torch.nn.functional.one_hot(group, groups).double()
    centred = features - features.mean(0)
    scale = 2 * float(centred.square().sum()) / n * temperature
    if scale == 0:
        raise UsageError("features are the same for all images; pass others")
    losses, sums = [], features.new_zeros(groups)
    counts = features.new_zeros(groups)
    for part in torch.arange(n, device=features.device).split(max(1, CHUNK_VALUES // n)):
        weights = (-torch.cdist(features[part], features).square() / scale).exp()
        weights[torch.arange(len(part)), part] = 0
        every = weights @ members
        same = weights.mul_(labels[part, None] == labels) @ members
        whole = every.sum(1).log() - same.sum(1).log()
        losses.append(whole)
        without = (every.sum(1, keepdim=True) - every).log() - (same.sum(1, keepdim=True) - same).log()
        valid = without.isfinite() & (members[part] == 0)
        sums += without.where(valid, 0.0).sum(0)
        counts += valid.sum(0)
    losses = torch.cat(losses)
    losses = losses[losses.isfinite()]
    if len(losses) == 0:
        raise UsageError("labels have no two images of one class; pass more images")
    error = float(jackknife_error(sums / counts))
    method = f"soft nearest neighbours, temperature {temperature:g}"
    return Estimate(float(losses.mean()), error, "nats", n, method, target=SAMPLE_SIZE)


def entanglement(model: nn.Module, data: Any, num_samples: int, seed: int = 0) -> dict[str, Any]:
    """Soft nearest neighbour loss, silhouette, accuracy of ten nearest neighbours, and t-SNE coordinates of the
    features of test images.

    Args:
        num_samples: of the test images, drawn with ``seed``.
    """
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    order = torch.randperm(len(data.test), generator=seeded_generator(seed))[:num_samples]
    features, labels = extract_features(model, Subset(data.test, order.tolist()))
    losses = soft_nearest_neighbour_loss(features, labels)
    losses = losses[losses.isfinite()]  # a class with one image has no neighbour of its own
    z, y = features.double().numpy(), labels.numpy()
    neighbours = cross_val_score(KNeighborsClassifier(NEIGHBOURS), z, y, cv=KFold(3))
    embedded = TSNE(init="pca", random_state=seed, perplexity=min(30, len(z) // 4)).fit_transform(z.astype("float32"))
    return {
        "soft_nearest_neighbour_loss": {
            "value": float(losses.mean()),
            "stderr": float(losses.std() / len(losses) ** 0.5),
        },
        "silhouette": float(silhouette_score(z, y)),
        "neighbours": 100 * float(neighbours.mean()),
        "t_sne": [[round(float(v), 2) for v in row] for row in embedded],
        "labels": y.tolist(),
        "n": len(y),
    }
