"""The noise of a representation whose weights are noisy: Sigma_z = J_w Sigma* J_w^T (sec. 3, eq. 9)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from waterbed.errors import UsageError, UsageTypeError, check_choice, check_number
from waterbed.information.per_example import MethodModule, WeightRows
from waterbed.information.per_example_gram import weighted_gram
from waterbed.information.weight_fisher import WeightFisher

FORMS = ("inverse", "printed")
NOISES = ("auto", "exact", "diagonal")
LARGEST_ROWS = 2**31
LARGEST_DERIVATIVE = 2**27
RELATIVE_ZERO = 1e-12


class RepresentationNoise:
    """z_n = f_{w+n}(x), n ~ N(0, Sigma*), to first order in n: Gaussian with covariance J_w Sigma* J_w^T, J_w = df/dw.

    Sigma* = beta (F + (beta / lambda^2) I)^-1 with F restricted to the weights of the feature extractor: the head does
    not move z. "exact" goes through the rows of F (Woodbury, all in memory), "diagonal" keeps the diagonal of F,
    "auto" is exact where the rows take less than 2 GiB.
    """

    def __init__(
        self, model: nn.Module, fisher: WeightFisher, beta: float, prior_variance: float, noise: str = "auto"
    ) -> None:
        if not isinstance(fisher, WeightFisher):
            raise UsageTypeError(f"weight_fisher={type(fisher).__name__} must be a WeightFisher of the model")
        if fisher.model is not model:
            raise UsageError("weight_fisher belongs to another model; build it from this one")
        check_number("beta", beta, above=0)
        check_number("prior_variance", prior_variance, above=0)
        check_choice("noise", noise, NOISES)
        head = {id(p) for p in model.head.parameters()}
        self.names = [name for name, p in fisher.parameters.items() if id(p) not in head]
        if not self.names:
            raise UsageError("weight_fisher has no weight of the feature extractor; pass params='features'")
        self.size = size = sum(fisher.parameters[name].numel() for name in self.names)
        fits = 8 * fisher.num_rows * size <= LARGEST_ROWS
        self.noise = ("exact" if fits else "diagonal") if noise == "auto" else noise
        if self.noise == "exact" and not fits:
            raise UsageError(
                f"noise='exact' would hold {fisher.num_rows} rows of {size} weights; pass noise='diagonal', or build "
                "the WeightFisher from fewer inputs or with labels='sampled'"
            )
        self.model, self.beta, self.prior_variance = model, beta, prior_variance
        self._example = fisher.inputs[:1]
        self._weight_rows = WeightRows(model, self.names, self._example, "features")
        if self.noise == "exact":
            block = fisher.block(0, len(fisher.inputs))
            u = torch.cat([block[name] for name in self.names], dim=1).double() / math.sqrt(len(fisher.inputs))
            damped = u @ u.T + beta / prior_variance * torch.eye(len(u), dtype=u.dtype, device=u.device)
            self._u, self._damped_inverse = u, torch.linalg.inv(damped)
        else:
            parts = dict(zip(fisher.parameters, fisher.split(fisher.diagonal()), strict=True))
            self._diagonal = {name: parts[name].double() for name in self.names}
            self._variance = {n: beta / (f + beta / prior_variance) for n, f in self._diagonal.items()}

    def bytes_each(self, features: int) -> int:
        """Bytes that one example needs: the backward passes of each feature, and their rows where they are made."""
        whole = self.noise == "exact" or self._weight_rows.method == "vmap"
        element = self._example.element_size()
        activations = (features + 2) * self._weight_rows.activations(self._example) * element
        return activations + whole * features * self.size * (element + 8)

    def jacobian(self, x: Tensor) -> Tensor:
        """J_w (n, d, k), float64, of the features with respect to the feature extractor's weights, all in memory."""
        rows = dict(self._weight_rows(x, identity))
        return torch.cat([rows[name].double().flatten(2) for name in self.names], dim=2)

    def covariance(self, x: Tensor) -> Tensor:
        """Sigma_z (n, d, d), float64."""
        if self.noise == "diagonal":
            return weighted_gram(self._weight_rows, x, identity, self._variance)
        return self.project(self.jacobian(x))

    def project(self, j: Tensor) -> Tensor:
        """J Sigma* J^T for J (..., d, k)."""
        if self.noise == "diagonal":
            return (j * torch.cat([self._variance[name].flatten() for name in self.names])) @ j.mT
        across = j @ self._u.T
        return self.prior_variance * (j @ j.mT - across @ self._damped_inverse @ across.mT)

    def directions(self, x: Tensor, form: str) -> tuple[Tensor, Tensor]:
        """V (n, d, d) with S = (V^T J_x)^T (V^T J_x), and how many coordinates of z move, (n,).

        "inverse": V V^T = Sigma_z^-1 on the coordinates that move, 0 on the dead ones. "printed": V V^T =
        J_w F J_w^T / beta, as eq. 9 prints it, which is no Fisher information unless J_w is orthogonal.
        """
        if form == "printed":
            if self.noise == "diagonal":
                inner = weighted_gram(self._weight_rows, x, identity, self._diagonal)
            else:
                across = self.jacobian(x) @ self._u.T
                inner = across @ across.mT
            values, vectors = torch.linalg.eigh(inner / self.beta)
            return vectors * values.clamp_min(0).sqrt()[:, None, :], torch.full((len(x),), inner.shape[1])
        covariance = self.covariance(x)
        scale = covariance.diagonal(dim1=1, dim2=2)
        moving = scale > RELATIVE_ZERO * scale.amax(1, keepdim=True)
        both = moving[:, :, None] & moving[:, None, :]
        eye = torch.eye(covariance.shape[1], dtype=covariance.dtype, device=x.device)
        factor, failed = torch.linalg.cholesky_ex(torch.where(both, covariance, eye))
        if bool(failed.any()):
            raise UsageError(
                "Sigma_z is singular beyond dead features: more features than weights move them; pass more weights "
                "(params='features') or a smaller representation"
            )
        inverse = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
        return (inverse * moving[:, None, :]).mT * moving[:, None, :], moving.sum(1)

    def covariance_rows(self, x: Tensor, v: Tensor) -> Tensor:
        """Rows (n, d^2, D) of the covariance term 1/2 tr(Sigma_z^-1 d_i Sigma_z Sigma_z^-1 d_j Sigma_z)."""
        parameters = {name: p.detach() for name, p in self.model.named_parameters() if name in set(self.names)}
        work = v.shape[1] * sum(p.numel() for p in parameters.values()) * x[0].numel()
        if work > LARGEST_DERIVATIVE:
            raise UsageError(
                f"covariance_term=True needs {work:.2g} second derivatives for one input; it is for small models "
                "and inputs: pass False"
            )
        features = MethodModule(self.model, "features")

        def covariance(one: Tensor) -> Tensor:
            def outputs(weights: dict[str, Tensor]) -> Tensor:
                return functional_call(features, {f"module.{k}": w for k, w in weights.items()}, (one[None],))[0]

            j = jacrev(outputs)(parameters)
            return self.project(torch.cat([j[name].flatten(1) for name in self.names], dim=1).double())

        rows = []
        for one, root in zip(x, v, strict=True):
            change = jacrev(covariance)(one).flatten(2).movedim(2, 0)  # (D, d, d)
            rows.append((root.T @ change @ root).flatten(1).T / math.sqrt(2))
        return torch.stack(rows)


def identity(outputs: Tensor) -> Tensor:
    """One direction for each output: V = I, (N, d, d)."""
    n, d = outputs.shape
    return torch.eye(d, dtype=outputs.dtype, device=outputs.device).expand(n, d, d)
