"""The headline measures of a network, as ``waterbed measure`` and the demo report them."""

from __future__ import annotations

from typing import Any

from torch import nn

from waterbed.data.images import stack
from waterbed.engine import device_of
from waterbed.information.estimate import Estimate
from waterbed.information.input_fisher import InputFisher
from waterbed.information.weight_fisher import WeightFisher

QUANTITIES = {
    "input_fisher_trace": "tr F_z|x, label model: how fast the predicted distribution moves with the image",
    "input_fisher_lambda_max": "E lambda_1(S), label model: the same along the worst direction (Prop. 3.2)",
    "weight_fisher_trace": "tr F_w: information of the labels about the weights",
    "weight_rescaling_invariant_trace": "tr(D F_w D), D = diag(w): unchanged when layers are rescaled",
    "weight_log_variance": "mean of -log(F_ii + damping): log-variance of the weights (Fig. 4)",
}


def measure(
    model: nn.Module,
    data: Any,
    num_samples: int = 500,
    seed: int = 0,
    damping: float = 1e-8,
    progress: bool = False,
) -> dict[str, Estimate]:
    """The quantities of :data:`QUANTITIES`: about the input on test images, about the weights on training images.

    Args:
        model: logits (N, K) from images in [0, 1].
        data: with ``train`` and ``test``; ``num_samples`` of each are drawn with ``seed`` (fewer if there are fewer).
        damping: of the log-variance.
    """
    device = device_of(model)
    test, _ = stack(data.test, min(num_samples, len(data.test)), seed)
    train, _ = stack(data.train, min(num_samples, len(data.train)), seed)
    about_input = InputFisher(model, test.to(device))
    about_weights = WeightFisher(model, train.to(device), progress=progress)
    return {
        "input_fisher_trace": about_input.trace(),
        "input_fisher_lambda_max": about_input.lambda_max(),
        "weight_fisher_trace": about_weights.trace(),
        "weight_rescaling_invariant_trace": about_weights.rescaling_invariant_trace(),
        "weight_log_variance": about_weights.log_variance(damping),
    }
