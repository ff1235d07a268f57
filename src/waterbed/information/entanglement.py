"""How entangled the classes are in a representation (Fig. 6): numbers beside the t-SNE picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from waterbed.models.features import extract_features

NEIGHBOURS = 10


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

    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:num_samples]
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
