"""Information in the weights about the data themselves, I(w; D) (eq. 11), for a few coordinates of D."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev

from waterbed.errors import UsageError, check_choice, check_number
from waterbed.information.estimate import Estimate
from waterbed.models.states import evaluating

LARGEST_WEIGHTS = 2000
LARGEST_COORDINATES = 2000
Loss = Callable[[Tensor, Tensor], Tensor]


def dataset_influence(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    examples: Sequence[int],
    *,
    of: str = "inputs",
    weight_decay: float = 0.0,
    loss: Loss = F.cross_entropy,
) -> tuple[Tensor, Tensor]:
    """dw/dD = -H^-1 d2L/dw dD: the derivative of the trained weights with respect to some of the data.

    The model must be at a minimum of L = mean loss + (weight_decay / 2) |w|^2; H is the Hessian of L there. Dense:
    for models of at most 2000 weights.

    Args:
        examples: the indices of D among the examples.
        of: "inputs", or "targets" (real-valued, with a loss that takes them).
        loss: mean loss of outputs (N, ...) and targets.

    Returns:
        dw/dD (k, dim D) and the Hessian of the mean loss alone (k, k), float64.
    """
    check_choice("of", of, ("inputs", "targets"))
    check_number("weight_decay", weight_decay, at_least=0)
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    flat = torch.cat([p.detach().double().flatten() for p in model.parameters()])
    if len(flat) > LARGEST_WEIGHTS:
        raise UsageError(
            f"model has {len(flat)} weights; the dense Hessian stops at {LARGEST_WEIGHTS}: use a smaller model"
        )
    index = torch.as_tensor(list(examples))
    if len(index) == 0 or int(index.min()) < 0 or int(index.max()) >= len(inputs):
        raise UsageError(f"examples={list(examples)!r} must be indices from 0 to {len(inputs) - 1}, one or more")
    x, y = inputs.double(), targets
    if of == "targets" and not y.is_floating_point():
        raise UsageError("of='targets' needs real-valued targets and a loss that takes them; pass of='inputs'")
    part = (x if of == "inputs" else y.double())[index]
    if part.numel() > LARGEST_COORDINATES:
        raise UsageError(
            f"examples have {part.numel()} coordinates; I(w; D) is for at most {LARGEST_COORDINATES}: name fewer"
        )
    buffers = {name: b.double() if b.is_floating_point() else b for name, b in model.named_buffers()}

    def objective(w: Tensor, d: Tensor) -> Tensor:
        pieces = w.split([s.numel() for s in shapes])
        weights = {name: piece.view(s) for name, piece, s in zip(names, pieces, shapes, strict=True)}
        seen, labels = (x.index_copy(0, index, d), y) if of == "inputs" else (x, y.double().index_copy(0, index, d))
        return loss(functional_call(model, {**weights, **buffers}, (seen,)), labels)

    with evaluating(model):
        curvature = jacrev(grad(objective))(flat, part).detach()
        mixed = jacrev(grad(objective), argnums=1)(flat, part).detach().flatten(1)
    total = curvature + weight_decay * torch.eye(len(flat), dtype=torch.float64, device=flat.device)
    solved, info = torch.linalg.solve_ex(total, mixed)
    if int(info) != 0 or not bool(torch.isfinite(solved).all()):
        raise UsageError("the Hessian of the loss is singular, so dw/dD is not defined; pass weight_decay > 0")
    return -solved, curvature


def dataset_information(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    examples: Sequence[int],
    beta: float,
    prior_variance: float,
    data_variance: float = 1.0,
    *,
    of: str = "inputs",
    weight_decay: float | None = None,
    loss: Loss = F.cross_entropy,
) -> Estimate:
    """Information in nats that noisy weights w + n, n ~ N(0, Sigma*), hold about some coordinates D of the data.

    1/2 log det(I + s^2 F_{w|D}), F_{w|D} = (dw/dD)^T Sigma*^-1 (dw/dD): the information about a perturbation
    N(0, s^2 I) of D, s^2 = ``data_variance``. Eq. 11 in its checked form: as printed it has H(w) for H(D), lacks 1/beta
    and takes F_w for Sigma*^-1. Sigma* = beta (H + (beta / prior_variance) I)^-1 with H the Hessian of the loss. Exact
    for ridge regression. Deterministic: the errors are 0.

    Args:
        examples: the indices of D among the examples.
        weight_decay: of the objective that the model minimises; by default beta / prior_variance, the one for which
            Sigma* is the posterior.
        of, loss: see :func:`dataset_influence`.
    """
    check_number("beta", beta, above=0)
    check_number("prior_variance", prior_variance, above=0)
    check_number("data_variance", data_variance, above=0)
    damping = beta / prior_variance
    decay = damping if weight_decay is None else weight_decay
    moved, curvature = dataset_influence(model, inputs, targets, examples, of=of, weight_decay=decay, loss=loss)
    precision = (curvature + damping * torch.eye(len(curvature), dtype=torch.float64, device=curvature.device)) / beta
    if float(torch.linalg.eigvalsh(precision)[0]) <= 0:
        raise UsageError(
            "the Hessian plus beta / prior_variance is not positive: the model is not at a minimum; train it"
        )
    fisher = moved.T @ precision @ moved
    eye = torch.eye(len(fisher), dtype=torch.float64, device=fisher.device)
    value = 0.5 * float(torch.linalg.slogdet(eye + data_variance * fisher).logabsdet)
    method = f"{of} of {len(list(examples))} example(s), dense Hessian, s^2 = {data_variance:g}"
    return Estimate(value, 0.0, "nats", len(inputs), method)
