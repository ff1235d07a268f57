"""WeightFisher: what the labels tell about the weights, F_w."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from waterbed.distributed import slices, summed
from waterbed.errors import UsageError, check_choice, check_count, check_number
from waterbed.information import spectrum
from waterbed.information.checks import check_inputs, check_targets, choose_parameters, examples_that_fit, per_example
from waterbed.information.estimate import Estimate, mean_estimate
from waterbed.information.likelihood import label_scores, sample_labels, softmax_root
from waterbed.information.per_example import Directions, WeightRows
from waterbed.models.states import frozen
from waterbed.progress import track

LABELS = ("exact", "sampled", "empirical")
LARGEST_MATRIX = 4096


@dataclass(frozen=True)
class _Sums:
    """What one pass over the examples gives: diagonal (k,), tr F_x and tr(D F_x D) of each example (N,)."""

    diagonal: Tensor
    traces: Tensor
    invariant_traces: Tensor


class WeightFisher:
    """Fisher information of the labels about the weights, F_w = E_x L_w^T (diag p - p p^T) L_w, L_w = dlogits/dw.

    It is a mean over the inputs, in nats per squared unit of weight: KL(p_w || p_{w+d}) ~ 1/2 d^T F_w d (the 1/2 is
    missing in the paper's Preliminaries). Measures run in eval mode; the mode is restored.

    Args:
        model: logits (N, K) from ``model(x)``.
        inputs: (N, ...), of any shape, range and floating type the model takes.
        targets: labels (N,), for labels="empirical" and for :meth:`complexity`.
        labels: "exact" sums over all K labels weighted by p; "sampled" draws one a example from p: the same mean,
            K times cheaper; "empirical" takes ``targets``: another quantity, not an estimate of the first two.
        params: "all", "features" (all but ``model.head``), or a predicate on parameter names.
        seed: of the sampled labels.
        chunk_size: examples held at a time; by default what fits in 512 MiB.
        progress: show a bar.

    Under several processes each does its share of the examples, so all must make the same calls.
    Flat weights are in ``model.parameters()`` order, row-major. Results are float64.

    Raises:
        UsageError: inputs that do not fit or are not finite, missing or superfluous targets, no parameters chosen,
            parameters shared between layers.

    >>> model = nn.Linear(3, 2)
    >>> F = WeightFisher(model, torch.randn(20, 3))
    >>> F.diagonal().shape
    torch.Size([8])
    >>> abs(float(F.trace()) - float(F.diagonal().sum())) < 1e-6
    True
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        targets: Tensor | None = None,
        labels: str = "exact",
        params: str | Callable[[str], bool] = "all",
        *,
        seed: int = 0,
        chunk_size: int | None = None,
        progress: bool = False,
    ) -> None:
        check_choice("labels", labels, LABELS)
        inputs, logits = check_inputs(model, inputs)
        classes = logits.shape[1]
        self.model, self.inputs, self.labels = model, inputs, labels
        self.seed = seed if labels == "sampled" else None
        self.parameters = choose_parameters(model, params)
        self.size = sum(p.numel() for p in self.parameters.values())
        self.targets = check_targets(targets, labels, len(inputs), classes)
        self._uniforms = torch.rand(len(inputs), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.width = classes - 1 if labels == "exact" else 1
        self.num_rows = len(inputs) * self.width
        if chunk_size is not None:
            check_count("chunk_size", chunk_size)
        self.progress = progress
        self._rows = WeightRows(model, list(self.parameters), inputs[:1])
        # An example's rows of all weights at once; and what backward passes keep, with which squares make do.
        rows = self.width * self.size * inputs.element_size()
        kept = (self.width + 2) * self._rows.activations(inputs[:1]) * inputs.element_size()
        self.chunk_size = chunk_size or examples_that_fit(rows + kept)
        self._squares_size = chunk_size or examples_that_fit(kept + (rows if self._rows.method == "vmap" else 0))
        self.forward_size = chunk_size or 256
        self._cached: _Sums | None = None
        self._gram: Tensor | None = None

    def examples(self, size: int) -> Iterator[tuple[Tensor, slice]]:
        """The inputs in groups of at most ``size``, with their positions; of several processes each gets its own."""
        for part in slices(len(self.inputs), size):
            yield self.inputs[part], part

    def directions(self, logits: Tensor, part: slice) -> Tensor:
        """V (n, K, m) with V V^T the Fisher matrix of the labels about the logits, for examples ``part``."""
        if self.labels == "exact":
            return softmax_root(logits)
        if self.labels == "empirical":
            return label_scores(logits, self.targets[part, None].to(logits.device))
        return label_scores(logits, sample_labels(logits, self._uniforms[part].to(logits.device)))

    def rows(self) -> Iterator[tuple[str, Tensor, slice]]:
        """Of each chunk of examples ``part``, weight by weight, ``(name, rows (n, m, *shape), part)``: F_w is the mean
        over examples of the sum over m of the rows' outer products."""
        for x, directions, part in self._chunks(self.chunk_size):
            for name, rows in self._rows(x, directions):
                yield name, rows, part

    def _chunks(self, size: int) -> Iterator[tuple[Tensor, Directions, slice]]:
        total = len(slices(len(self.inputs), size))
        parts = track(self.examples(size), f"weight Fisher ({self.labels})", total, self.progress)
        with frozen(self.model):
            for x, part in parts:
                yield x, lambda logits, part=part: self.directions(logits, part), part

    def block(self, start: int, stop: int) -> dict[str, Tensor]:
        """Rows (n m, size) of examples start .. stop by parameter."""
        with frozen(self.model):
            pieces: dict[str, list[Tensor]] = {name: [] for name in self.parameters}
            stop = min(stop, len(self.inputs))
            for first in range(start, stop, self.chunk_size):
                part = slice(first, min(first + self.chunk_size, stop))
                for name, rows in self._rows(self.inputs[part], lambda logits, p=part: self.directions(logits, p)):
                    pieces[name].append(rows.flatten(2).flatten(0, 1))
        return {name: torch.cat(parts) for name, parts in pieces.items()}

    def _squares(self) -> Iterator[tuple[str, Tensor, slice]]:
        """Of each chunk and weight: ``(name, (F_x)_ii (n, *shape), part)``, the diagonal of each example's matrix."""
        for x, directions, part in self._chunks(self._squares_size):
            for name, squares in self._rows.squares(x, directions):
                yield name, squares, part

    def _sums(self) -> _Sums:
        """Diagonal, and per-example traces, in one pass that is made once."""
        if self._cached is None:
            zeros = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in self.parameters.items()}
            traces = torch.zeros(2, len(self.inputs), dtype=torch.float64, device=self.inputs.device)
            weights = {n: p.detach().square().flatten() for n, p in self.parameters.items()}
            for name, squares, part in self._squares():
                flat = squares.flatten(1)
                zeros[name] += squares.sum(0)
                traces[0, part] += flat.sum(1)
                traces[1, part] += flat @ weights[name]
            diagonal = summed(torch.cat([z.flatten() for z in zeros.values()])) / len(self.inputs)
            traces = summed(traces)
            self._cached = _Sums(diagonal, traces[0], traces[1])
        return self._cached

    def diagonal(self) -> Tensor:
        """Diagonal of F_w, (k,), float64."""
        return self._sums().diagonal.clone()

    def trace(self) -> Estimate:
        """tr F_w. It is not invariant under rescaling of layers; see :meth:`rescaling_invariant_trace`."""
        return self._estimate(self._sums().traces, "nats/weight^2", "trace")

    def rescaling_invariant_trace(self) -> Estimate:
        """tr(D F_w D), D = diag(w): unchanged when a layer is scaled by c and the next by 1/c (ReLU networks)."""
        return self._estimate(self._sums().invariant_traces, "nats", "tr(DFD)")

    def log_variance(self, damping: float = 1e-8) -> Estimate:
        """Mean over the weights of -log(F_ii + damping): the log-variance of the paper's Fig. 4, from the diagonal.

        F_w is singular for every real network (rank <= N (K - 1)), so the number means nothing without its damping;
        compare only networks of one structure at one damping and n. The error is that of the linearised mean.
        """
        check_number("damping", damping, above=0)
        damped = self.diagonal() + damping
        influence = self.linear(-1 / (damped * self.size))
        value = -damped.log().mean()
        method = f"diagonal, damping {damping:g}"
        return self._estimate(value + influence - influence.mean(), "nats", method)

    def linear(self, slope: Tensor) -> Tensor:
        """sum_i slope_i (F_x)_ii of each example, (N,), for a flat (k,) slope."""
        slopes = dict(zip(self.parameters, self.split(slope), strict=True))
        total = torch.zeros(len(self.inputs), dtype=torch.float64, device=self.inputs.device)
        for name, squares, part in self._squares():
            total[part] += squares.flatten(1) @ slopes[name].flatten().to(squares.dtype)
        return summed(total)

    def matrix(self) -> Tensor:
        """F_w as a dense (k, k) matrix, float64; for at most 4096 weights."""
        if self.size > LARGEST_MATRIX:
            raise UsageError(
                f"params has {self.size} weights; matrix() stops at {LARGEST_MATRIX}: use diagonal() or trace(), or "
                "choose fewer with params="
            )
        total = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.inputs.device)
        for x, directions, _ in self._chunks(self.chunk_size):
            by_name = dict(self._rows(x, directions))
            rows = torch.cat([by_name[name].flatten(2) for name in self.parameters], dim=2).flatten(0, 1).double()
            total += rows.mT @ rows
        return summed(total) / len(self.inputs)

    def gram(self) -> Tensor:
        """The dual of F_w, U U^T with F_w = U^T U: (N m, N m), float64, the same non-zero eigenvalues; computed once.
        For N m up to 5000."""
        if self._gram is None:
            spectrum.choose(self, "gram")
            self._gram = spectrum.gram(self)
        return self._gram

    def matvec(self, vector: Tensor) -> Tensor:
        """F_w v for v (k,), float64, without any matrix."""
        return spectrum.matvec(self, vector)

    def linear_operator(self) -> LinearOperator:
        """F_w as a SciPy LinearOperator (k, k), for the solvers of scipy.sparse.linalg."""
        return spectrum.linear_operator(self)

    def eigenvalues(self, count: int | None = None, method: str = "auto") -> Tensor:
        """The ``count`` largest eigenvalues, descending, float64.

        "gram" is exact and gives all that differ from 0 (``count=None``); "lanczos" (SciPy's eigsh) the largest few.
        """
        return spectrum.eigenvalues(self, count, method)

    def lambda_max(self, method: str = "auto") -> Estimate:
        """Largest eigenvalue of F_w; its error over examples is that of v^T F_x v at its eigenvector v."""
        value = float(self.eigenvalues(1, method)[0])
        along = spectrum.product(self, spectrum.top_eigenvector(self)[:, None])[:, 0].square()
        samples = along.reshape(len(self.inputs), self.width).sum(1) * len(self.inputs)
        error = mean_estimate(samples, "", "").stderr
        return self.estimate(value, error, "nats/weight^2", f"lambda_1 by {spectrum.choose(self, method)}")

    def logdet(self, damping: float = 1e-3, method: str = "auto", num_probes: int = 10, steps: int = 60) -> Estimate:
        """log det(F_w + damping I) in nats.

        Without damping it is -infinity for every real network (rank <= N (K - 1)); it grows with N, and networks of
        different size do not compare. "gram" is exact (N m up to 5000), with the linearised error over examples;
        "lanczos" is stochastic quadrature, with the error over ``num_probes`` probes; "diagonal" is an upper bound
        (Hadamard), often hundreds of nats off. "auto" takes gram where it can.
        """
        return spectrum.logdet(self, damping, method, num_probes, steps)

    def information(
        self, beta: float, prior_variance: float, convention: str = "exact", method: str = "auto"
    ) -> Estimate:
        """Information in the weights: KL(Q* || P) of eq. 6 at its minimum, in nats.

        P = N(0, lambda^2 I), Q* = N(w, Sigma*), lambda^2 = ``prior_variance``, with F_w for the Hessian (good when the
        predictions are right). With s_i = lambda_i(F) lambda^2 / beta,

            KL = 1/2 sum_i [log(1 + s_i) - s_i / (1 + s_i)] + |w|^2 / (2 lambda^2).

        ``convention="paper"`` is the KL at the paper's Sigma* = (beta / 2) (F + beta / (2 lambda^2) I)^-1: the exact
        form at beta / 2. Eq. 12 as printed has -k for -k/2 and is never used. The loss is a mean over examples, so
        beta = 1 / N is the Bayes posterior.
        """
        return spectrum.information(self, beta, prior_variance, convention, method)

    def sample(
        self, beta: float, prior_variance: float, num_samples: int = 1, seed: int = 0, method: str = "exact"
    ) -> Tensor:
        """Draws (num_samples, k) of n ~ N(0, Sigma*), Sigma* = beta (F_w + (beta / lambda^2) I)^-1, float64.

        "exact" solves through the Gram dual (Woodbury; N m up to 5000), no k x k matrix; "diagonal" keeps the
        diagonal of F_w. Directions that F_w says nothing about keep the variance lambda^2 however small beta is.
        """
        return spectrum.sample(self, beta, prior_variance, num_samples, seed, method)

    def complexity(self, beta: float, prior_variance: float, num_samples: int = 20, seed: int = 0) -> Estimate:
        """C_beta of eq. 6 at Q*: E_Q[L] + beta KL(Q* || P), in nats; needs ``targets``.

        E_Q[L] is the mean cross-entropy on the inputs over ``num_samples`` exact draws of the weights; the error over
        these draws is the probe error, that over examples belongs to the loss and the KL together.
        """
        if self.targets is None:
            raise UsageError("complexity needs targets=, the labels of the inputs, for its loss")
        kl = self.information(beta, prior_variance)
        draws = self.sample(beta, prior_variance, num_samples, seed)
        losses = torch.stack([self._losses(draw) for draw in draws])
        over_draws = mean_estimate(losses.mean(1), "", "").stderr
        over_examples = math.hypot(mean_estimate(losses.mean(0), "", "").stderr, beta * kl.stderr)
        value = float(losses.mean()) + beta * kl.value
        return self.estimate(value, over_examples, "nats", f"{num_samples} draws of Q*", over_draws, seed)

    def _losses(self, noise: Tensor) -> Tensor:
        """Cross-entropy (N,) of each example at w + noise."""
        parts = zip(self.parameters.items(), self.split(noise), strict=True)
        weights = {name: p.detach() + part.to(p.dtype) for (name, p), part in parts}
        with frozen(self.model) as model, torch.no_grad():
            losses = (
                (
                    part,
                    cross_entropy(
                        functional_call(model, weights, (x,)), self.targets[part].to(x.device), reduction="none"
                    ),
                )
                for x, part in self.examples(self.forward_size)
            )
            return per_example(len(self.inputs), losses, self.inputs)

    def split(self, flat: Tensor) -> list[Tensor]:
        """A flat (k,) vector as one tensor a parameter."""
        parts = flat.split([p.numel() for p in self.parameters.values()])
        return [part.reshape(p.shape) for part, p in zip(parts, self.parameters.values(), strict=True)]

    def estimate(
        self, value: float, stderr: float, unit: str, what: str, probe_stderr: float = 0.0, seed: int | None = None
    ) -> Estimate:
        """An :class:`Estimate` that names these labels."""
        seed = seed if probe_stderr else self.seed
        return Estimate(value, stderr, unit, len(self.inputs), f"{what}, {self.labels} labels", seed, probe_stderr)

    def _estimate(self, samples: Tensor, unit: str, what: str) -> Estimate:
        return mean_estimate(samples, unit, f"{what}, {self.labels} labels", self.seed)
