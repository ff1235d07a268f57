"""How a representation fills its space and how its classes lie in it: effective rank and neural collapse."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from waterbed.errors import UsageError, UsageTypeError
from waterbed.information.estimate import SAMPLE_SIZE, Estimate, group_jackknife

CHUNK = 4096  # examples whose distances from all class means are held at a time
COLLAPSE = {
    "neural_collapse_1": "tr(Sigma_W Sigma_B^+) / C",
    "neural_collapse_2_norms": "std / mean of |class mean|",
    "neural_collapse_2_angles": "mean |cos + 1 / (C - 1)|",
    "neural_collapse_3": "squared distance of W and M, each of norm 1",
    "neural_collapse_4": "decision is not that of the nearest class mean",
}


def effective_rank(features: Tensor) -> Estimate:
    """RankMe: exp of the entropy of the singular values of the features (N, d), each over their sum.

    Garrido et al. (2023), "RankMe: assessing the downstream performance of pretrained self-supervised representations
    by their rank", eq. 3, without its 1e-7: from 1 (all features on one line) to min(N, d). It grows with N, so
    compare at one N. The features are not centred, as there. Error: jackknife over groups of examples. Float64; memory
    of a copy of the features and min(N, d)^2, time 51 N min(N, d)^2.

    Raises:
        UsageError: features that are not (N, d), not finite, or all 0.

    >>> effective_rank(torch.eye(4)).value
    4.0
    >>> round(effective_rank(torch.ones(4, 3)).value, 6)
    1.0
    """
    features = check_features(features)
    if not bool(features.any()):
        raise UsageError("features are all 0 and have no rank; pass others")
    value, error = group_jackknife(_effective_rank, features)
    method = "exp of the entropy of the singular values"
    return Estimate(float(value), float(error), "dimensions", len(features), method, target=SAMPLE_SIZE)


def _effective_rank(features: Tensor) -> Tensor:
    gram = features.mT @ features if len(features) >= features.shape[1] else features @ features.mT
    values = torch.linalg.eigvalsh(gram).clamp_min(0)
    values = values.masked_fill(values < 1e-14 * values[-1], 0).sqrt()  # rounding of the squares
    return torch.special.entr(values / values.sum()).sum().exp()


def neural_collapse(features: Tensor, labels: Tensor, weight: Tensor, decisions: Tensor) -> dict[str, Estimate]:
    """NC1 to NC4 of Papyan, Han and Donoho (2020), "Prevalence of neural collapse during the terminal phase of deep
    learning training", each 0 where it is complete; by name.

    With mu_c the class means of the features, m_c = mu_c - mean of mu, C classes and M the (C, d) of all m_c:

    - ``neural_collapse_1``: tr(Sigma_W Sigma_B^+) / C, variability within the classes beside that between them.
    - ``neural_collapse_2_norms``: standard deviation of |m_c| over its mean.
    - ``neural_collapse_2_angles``: mean over pairs of |cos(m_c, m_c') + 1 / (C - 1)|: distance from a simplex.
    - ``neural_collapse_3``: squared distance between the weights W of the linear head and M, each over its
      Frobenius norm.
    - ``neural_collapse_4``: share of examples [%] whose decision is not the class of the nearest mu_c.

    Papyan et al. take training images, of balanced classes. All but the last two depend on N: class means of few images
    are noisy. Error: jackknife over groups of examples. Float64; memory of two copies of the features, time
    102 N d C.

    Args:
        features: (N, d); labels: (N,), of two classes or more. Classes without an example are left out.
        weight: (K, d) of the head, rows by label.
        decisions: (N,), the label that the network predicts.

    >>> means = torch.eye(3) - 1 / 3
    >>> labels = torch.arange(30) % 3
    >>> [round(e.value, 6) for e in neural_collapse(means[labels], labels, means, labels).values()]
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    features = check_features(features)
    for name, values in (("labels", labels), ("decisions", decisions)):
        if values.shape != (len(features),) or values.is_floating_point():
            raise UsageTypeError(f"{name} must be an integer tensor ({len(features)},), not {tuple(values.shape)}")
    if weight.ndim != 2 or weight.shape[1] != features.shape[1] or len(weight) <= int(labels.max()):
        raise UsageError(
            f"weight has shape {tuple(weight.shape)}; pass that of a head, ({int(labels.max()) + 1} or more, "
            f"{features.shape[1]})"
        )
    if len(labels.unique()) < 2:
        raise UsageError("labels have one class; neural collapse is about two or more")
    weight = weight.detach().to(features)

    def statistic(features: Tensor, labels: Tensor, decisions: Tensor) -> Tensor:
        return _collapse(features, labels, weight, decisions)

    values, errors = group_jackknife(
        statistic, features, labels.to(features.device), decisions.to(features.device).long()
    )
    results = zip(COLLAPSE.items(), values.tolist(), errors.tolist(), strict=True)
    return {
        name: Estimate(
            value, error, "%" if name == "neural_collapse_4" else "1", len(features), method, target=SAMPLE_SIZE
        )
        for (name, method), value, error in results
    }


def _collapse(features: Tensor, labels: Tensor, weight: Tensor, decisions: Tensor) -> Tensor:
    classes, index, counts = labels.unique(return_inverse=True, return_counts=True)
    c = len(classes)
    if c < 2:  # a group held all examples of the other class
        return features.new_full((len(COLLAPSE),), torch.nan)
    sums = features.new_zeros(c, features.shape[1]).index_add_(0, index, features)
    means = sums / counts[:, None]
    centred = means - means.mean(0)
    _, s, basis = torch.linalg.svd(centred / c**0.5, full_matrices=False)
    kept = s > 1e-10 * s[0]
    whitening = basis[kept].mT / s[kept]
    within, nearest = features.new_zeros(()), []
    for z, own in _chunks(features, index):
        within += ((z - means[own]) @ whitening).square().sum()
        nearest.append((means.square().sum(1) - 2 * z @ means.mT).argmin(1))
    norms = centred.norm(dim=1)
    cosines = (centred @ centred.mT) / norms.clamp_min(1e-300).outer(norms.clamp_min(1e-300))
    pairs = ~torch.eye(c, dtype=torch.bool, device=features.device)
    heads = weight[classes]
    return torch.stack(
        [
            within / len(features) / c,
            norms.std(correction=0) / norms.mean(),
            (cosines[pairs] + 1 / (c - 1)).abs().mean(),
            (heads / heads.norm() - centred / centred.norm()).square().sum(),
            100 * (classes[torch.cat(nearest)] != decisions).double().mean(),
        ]
    )


def _chunks(features: Tensor, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(features.split(CHUNK), index.split(CHUNK), strict=True)


def check_features(features: Tensor, name: str = "features") -> Tensor:
    """The features in float64; raise unless they are finite and (N, d)."""
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) == 0:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise UsageTypeError(f"{name} must be a tensor (N, d), not {got}; wb.extract_features gives one")
    features = features.detach().double()
    if not bool(torch.isfinite(features).all()):
        raise UsageError(f"{name} has values that are NaN or infinite; remove them")
    return features
