"""WeightNoise: the Gaussian noise on the weights of Def. 3.4, drawn for inversion."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from waterbed.devices import seeded_generator
from waterbed.errors import UsageTypeError, check_choice, check_count, check_number
from waterbed.information.checks import check_targets
from waterbed.information.defaults import BETA, PRIOR_VARIANCE
from waterbed.information.estimate import Estimate, probe_estimate
from waterbed.information.weight_fisher import WeightFisher
from waterbed.models.states import frozen

LARGEST_LABEL = torch.iinfo(torch.int64).max
METHODS = ("diagonal", "exact", "isotropic")


class WeightNoise:
    """Draws n ~ N(0, Sigma*) with Sigma* = beta (F_w + (beta / lambda^2) I)^-1, lambda^2 the prior variance.

    It is the posterior covariance that minimises loss + beta KL (Def. 3.4, exact form; the paper's beta F_w^-1 is its
    limit of an infinite prior variance). "diagonal" keeps the diagonal of F_w only; "exact" draws as
    :meth:`WeightFisher.sample` does, which costs two passes over the Fisher's examples for each draw. Weights that F_w
    says nothing about keep the variance lambda^2 however small beta is. "isotropic" spreads the diagonal's total
    variance evenly over the weights: noise of equal size that knows nothing of F_w, to compare with.

    Args:
        fisher: of the model that will be inverted.
        beta: information level, > 0; 1 / N is the Bayes posterior.
        prior_variance: lambda^2, > 0.
        method: "diagonal", "exact" or "isotropic".
    """

    def __init__(
        self, fisher: WeightFisher, beta: float = BETA, prior_variance: float = PRIOR_VARIANCE, method: str = "diagonal"
    ) -> None:
        if not isinstance(fisher, WeightFisher):
            raise UsageTypeError(f"fisher={type(fisher).__name__} must be a WeightFisher of the model")
        check_number("beta", beta, above=0)
        check_number("prior_variance", prior_variance, above=0)
        check_choice("method", method, METHODS)
        self.fisher, self.beta, self.prior_variance, self.method = fisher, beta, prior_variance, method

    def draw(self, seed: int) -> Tensor:
        """One flat draw (k,), float64, the same for the same seed."""
        if self.method != "isotropic":
            return self.fisher.sample(self.beta, self.prior_variance, 1, seed, self.method)[0]
        generator = seeded_generator(seed)
        noise = torch.randn(self.fisher.size, generator=generator, dtype=torch.float64)
        return (self._diagonal_total() / self.fisher.size) ** 0.5 * noise.to(self.fisher.inputs.device)

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
        if self.method != "exact":
            total = self._diagonal_total()
        else:  # null directions, the rest of the k, keep the prior variance
            values = self.fisher.eigenvalues()
            total = (
                float((self.beta / (values + damping)).sum()) + (self.fisher.size - len(values)) * self.prior_variance
            )
        return (total / weights) ** 0.5

    def accuracy(self, inputs: Tensor, targets: Tensor, num_draws: int = 5, seed: int = 0) -> Estimate:
        """What the noise does to the classifier: accuracy in percent on labelled inputs at w + n, a mean over draws.

        The error over examples is that of each one's mean over the draws; the probe error is that over draws.
        """
        check_count("num_draws", num_draws, at_least=2)
        targets = check_targets(targets, "empirical", len(inputs), LARGEST_LABEL)
        hits = []
        with frozen(self.fisher.model) as model, torch.no_grad():
            for draw in range(num_draws):
                weights = self.perturbed(seed * 1_000_003 + draw)
                parts = zip(inputs.split(256), targets.split(256), strict=True)
                right = [functional_call(model, weights, (x,)).argmax(1) == y.to(x.device) for x, y in parts]
                hits.append(100 * torch.cat(right).double())
        return probe_estimate(torch.stack(hits, dim=1), "%", f"accuracy under weight noise, {num_draws} draws", seed)

    def _diagonal_total(self) -> float:
        """tr Sigma* with the diagonal of F_w alone."""
        return float((self.beta / (self.fisher.diagonal() + self.beta / self.prior_variance)).sum())
