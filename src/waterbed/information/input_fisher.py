"""InputFisher: what the representation tells about the input, F_{z|x} (Def. 3.1, eq. 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from waterbed.errors import UsageError, check_choice, check_count, check_number
from waterbed.information.checks import check_inputs, chunks
from waterbed.information.estimate import Estimate, mean_estimate
from waterbed.information.gradients import input_rows
from waterbed.information.likelihood import softmax_root
from waterbed.models import frozen

OBSERVATIONS = ("label", "gaussian")
LARGEST_MATRIX = 4096


class InputFisher:
    """Fisher information F_{z|x} = E_x S(z|x) of a representation z about the input x (Def. 3.1, eq. 4).

    The paper leaves open what p(z|x) is for a deterministic network; here it is named:

    - "label": z is the predicted label, S = L_x^T (diag p - p p^T) L_x with L_x = dlogits/dx.
    - "gaussian": z = f(x) seen with noise N(0, sigma^2 I), S = J_x^T J_x / sigma^2 with J_x = dfeatures/dx. It
      scales with the features; see :meth:`relative_trace`.

    Both are exact, by one backward pass for each label or feature. S is in nats per squared unit of the input:
    KL(p(z|x) || p(z|x + d)) ~ 1/2 d^T S d. Measures run in eval mode; the mode is restored.

    Args:
        model: logits (N, K) from ``model(x)``; "gaussian" also needs ``model.features``.
        inputs: (N, ...), of any shape, range and floating type the model takes.
        observation: "label" or "gaussian".
        sigma: standard deviation of the noise of "gaussian".
        chunk_size: examples held at a time; by default chosen from their size.

    Raises:
        UsageError: inputs that do not fit the model or are not finite, an unknown observation, sigma <= 0.

    >>> model = nn.Linear(3, 2)
    >>> S = InputFisher(model, torch.randn(20, 3))
    >>> S.trace().unit
    'nats/pixel^2'
    >>> S.matrix().shape
    torch.Size([3, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        observation: str = "label",
        sigma: float = 1.0,
        chunk_size: int | None = None,
    ) -> None:
        check_choice("observation", observation, OBSERVATIONS)
        check_number("sigma", sigma, above=0)
        if chunk_size is not None:
            check_count("chunk_size", chunk_size)
        outputs = check_inputs(model, inputs)
        if observation == "gaussian":
            if not hasattr(model, "features"):
                raise UsageError("observation='gaussian' needs model.features; wrap the model in FeatureClassifier")
            with torch.no_grad(), frozen(model):
                outputs = model.features(inputs[:1])
        self.model, self.inputs, self.observation, self.sigma = model, inputs, observation, sigma
        self.rank = min(outputs.shape[1], math.prod(inputs.shape[1:]))
        self.chunk_size = chunk_size or max(1, 2**24 // (outputs.shape[1] * math.prod(inputs.shape[1:])))
        self.method = f"{observation}, exact"

    def _roots(self):
        """M (n, m, D) of each chunk of examples, S = M^T M."""
        with frozen(self.model) as model:
            for x in chunks(self.inputs, self.chunk_size):
                if self.observation == "label":
                    rows = input_rows(model, x, softmax_root)
                else:
                    rows = input_rows(model.features, x, _identity) / self.sigma
                yield rows.flatten(2)

    def per_example_trace(self) -> Tensor:
        """tr S(z|x) of each example, (N,), float64."""
        return torch.cat([m.double().square().sum((1, 2)) for m in self._roots()])

    def trace(self) -> Estimate:
        """E_x tr S(z|x) = tr F_{z|x}."""
        return self._estimate(self.per_example_trace())

    def relative_trace(self) -> Estimate:
        """tr F_{z|x} / E |z|^2 ("gaussian" only): unchanged when the features are scaled. Ratio of means; its error
        is that of the linearised ratio."""
        if self.observation != "gaussian":
            raise UsageError(
                f"relative_trace needs observation='gaussian', not {self.observation!r}; labels have no scale"
            )
        with torch.no_grad(), frozen(self.model) as model:
            size = torch.cat([model.features(x).double().square().sum(1) for x in chunks(self.inputs, self.chunk_size)])
        trace = self.per_example_trace()
        ratio = trace.mean() / size.mean()
        return mean_estimate(
            ratio + (trace - ratio * size) / size.mean(), "1/pixel^2", f"{self.method}, ratio of means"
        )

    def per_example_lambda_max(self) -> Tensor:
        """lambda_1(S(z|x)) of each example, (N,), float64: the largest squared singular value of M."""
        return torch.cat([torch.linalg.svdvals(m.double())[:, 0].square() for m in self._roots()])

    def lambda_max(self, of: str = "examples") -> Estimate:
        """Largest eigenvalue: the mean of lambda_1(S(z|x)) over x (``of="examples"``, eq. 5), or lambda_1 of the
        mean matrix (``of="mean"``), which is never larger. The latter's error is that of v^T S(z|x) v at its
        eigenvector v."""
        check_choice("of", of, ("examples", "mean"))
        if of == "examples":
            return self._estimate(self.per_example_lambda_max())
        v = torch.linalg.eigh(self.matrix()).eigenvectors[:, -1]
        along = torch.cat([(m.double() @ v).square().sum(1) for m in self._roots()])
        return self._estimate(along, "lambda_1 of the mean matrix")

    def matrix(self) -> Tensor:
        """F_{z|x}, the mean of S(z|x) over the inputs: (D, D), float64, D the size of one input, at most 4096."""
        size = math.prod(self.inputs.shape[1:])
        if size > LARGEST_MATRIX:
            raise UsageError(
                f"inputs have {size} values each; matrix() holds a {size} x {size} matrix and stops at "
                f"{LARGEST_MATRIX}: use trace() or lambda_max(), or smaller images"
            )
        total = torch.zeros(size, size, dtype=torch.float64, device=self.inputs.device)
        for m in self._roots():
            rows = m.double().flatten(0, 1)
            total += rows.mT @ rows
        return total / len(self.inputs)

    def _estimate(self, samples: Tensor, what: str = "") -> Estimate:
        return mean_estimate(samples, "nats/pixel^2", f"{self.method}{', ' if what else ''}{what}")


def _identity(outputs: Tensor) -> Tensor:
    n, d = outputs.shape
    return torch.eye(d, dtype=outputs.dtype, device=outputs.device).expand(n, d, d)
