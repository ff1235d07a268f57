"""Lemma 5.1 in its two true forms: the information in the labels is bounded by that in the features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from waterbed.errors import UsageError
from waterbed.information.estimate import Estimate, mean_estimate
from waterbed.information.input_fisher import InputFisher
from waterbed.information.per_example import input_rows
from waterbed.information.representation_noise import identity
from waterbed.models.states import frozen


@dataclass(frozen=True)
class FisherBounds:
    """Lemma 5.1 in its two true forms; see :func:`fisher_bounds`.

    Attributes:
        labels: tr F_{y|x} of the predicted label.
        labels_bound: 1/2 |A|_2^2 tr F_{z|x} (gaussian, sigma = 1); never below ``labels``.
        noisy_logits: tr of F_y = J^T A^T (A A^T)^+ A J for y = A (z + noise) + b.
        features: tr F_{z|x} = tr J^T J; never below ``noisy_logits``.
        unit_noise: tr J^T A^T A J, for y = A z + b with unit noise on y: above ``features`` where |A| stretches the
            directions that the input moves.
    """

    labels: Estimate
    labels_bound: Estimate
    noisy_logits: Estimate
    features: Estimate
    unit_noise: Estimate


def fisher_bounds(model: nn.Module, inputs: Tensor, chunk_size: int = 64) -> FisherBounds:
    """Can a linear head on robust features be fragile? Lemma 5.1, as it is true, with its numbers for this model.

    The lemma as printed (tr F_y <= tr F_z) is false if z and y = A z + b get unit noise each: |A| > 1 breaks it. What
    holds is (a) for y = A (z + noise) + b, F_y <= F_z in the Loewner order, and (b) for softmax labels,
    tr F_{y|x} <= 1/2 |A|_2^2 tr F_{z|x}. Both sides of both are returned, together with the
    counterexample to the printed form.

    Args:
        model: a FeatureClassifier, such as a fine-tuned one.
        inputs: (N, ...).

    Raises:
        UsageError: a head that is not linear, of which the lemma says nothing.
    """
    if not isinstance(getattr(model, "head", None), nn.Linear):
        head = type(getattr(model, "head", None)).__name__
        raise UsageError(
            f"model.head is {head}, and Lemma 5.1 is about a linear one; pass wb.wrap(model), or another model"
        )
    features = InputFisher(model, inputs, "gaussian", method="exact")
    inputs = features.inputs
    a = model.head.weight.detach().double()
    projector = torch.linalg.pinv(a) @ a
    noisy, full, unit_noise = [], [], []
    with frozen(model):
        for x in inputs.split(chunk_size):
            j = input_rows(model.features, x, identity).double().flatten(2)
            full.append(j.square().sum((1, 2)))
            noisy.append((projector @ j).square().sum((1, 2)))
            unit_noise.append((a @ j).square().sum((1, 2)))
    bound = 0.5 * torch.linalg.matrix_norm(a, 2).square() * torch.cat(full)
    unit = "nats/pixel^2"
    return FisherBounds(
        labels=InputFisher(model, inputs, "label", method="exact").trace(),
        labels_bound=mean_estimate(bound, unit, "1/2 |A|^2 tr F_z, exact"),
        noisy_logits=mean_estimate(torch.cat(noisy), unit, "y = A (z + noise) + b, exact"),
        features=mean_estimate(torch.cat(full), unit, features.description),
        unit_noise=mean_estimate(torch.cat(unit_noise), unit, "y = A z + b + noise, exact"),
    )
