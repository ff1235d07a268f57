"""Experiments on small models of their own, where a claim needs what the source networks cannot give: a closed form, a
minimum with a dense Hessian, or one data set at two sizes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.utils import vector_to_parameters

from waterbed.data.load import load_dataset
from waterbed.data.loading import stack
from waterbed.errors import UsageError
from waterbed.information.influence import dataset_influence
from waterbed.information.input_fisher import InputFisher
from waterbed.models.create import create_model
from waterbed.training.fit import fit
from waterbed_paper.experiments import load_data, mean_of
from waterbed_paper.graph import Place, experiment
from waterbed_paper.scale import Dimension


@experiment(version=1)
def example_3_3(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Logistic regression: the Fisher information about the input beside w w^T times the mean of p (1 - p)."""
    generator = torch.Generator().manual_seed(config["seed"])
    w = torch.randn(config["size"], generator=generator, dtype=torch.float64)
    x = torch.randn(config["images"], config["size"], generator=generator, dtype=torch.float64)
    layer = torch.nn.Linear(config["size"], 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros_like(w), w]))
        layer.bias.zero_()
    p = (x @ w).sigmoid()
    closed = torch.outer(w, w) * (p * (1 - p)).mean()
    measured = InputFisher(layer, x).matrix()
    return {"relative_difference": float((measured - closed).norm() / closed.norm())}


class Margins(nn.Module):
    """Two classes: the logit m(x), and eps |dm/dx|, what a perturbation of norm eps takes from the margin.

    Exactly so for a linear m; to first order in eps for a network (tanh, one hidden layer).

    Shapes: (N, D) -> (N, 2).
    """

    def __init__(self, inputs: int, hidden: int, eps: float) -> None:
        super().__init__()
        layers = [nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1)] if hidden else [nn.Linear(inputs, 1)]
        self.body, self.eps = nn.Sequential(*layers), eps

    def forward(self, x: Tensor) -> Tensor:
        margins = self.body(x).squeeze(-1)
        slopes = vmap(grad(lambda one: self.body(one).squeeze(-1)))(x)
        # dw/dD takes second derivatives, and the norm has none where a slope is 0; the small term gives it one.
        return torch.stack([margins, self.eps * (slopes.square().sum(1) + 1e-12).sqrt()], 1)


def robust_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean logistic loss of the worst perturbation: softplus(-(y m - eps |dm/dx|)), y in {-1, 1}."""
    return F.softplus(outputs[:, 1] - labels * outputs[:, 0]).mean()


@experiment(version=1)
def dataset_fisher(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """Eq. 11: tr F_{w|D} [nats/pixel^2] of weights at a minimum of the standard and of the robust loss, by seed.

    D is a few of the training images, handwritten digits of two classes; Sigma* that of the loss that was minimised, as
    in :func:`waterbed.information.dataset_information`, whose 1/beta cancels in the difference.
    """
    traces: dict[str, list[float]] = {}
    for seed in range(config["seeds"]):
        x, y = _two_classes(config["train"], seed)
        for eps in (0.0, config["eps"]):
            model = _at_minimum(Margins(x.shape[1], config["hidden"], eps), x, y, config["weight_decay"], seed)
            moved, hessian = dataset_influence(
                model, x, y, range(config["examples"]), weight_decay=config["weight_decay"], loss=robust_loss
            )
            damped = hessian + config["weight_decay"] * torch.eye(len(hessian), dtype=torch.float64)
            trace = float((moved * (damped @ moved)).sum())
            traces.setdefault("robust" if eps else "standard", []).append(trace)
    return traces


def _two_classes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (count, 64) of odd and even digits in float64, drawn by the seed, and their classes as -1 and 1."""
    images, digits = stack(load_dataset("digits").train)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    return images[chosen].flatten(1).double(), digits[chosen].double() % 2 * 2 - 1


def _at_minimum(model: Margins, x: Tensor, y: Tensor, weight_decay: float, seed: int) -> Margins:
    """The model where the gradient of its loss with weight decay is nothing: by L-BFGS, then by Newton's method."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    starts = [
        torch.randn(p.shape, generator=generator, dtype=p.dtype) * p.shape[-1] ** -0.5 for p in model.parameters()
    ]
    shapes, names = [p.shape for p in starts], [name for name, _ in model.named_parameters()]
    weights = torch.cat([p.flatten() for p in starts]).requires_grad_()

    def objective(flat: Tensor) -> Tensor:
        pieces = flat.split([s.numel() for s in shapes])
        given = {name: piece.view(s) for name, piece, s in zip(names, pieces, shapes, strict=True)}
        return robust_loss(functional_call(model, given, (x,)), y) + 0.5 * weight_decay * flat.square().sum()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(weights)
        loss.backward()
        return loss

    settings = {"max_iter": 2000, "tolerance_grad": 1e-5, "tolerance_change": 0.0, "history_size": 50}
    optimizer = torch.optim.LBFGS([weights], line_search_fn="strong_wolfe", **settings)
    optimizer.step(closure)
    flat = weights.detach()
    for _ in range(10):
        flat = flat - torch.linalg.solve(jacrev(grad(objective))(flat), grad(objective)(flat))
    left, lowest = grad(objective)(flat).norm(), torch.linalg.eigvalsh(jacrev(grad(objective))(flat))[0]
    if not (left < 1e-7 and lowest > 0):
        raise UsageError(
            f"no minimum was found (gradient {left:.1e}, least eigenvalue of the Hessian {lowest:.1e}); "
            f"raise weight_decay={weight_decay:g}"
        )
    vector_to_parameters(flat, model.parameters())
    return model


@experiment(version=1)
def anisotropy(place: Place, config: dict[str, Any]) -> dict[str, Any]:
    """After Prop. 3.2: log lambda_1(S) n / tr S on test images of a standard network trained at one size of images."""
    data = load_data(place, config)
    model = create_model(config["model"], data.num_classes, "cifar", config["width"], data.shape[0], config["seed"])
    settings = {key: config[key] for key in (*Dimension.RECIPE, "seed")}
    model = fit(model, data, watch=0, precision="fp32", progress=False, **settings).model
    x, _ = stack(data.test, min(config["images"], len(data.test)))
    wide = x.double()
    fisher = InputFisher(model.double(), wide)
    trace, top = fisher.per_example_trace(), fisher.per_example_lambda_max()
    return {"log_anisotropy": mean_of((top * x[0].numel() / trace).log()[trace > 0]), "pixels": x[0].numel()}
