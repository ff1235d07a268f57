"""Effective information in the activations (Def. 3.5, eqs 7, 8) and the diagnostics around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from waterbed.errors import UsageError, check_choice, check_number
from waterbed.information.estimate import Estimate, mean_estimate
from waterbed.information.input_fisher import InputFisher
from waterbed.information.weight_fisher import WeightFisher


def effective_information(
    model: nn.Module,
    inputs: Tensor,
    weight_fisher: WeightFisher,
    beta: float,
    prior_variance: float,
    input_variance: float = 1.0,
    *,
    form: str = "perturbation",
    input_entropy: float | None = None,
    noise: str = "auto",
) -> Estimate:
    """Information that z_n = f_{w+n}(x), n ~ N(0, Sigma*), carries about the input (Def. 3.5, eq. 7), in nats.

    - "perturbation": 1/2 E_x log det(I_d + s^2 Sigma_z^-1 J_x J_x^T), the information about a perturbation N(0, s^2 I)
      of x, s^2 = ``input_variance``. Finite for any dimensions, and the exact mutual information where the model is
      linear and the input Gaussian.
    - "eq8": H(x) - E_x 1/2 log((2 pi e)^k / |S(z|x)|), k = dim x, H(x) = ``input_entropy`` given by you. It is lower,
      tends to the truth as the noise vanishes, and is -infinity where fewer than k features move: that is an error.

    Args:
        model: a FeatureClassifier.
        inputs: (N, ...).
        weight_fisher: of the model, ideally with params="features" and on training data.
        beta, prior_variance: of Sigma* = beta (F + (beta / prior_variance) I)^-1.
        noise: "exact" or "diagonal" Sigma*; "auto" is exact where it fits into memory.
    """
    check_choice("form", form, ("perturbation", "eq8"))
    check_number("input_variance", input_variance, above=0)
    fisher = InputFisher(model, inputs, "weight-noise", 1.0, weight_fisher, beta, prior_variance, noise=noise)
    if form == "perturbation":
        values = fisher.of_roots(lambda m: _log_det_one_plus(m, input_variance))
        return mean_estimate(
            0.5 * values, "nats", f"effective information, {fisher.description}, s^2 = {input_variance:g}"
        )
    if input_entropy is None:
        raise UsageError("form='eq8' needs input_entropy=, the entropy H(x) of the inputs in nats")
    check_number("input_entropy", input_entropy)
    logdets = fisher.of_roots(_log_det_full)
    if not bool(torch.isfinite(logdets).all()):
        raise UsageError(
            f"form='eq8' is -infinity: S(z|x) is singular ({fisher.size} input values, at most "
            f"{int(fisher.moving_features().max())} moving features); pass form='perturbation'"
        )
    values = input_entropy - 0.5 * (fisher.size * math.log(2 * math.pi * math.e) - logdets)
    return mean_estimate(values, "nats", f"effective information, eq. 8, {fisher.description}")


def _log_det_one_plus(m: Tensor, scale: float) -> Tensor:
    """log det(I + scale M M^T) of each example."""
    eye = torch.eye(m.shape[1], dtype=m.dtype, device=m.device)
    return torch.linalg.slogdet(eye + scale * m @ m.mT).logabsdet


def _log_det_full(m: Tensor) -> Tensor:
    """log det(M^T M) of each example; -inf where M has not full column rank."""
    values = torch.linalg.svdvals(m)
    if m.shape[1] < m.shape[2]:
        return torch.full((len(m),), -math.inf, dtype=m.dtype, device=m.device)
    full = values[:, -1] > 1e-12 * values[:, 0]
    return torch.where(full, 2 * values.log().sum(1), -math.inf)
