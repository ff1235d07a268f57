"""WeightFisher: the information of the labels about the weights, F_w."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from waterbed.devices import seeded_generator
from waterbed.distributed import summed
from waterbed.errors import UsageError, check_choice, check_count, check_number
from waterbed.information import draws, spectrum, weight_information
from waterbed.information.checks import check_inputs, check_targets, choose_parameters, gather_batches, per_example
from waterbed.information.defaults import PRIOR_VARIANCE
from waterbed.information.estimate import POPULATION, SAMPLE_SIZE, Estimate, mean_estimate, pseudo_values
from waterbed.information.fisher_operator import FisherOperator
from waterbed.information.likelihood import label_scores, sample_labels, softmax_root
from waterbed.information.operators import LARGEST_MATRIX
from waterbed.information.weight_information import InformationCurve
from waterbed.models.states import frozen

LABELS = ("exact", "sampled", "empirical")


class WeightFisher(FisherOperator):
    """Fisher information of the labels about the weights, F_w = E_x L_w^T (diag p - p p^T) L_w, L_w = dlogits/dw.

    It is a mean over the inputs, in nats per squared unit of weight: KL(p_w || p_{w+d}) ~ 1/2 d^T F_w d (the 1/2 is
    missing in the paper's Preliminaries). Measures run in eval mode; the mode is restored.

    It is an operator (k, k): ``F @ V`` for one vector or several columns, :meth:`to_scipy`, ``wb.logdet(F, damping)``.
    The first of :meth:`diagonal`, :meth:`trace`, :meth:`log_variance` and :meth:`rescaling_invariant_trace` makes a
    pass over the examples that serves them all; where the squares of all N k per-example gradients exceed 768 MiB,
    log_variance takes a second one.

    Args:
        model: logits (N, K) from ``model(x)``.
        inputs: (N, ...), of any shape, range and floating type the model takes; or a DataLoader or another iterable of
            batches, ``x`` or ``(x, y)``. It is read once and its inputs are held in memory: draw a subset of large
            data first.
        targets: labels (N,), for labels="empirical" and for :meth:`complexity`; batches ``(x, y)`` bring their own.
        labels: "exact" sums over all K labels weighted by p; "sampled" draws one label for each example from p: the
            same mean, K times cheaper; "empirical" takes ``targets``: another quantity, not an estimate of the first
            two.
        params: "all", "features" (all but ``model.head``), or a predicate on parameter names.
        seed: of the sampled labels.
        chunk_size: examples held at a time; by default what fits in 512 MiB.
        progress: show a bar.

    Under several processes each does its share of the examples, so all must make the same calls with the same inputs.
    Flat weights are in ``model.parameters()`` order, row-major. Results are float64.

    Raises:
        UsageError: inputs that do not fit or are not finite, no batches, missing or superfluous targets, no parameters
            chosen, parameters shared between layers.

    >>> model = nn.Linear(3, 2)
    >>> F = WeightFisher(model, torch.randn(20, 3))
    >>> F.diagonal().shape, (F @ torch.randn(8, 5)).shape
    (torch.Size([8]), torch.Size([8, 5]))
    >>> abs(float(F.trace()) - float(F.diagonal().sum())) < 1e-6
    True
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor | Iterable[Tensor | tuple[Tensor, Tensor]],
        targets: Tensor | None = None,
        labels: str = "exact",
        params: str | Callable[[str], bool] = "all",
        *,
        seed: int = 0,
        chunk_size: int | None = None,
        progress: bool = False,
    ) -> None:
        check_choice("labels", labels, LABELS)
        inputs, loader_targets = gather_batches(inputs)
        if targets is not None and loader_targets is not None:
            raise UsageError("targets= was passed, but the batches of inputs bring labels, too; leave targets out")
        inputs, logits = check_inputs(model, inputs)
        self.classes = logits.shape[1]
        if chunk_size is not None:
            check_count("chunk_size", chunk_size)
        parameters = choose_parameters(model, params)
        if labels == "empirical" and targets is None:
            targets, loader_targets = loader_targets, None
        targets = check_targets(targets, labels, len(inputs), self.classes)
        # Labels that only come along with the batches are checked where they are used: they may be no classes at all.
        self.targets = targets if loader_targets is None else loader_targets
        self.labels, self.name = labels, f"weight Fisher ({labels})"
        self.seed = seed if labels == "sampled" else None
        self._uniforms = torch.rand(len(inputs), 1, generator=seeded_generator(seed), dtype=torch.float64)
        width = self.classes - 1 if labels == "exact" else 1
        super().__init__(model, inputs, parameters, width, chunk_size, progress)

    def directions(self, logits: Tensor, part: slice) -> Tensor:
        """V (n, K, m) with V V^T the Fisher matrix of the labels about the logits, for examples ``part``."""
        if self.labels == "exact":
            return softmax_root(logits)
        if self.labels == "empirical":
            return label_scores(logits, self.targets[part, None].to(logits.device))
        return label_scores(logits, sample_labels(logits, self._uniforms[part].to(logits.device)))

    def trace(self) -> Estimate:
        """tr F_w. It is not invariant under rescaling of layers; see :meth:`rescaling_invariant_trace`."""
        return self._estimate(self._sums().traces, "nats/weight^2", "trace")

    def rescaling_invariant_trace(self) -> Estimate:
        """tr(D F_w D), D = diag(w): unchanged when a layer is scaled by c and the next by 1/c (ReLU networks)."""
        return self._estimate(self._sums().invariant_traces, "nats", "tr(DFD)")

    def log_variance(self, damping: float = 1e-8, target: str = POPULATION) -> Estimate:
        """Mean over the weights of -log(F_ii + damping): the log-variance of the paper's Fig. 4, from the diagonal.

        F_w is singular for every real network (rank <= N (K - 1)), so the number means nothing without its damping;
        compare only networks of one structure at one damping. The mean of logs of a diagonal from N examples lies
        above that of all there are, by an amount of order 1 / N that differs between networks.

        Args:
            target: "population" takes that bias out by the jackknife; "sample size" leaves it in: the number belongs
                to N, and only those at the same N compare. The error is the jackknife's in both.

        >>> F = WeightFisher(nn.Linear(3, 2), torch.randn(20, 3))
        >>> F.log_variance().value < F.log_variance(target="sample size").value
        True
        """
        check_number("damping", damping, above=0)
        check_choice("target", target, (POPULATION, SAMPLE_SIZE))
        value = -(self.diagonal() + damping).log().mean()
        if self.num_examples == 1:  # no jackknife
            return self.estimate(float(value), math.nan, "nats", f"diagonal, damping {damping:g}", target=SAMPLE_SIZE)
        left_out = self.diagonal_sums_left_out(lambda values: -(values + damping).log()) / self.size
        corrected = self._estimate(pseudo_values(value, left_out), "nats", f"diagonal, damping {damping:g}, jackknife")
        return corrected if target == POPULATION else replace(corrected, value=float(value), target=target)

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
        return summed(total) / self.num_examples

    def eigenvalues(self, count: int | None = None, method: str = "auto") -> Tensor:
        """The ``count`` largest eigenvalues, descending, float64.

        "gram" is exact and gives all that differ from 0 (``count=None``); "lanczos" (SciPy's eigsh) the largest few.
        """
        return spectrum.eigenvalues(self, count, method)

    def lambda_max(self, method: str = "auto") -> Estimate:
        """Largest eigenvalue of F_w; its error over examples is that of v^T F_x v at its eigenvector v."""
        value = float(self.eigenvalues(1, method)[0])
        along = self.project(spectrum.top_eigenvector(self)[:, None])[:, 0].square()
        samples = along.reshape(self.num_examples, self.width).sum(1) * self.num_examples
        error = mean_estimate(samples, "", "").stderr
        return self.estimate(value, error, "nats/weight^2", f"lambda_1 by {spectrum.choose(self, method)}")

    def logdet(self, damping: float = 1e-3, method: str = "auto", num_probes: int = 10, steps: int = 60) -> Estimate:
        """log det(F_w + damping I) in nats.

        Without damping it is -infinity for every real network (rank <= N (K - 1)); it grows with N, and networks of
        different size do not compare. "gram" is exact (N m up to 5000), with the jackknife's error over examples;
        "lanczos" is stochastic quadrature, with the error over ``num_probes`` probes; "diagonal" is an upper bound
        (Hadamard), often hundreds of nats off. "auto" takes gram where it can.
        """
        return spectrum.logdet(self, damping, method, num_probes=num_probes, steps=steps)

    def effective_dimension(self, damping: float, method: str = "auto") -> Estimate:
        """sum_i lambda_i / (lambda_i + z), z = ``damping``: directions of the weights that the data determine; of any
        operator: :func:`waterbed.information.spectrum.effective_dimension`."""
        return spectrum.effective_dimension(self, damping, method)

    def information(
        self, beta: float, prior_variance: float, convention: str = "exact", method: str = "auto"
    ) -> Estimate:
        """Information in the weights: KL(Q* || P) of eq. 6 at its minimum, in nats.

        P = N(0, lambda^2 I), Q* = N(w, Sigma*), lambda^2 = ``prior_variance``, with F_w for the Hessian (good when the
        predictions are right). With s_i = lambda_i(F) lambda^2 / beta,

            KL = 1/2 sum_i [log(1 + s_i) - s_i / (1 + s_i)] + |w|^2 / (2 lambda^2).

        ``convention="paper"`` is the KL at the paper's Sigma* = (beta / 2) (F + beta / (2 lambda^2) I)^-1: the exact
        form at beta / 2. Eq. 12 as printed has -k for -k/2 and is never used. The loss is a mean over examples, so
        beta = 1 / N is the Bayes posterior. ``method="diagonal"`` is the KL of the best Q with independent weights,
        with F_ii for the eigenvalues.
        """
        return weight_information.information(self, self._squared_norm(), beta, prior_variance, convention, method)

    def information_curve(
        self,
        betas: Sequence[float],
        prior_variances: Sequence[float] = (PRIOR_VARIANCE,),
        convention: str = "exact",
        method: str = "auto",
    ) -> InformationCurve:
        """:meth:`information` at every beta and prior variance, (beta, prior variance) -> nats, from one spectrum.

        One point says little: the order of two networks may change along the curve. It prints as a table and has
        ``.plot()``.

        >>> F = WeightFisher(nn.Linear(3, 2), torch.randn(20, 3))
        >>> F.information_curve([1e-3, 1e-2])[1e-3, 1e-3].unit
        'nats'
        """
        return weight_information.information_curve(
            self, self._squared_norm(), betas, prior_variances, convention, method
        )

    def _squared_norm(self) -> float:
        return sum(float(p.detach().double().square().sum()) for p in self.parameters.values())

    def sample(
        self, beta: float, prior_variance: float, num_samples: int = 1, seed: int = 0, method: str = "exact"
    ) -> Tensor:
        """Draws (num_samples, k) of n ~ N(0, Sigma*), Sigma* = beta (F_w + (beta / lambda^2) I)^-1, float64.

        "exact" solves through the Gram dual (Woodbury; N m up to 5000), no k x k matrix; "diagonal" keeps the
        diagonal of F_w. Directions that F_w says nothing about keep the variance lambda^2 however small beta is.
        """
        return draws.sample(self, beta, prior_variance, num_samples, seed, method)

    def complexity(self, beta: float, prior_variance: float, num_samples: int = 20, seed: int = 0) -> Estimate:
        """C_beta of eq. 6 at Q*: E_Q[L] + beta KL(Q* || P), in nats; needs ``targets``.

        E_Q[L] is the mean cross-entropy on the inputs over ``num_samples`` exact draws of the weights; the error over
        these draws is the probe error, that over examples belongs to the loss and the KL together.
        """
        if self.targets is None:
            raise UsageError("complexity needs targets=, the labels of the inputs, for its loss")
        kl = self.information(beta, prior_variance)
        draws = self.sample(beta, prior_variance, num_samples, seed)
        targets = check_targets(self.targets, "empirical", self.num_examples, self.classes)
        losses = torch.stack([self._losses(draw, targets) for draw in draws])
        over_draws = mean_estimate(losses.mean(1), "", "").stderr
        over_examples = math.hypot(mean_estimate(losses.mean(0), "", "").stderr, beta * kl.stderr)
        value = float(losses.mean()) + beta * kl.value
        method = f"{num_samples} draws of Q*"
        return self.estimate(value, over_examples, "nats", method, over_draws, seed, target=SAMPLE_SIZE)

    def _losses(self, noise: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy (N,) of each example at w + noise."""
        parts = zip(self.parameters.items(), self.split(noise), strict=True)
        weights = {name: p.detach() + part.to(p.dtype) for (name, p), part in parts}
        with frozen(self.model) as model, torch.no_grad():
            losses = (
                (
                    part,
                    cross_entropy(functional_call(model, weights, (x,)), targets[part].to(x.device), reduction="none"),
                )
                for x, part in self.examples(self.forward_size)
            )
            return per_example(self.num_examples, losses, self.inputs)

    def estimate(
        self,
        value: float,
        stderr: float,
        unit: str,
        what: str,
        probe_stderr: float = 0.0,
        seed: int | None = None,
        target: str = POPULATION,
    ) -> Estimate:
        """An :class:`Estimate` that names these labels."""
        seed = seed if probe_stderr else self.seed
        what = f"{what}, {self.labels} labels"
        return Estimate(value, stderr, unit, self.num_examples, what, seed, probe_stderr, target)

    def _estimate(self, samples: Tensor, unit: str, what: str) -> Estimate:
        return mean_estimate(samples, unit, f"{what}, {self.labels} labels", self.seed)
