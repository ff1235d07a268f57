"""InputFisher: the information of a representation about the input, F_{z|x} (Def. 3.1, eqs 4, 5, 9)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import vjp

from waterbed.devices import seeded_generator
from waterbed.distributed import slices, summed
from waterbed.errors import UsageError, check_choice, check_count, check_number
from waterbed.information.checks import check_inputs, examples_that_fit, gather_batches, per_example
from waterbed.information.estimate import Estimate, mean_estimate, probe_estimate
from waterbed.information.lanczos import batched_lambda_max
from waterbed.information.likelihood import softmax_root
from waterbed.information.operators import LARGEST_MATRIX, SymmetricOperator
from waterbed.information.per_example import forward_product, input_rows
from waterbed.information.representation_noise import FORMS, RepresentationNoise, identity
from waterbed.information.spectrum import lanczos_eigenpairs
from waterbed.information.weight_fisher import WeightFisher
from waterbed.models.states import frozen

OBSERVATIONS = ("label", "gaussian", "weight-noise")
METHODS = ("auto", "exact", "hutchinson")
MOST_EXACT_DIRECTIONS = 256
CHUNK_VALUES = 2**24


class InputFisher(SymmetricOperator):
    """Fisher information F_{z|x} = E_x S(z|x) of a representation z about the input x (Def. 3.1, eq. 4).

    The paper leaves open what p(z|x) is for a deterministic network; here it is named:

    - "label": z is the predicted label, S = L_x^T (diag p - p p^T) L_x with L_x = dlogits/dx.
    - "gaussian": z = f(x) seen with noise N(0, sigma^2 I), S = J_x^T J_x / sigma^2 with J_x = dfeatures/dx. It
      scales with the features; see :meth:`relative_trace`.
    - "weight-noise": z = f_{w+n}(x), n ~ N(0, Sigma*) of ``weight_fisher`` at ``beta`` and ``prior_variance``:
      S = J_x^T Sigma_z^-1 J_x, Sigma_z = J_w Sigma* J_w^T (eq. 9 in its checked form).

    The mean matrix is an operator (D, D), D the size of one input: ``S @ V``, :meth:`to_scipy`,
    ``wb.logdet(S, damping)``.

    S is in nats per squared unit of the input: KL(p(z|x) || p(z|x + d)) ~ 1/2 d^T S d. Measures run in eval mode; the
    mode is restored. Results are float64.

    Args:
        model: logits (N, K) from ``model(x)``; the last two observations also need ``model.features``.
        inputs: (N, ...), of any shape, range and floating type the model takes.
        observation: see above.
        sigma: standard deviation of the noise of "gaussian".
        weight_fisher, beta, prior_variance: of "weight-noise".
        covariance_term: add 1/2 tr(Sigma_z^-1 d_i Sigma_z Sigma_z^-1 d_j Sigma_z), which the paper drops and which can
            be the larger one; for small models.
        form: "inverse" as above, or "printed": (1/beta) J_x^T J_w F_w J_w^T J_x as eq. 9 has it, which is not a Fisher
            information (scaling z by 3 multiplies it by 81).
        noise: "exact" or "diagonal" Sigma*; "auto" is exact where it fits into memory.
        method: "exact" makes one backward pass for each label or feature; "hutchinson" estimates traces from
            ``num_probes`` random combinations of them (two or more), and lambda_max by Lanczos. "auto" is exact up to
            256.
        seed: of the probes.
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
        weight_fisher: WeightFisher | None = None,
        beta: float | None = None,
        prior_variance: float | None = None,
        *,
        covariance_term: bool = False,
        form: str = "inverse",
        noise: str = "auto",
        method: str = "auto",
        num_probes: int = 10,
        seed: int = 0,
        chunk_size: int | None = None,
    ) -> None:
        check_choice("observation", observation, OBSERVATIONS)
        check_choice("form", form, FORMS)
        check_choice("method", method, METHODS)
        check_number("sigma", sigma, above=0)
        check_count("num_probes", num_probes, at_least=2)
        if chunk_size is not None:
            check_count("chunk_size", chunk_size)
        inputs, outputs = check_inputs(model, gather_batches(inputs)[0])
        if observation != "label":
            if not hasattr(model, "features"):
                raise UsageError(f"observation={observation!r} needs model.features; pass wb.wrap(model)")
            with torch.no_grad(), frozen(model):
                outputs = model.features(inputs[:1])
        self.model, self.inputs, self.observation, self.sigma = model, inputs, observation, sigma
        self.size, self.form, self.covariance_term = math.prod(inputs.shape[1:]), form, covariance_term
        self.seed, self.num_probes = seed, num_probes
        self.directions = outputs.shape[1] - (observation == "label")  # the label's Fisher matrix has rank K - 1
        self.method = (
            ("exact" if self.directions <= MOST_EXACT_DIRECTIONS else "hutchinson") if method == "auto" else method
        )
        self.noise: RepresentationNoise | None = None
        description = observation
        if observation == "weight-noise":
            if weight_fisher is None or beta is None or prior_variance is None:
                raise UsageError("observation='weight-noise' needs weight_fisher=, beta= and prior_variance=")
            with frozen(model):
                self.noise = RepresentationNoise(model, weight_fisher, beta, prior_variance, noise)
            self.method = "exact"
            chunk_size = chunk_size or examples_that_fit(self.noise.bytes_each(self.directions))
            description += f" ({self.noise.noise}{', printed form' if form == 'printed' else ''})"
        elif covariance_term or form == "printed":
            raise UsageError("covariance_term and form belong to observation='weight-noise'; leave them out")
        self.description = f"{description}, {self.method}"
        width = self.size * (self.directions if self.method == "exact" else 1)
        self.chunk_size = chunk_size or max(1, CHUNK_VALUES // width)
        self._moving: list[tuple[slice, Tensor]] = []

    def roots(self) -> Iterator[tuple[slice, Tensor]]:
        """For each chunk of examples: its slice, and M (n, m, D) with S = M^T M, float64."""
        if self.method != "exact":
            raise UsageError(
                f"method={self.method!r} has no exact roots of {self.directions} rows; pass method='exact'"
            )
        self._moving = []
        with frozen(self.model) as model:
            for part in slices(len(self.inputs), self.chunk_size):
                x = self.inputs[part]
                if self.observation == "label":
                    rows = input_rows(model, x, softmax_root).double()
                elif self.observation == "gaussian":
                    rows = input_rows(model.features, x, identity).double() / self.sigma
                else:
                    v, moving = self.noise.directions(x, self.form)
                    self._moving.append((part, moving))
                    jacobian = input_rows(model.features, x, identity).double().flatten(2)
                    rows = v.mT @ jacobian
                    if self.covariance_term:
                        rows = torch.cat([rows, self.noise.covariance_rows(x, v)], dim=1)
                yield part, rows.flatten(2)

    def moving_features(self) -> Tensor:
        """The number of features of each example that move under the weight noise, (N,); dead ones do not count."""
        if self.observation != "weight-noise":
            raise UsageError(f"moving_features needs observation='weight-noise', not {self.observation!r}")
        for _ in self.roots():
            pass
        return per_example(len(self.inputs), self._moving, self.inputs).long()

    def of_roots(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """One number for each example from its M: ``function`` maps (n, m, D) to (n,); float64 (N,)."""
        return per_example(len(self.inputs), ((part, function(m)) for part, m in self.roots()), self.inputs)

    def _of_inputs(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """One number for each example, (N,) float64, from the inputs."""
        with frozen(self.model):
            parts = slices(len(self.inputs), self.chunk_size)
            return per_example(len(self.inputs), ((p, function(self.inputs[p])) for p in parts), self.inputs)

    def _probes(self) -> Tensor:
        """|M^T v|^2 of each example and Rademacher probe v on the output side, (N, P)."""
        generator = seeded_generator(self.seed)
        values = []
        signs = torch.randint(0, 2, (len(self.inputs), self.directions, self.num_probes), generator=generator) * 2.0 - 1
        with frozen(self.model) as model:
            for part in slices(len(self.inputs), self.chunk_size):
                x = self.inputs[part]
                v = signs[part].to(x)
                if self.observation == "label":
                    rows = input_rows(model, x, lambda logits, v=v: softmax_root(logits) @ v)
                else:
                    rows = input_rows(model.features, x, lambda _, v=v: v) / self.sigma
                values.append((part, rows.double().flatten(2).square().sum(2)))
        return per_example(len(self.inputs), values, self.inputs, (self.num_probes,))

    def per_example_trace(self) -> Tensor:
        """tr S(z|x) of each example, (N,)."""
        if self.method == "hutchinson":
            return self._probes().mean(1)
        return self.of_roots(lambda m: m.square().sum((1, 2)))

    def trace(self) -> Estimate:
        """E_x tr S(z|x) = tr F_{z|x}."""
        if self.method == "hutchinson":
            return probe_estimate(
                self._probes(), "nats/pixel^2", f"{self.description}, {self.num_probes} probes", self.seed
            )
        return self._estimate(self.per_example_trace())

    def relative_trace(self) -> Estimate:
        """tr F_{z|x} / E |z|^2 ("gaussian" only): unchanged when the features are scaled. A ratio of means; its error
        is that of the linearised ratio."""
        if self.observation != "gaussian":
            raise UsageError(f"relative_trace needs observation='gaussian', not {self.observation!r}; it has no scale")
        with torch.no_grad():
            size = self._of_inputs(lambda x: self.model.features(x).double().square().sum(1))
        trace = self.per_example_trace()
        ratio = trace.mean() / size.mean()
        return mean_estimate(
            ratio + (trace - ratio * size) / size.mean(), "1/pixel^2", f"{self.description}, ratio of means"
        )

    def per_example_lambda_max(self) -> Tensor:
        """lambda_1(S(z|x)) of each example, (N,): the largest squared singular value of M, or 30 Lanczos steps."""
        if self.method == "hutchinson":
            return self._of_inputs(lambda x: batched_lambda_max(lambda v: self._product(x, v), x, seed=self.seed))
        return self.of_roots(lambda m: torch.linalg.svdvals(m)[:, 0].square())

    def lambda_max(self, of: str = "examples") -> Estimate:
        """Largest eigenvalue: the mean of lambda_1(S(z|x)) over x (``of="examples"``, eq. 5), or lambda_1 of the
        mean matrix (``of="mean"``), which is never larger. The latter's error is that of v^T S(z|x) v at its
        eigenvector v."""
        check_choice("of", of, ("examples", "mean"))
        if of == "examples":
            return self._estimate(self.per_example_lambda_max(), "mean of lambda_1")
        _, vectors = self._top(1)
        return self._estimate(self._along(vectors[:, -1]), "lambda_1 of the mean matrix")

    def eigenvalues(self, count: int | None = None) -> Tensor:
        """The ``count`` largest eigenvalues of the mean matrix F_{z|x}, descending; all (inputs of up to 4096 values)
        if None."""
        if count is not None:
            check_count("count", count)
        if count is None or self.size <= LARGEST_MATRIX:
            return torch.linalg.eigvalsh(self.matrix()).flip(0)[:count].clamp_min(0)
        values, _ = self._top(count)
        return values.flip(0)

    def logdet(self, damping: float = 1e-3, of: str = "examples") -> Estimate:
        """log det(S + damping I) in nats: the mean over x of that of S(z|x) (``of="examples"``), or that of the mean
        matrix (``of="mean"``, inputs of up to 4096 values; its error is that of the linearised value)."""
        check_choice("of", of, ("examples", "mean"))
        check_number("damping", damping, above=0)
        if of == "examples":
            values = self.of_roots(lambda m: _logdet_dual(m, damping))
            return self._estimate(values, f"log det of each S, damping {damping:g}", "nats")
        matrix = self.matrix() + damping * torch.eye(self.size, dtype=torch.float64, device=self.inputs.device)
        inverse = torch.linalg.inv(matrix)
        influence = self.of_roots(lambda m: ((m @ inverse) * m).sum((1, 2)))
        shifted = influence - influence.mean() + torch.linalg.slogdet(matrix).logabsdet
        return self._estimate(shifted, f"log det of the mean matrix, damping {damping:g}", "nats")

    def matrix(self) -> Tensor:
        """F_{z|x}, the mean of S(z|x) over the inputs: (D, D), D the size of one input, at most 4096."""
        if self.size > LARGEST_MATRIX:
            raise UsageError(
                f"inputs have {self.size} values each; matrix() holds a {self.size} x {self.size} matrix and stops at "
                f"{LARGEST_MATRIX}: use trace() or lambda_max(), or smaller images"
            )
        total = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.inputs.device)
        for _, m in self.roots():
            rows = m.flatten(0, 1)
            total += rows.mT @ rows
        return summed(total) / len(self.inputs)

    def _product(self, x: Tensor, v: Tensor) -> Tensor:
        """S(z|x) v of each example ("label" and "gaussian"), for v of the shape of x."""
        function = self.model if self.observation == "label" else self.model.features
        outputs, change = forward_product(function, (x,), (v.to(x.dtype),))
        _, pull = vjp(function, x)
        if self.observation == "gaussian":
            return pull(change)[0] / self.sigma**2
        root = softmax_root(outputs)
        return pull((root @ (root.mT @ change[:, :, None]))[:, :, 0])[0]

    def _along(self, v: Tensor) -> Tensor:
        """v^T S(z|x) v of each example, (N,), for one v (D,)."""
        if self.method == "exact":
            return self.of_roots(lambda m: (m @ v).square().sum(1))

        def along(x: Tensor) -> Tensor:
            direction = v.view(1, *x.shape[1:]).expand_as(x)
            return (self._product(x, direction).double() * direction).flatten(1).sum(1)

        return self._of_inputs(along)

    @property
    def device(self) -> torch.device:
        return self.inputs.device

    def _products(self, columns: Tensor) -> Tensor:
        """F V of the mean matrix F, for V (D, p)."""
        total = torch.zeros_like(columns)
        if self.method == "exact":
            for _, m in self.roots():
                rows = m.flatten(0, 1)
                total += rows.T @ (rows @ columns)
        else:
            with frozen(self.model):
                for part in slices(len(self.inputs), self.chunk_size):
                    x = self.inputs[part]
                    for j, column in enumerate(columns.T):
                        direction = column.view(1, *x.shape[1:]).expand_as(x)
                        total[:, j] += self._product(x, direction).double().sum(0).flatten()
        return summed(total) / len(self.inputs)

    def _top(self, count: int) -> tuple[Tensor, Tensor]:
        """The largest eigenvalues of the mean matrix, ascending, and their eigenvectors as columns."""
        if self.method == "exact" and self.size <= LARGEST_MATRIX:
            values, vectors = torch.linalg.eigh(self.matrix())
            return values[-count:], vectors[:, -count:]
        if count >= self.size:
            raise UsageError(f"count={count} needs all {self.size} eigenvalues; ask for fewer, or smaller images")
        return lanczos_eigenpairs(self, count)

    def _estimate(self, samples: Tensor, what: str = "", unit: str = "nats/pixel^2") -> Estimate:
        return mean_estimate(samples, unit, ", ".join(filter(None, (self.description, what))))


def _logdet_dual(m: Tensor, damping: float) -> Tensor:
    """log det(M^T M + damping I) of each example, through the smaller of the two Gram matrices."""
    rows, size = m.shape[1:]
    gram = m @ m.mT if rows <= size else m.mT @ m
    eye = torch.eye(min(rows, size), dtype=m.dtype, device=m.device)
    return torch.linalg.slogdet(gram + damping * eye).logabsdet + (size - len(eye)) * math.log(damping)
