"""WeightNoise: the Gaussian noise on the weights of Def. 3.4, drawn for inversion."""

from __future__ import annotations

from torch import Tensor

from waterbed.errors import UsageTypeError, check_choice, check_number
from waterbed.information.weight_fisher import WeightFisher

METHODS = ("diagonal", "exact")


class WeightNoise:
    """Draws n ~ N(0, Sigma*) with Sigma* = beta (F_w + (beta / lambda^2) I)^-1, lambda^2 the prior variance.

    It is the posterior covariance that minimises loss + beta KL (Def. 3.4, exact form; the paper's beta F_w^-1 is its
    limit of an infinite prior variance). "diagonal" keeps the diagonal of F_w only; "exact" draws as
    :meth:`WeightFisher.sample` does, which costs two passes over the Fisher's examples a draw. Weights that F_w
    says nothing about keep the variance lambda^2 however small beta is.

    Args:
        fisher: of the model that will be inverted.
        beta: information level, > 0; 1 / N is the Bayes posterior.
        prior_variance: lambda^2, > 0.
        method: "diagonal" or "exact".
    """

    def __init__(
        self, fisher: WeightFisher, beta: float = 1e-8, prior_variance: float = 1e-3, method: str = "diagonal"
    ) -> None:
        if not isinstance(fisher, WeightFisher):
            raise UsageTypeError(f"fisher={type(fisher).__name__} must be a WeightFisher of the model")
        check_number("beta", beta, above=0)
        check_number("prior_variance", prior_variance, above=0)
        check_choice("method", method, METHODS)
        self.fisher, self.beta, self.prior_variance, self.method = fisher, beta, prior_variance, method

    def draw(self, seed: int) -> Tensor:
        """One flat draw (k,), float64, the same for the same seed."""
        return self.fisher.sample(self.beta, self.prior_variance, 1, seed, self.method)[0]

    def perturbed(self, seed: int) -> dict[str, Tensor]:
        """The weights w + n by name, for ``torch.func.functional_call``; the model itself is not touched."""
        parts = self.fisher.split(self.draw(seed))
        return {
            name: p.detach() + part.to(p.dtype)
            for (name, p), part in zip(self.fisher.parameters.items(), parts, strict=True)
        }

    def relative_size(self) -> float:
        """Root of E |n|^2 = tr Sigma* over |w|: how large the noise is beside the weights."""
        weights = sum(float(p.detach().double().square().sum()) for p in self.fisher.parameters.values())
        damping = self.beta / self.prior_variance
        if self.method == "diagonal":
            total = float((self.beta / (self.fisher.diagonal() + damping)).sum())
        else:  # null directions, the rest of the k, keep the prior variance
            values = self.fisher.eigenvalues()
            total = (
                float((self.beta / (values + damping)).sum()) + (self.fisher.size - len(values)) * self.prior_variance
            )
        return (total / weights) ** 0.5
