"""WeightFisher: what the labels tell about the weights, F_w."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from waterbed.errors import UsageError, check_choice, check_count, check_number
from waterbed.information.checks import check_inputs, chunks
from waterbed.information.estimate import Estimate, mean_estimate
from waterbed.information.gradients import WeightRows
from waterbed.information.likelihood import label_scores, sample_labels, softmax_root
from waterbed.models import frozen
from waterbed.progress import track

LABELS = ("exact", "sampled", "empirical")
LARGEST_MATRIX = 4096
CHUNK_BYTES = 2**28


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
        targets: labels (N,), for labels="empirical" only.
        labels: "exact" sums over all K labels weighted by p; "sampled" draws one a example from p: the same mean,
            K times cheaper; "empirical" takes ``targets``: another quantity, not an estimate of the first two.
        params: "all", "features" (all but ``model.head``), or a predicate on parameter names.
        seed: of the sampled labels.
        chunk_size: examples held at a time; by default 256 MiB worth of gradients.
        progress: show a bar.

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
        logits = check_inputs(model, inputs)
        classes = logits.shape[1]
        self.model, self.inputs, self.labels = model, inputs, labels
        self.seed = seed if labels == "sampled" else None
        self.parameters = _choose(model, params)
        self.size = sum(p.numel() for p in self.parameters.values())
        self._targets = _check_targets(targets, labels, len(inputs), classes)
        self._uniforms = torch.rand(len(inputs), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self._width = classes if labels == "exact" else 1
        if chunk_size is not None:
            check_count("chunk_size", chunk_size)
        bytes_each = self._width * self.size * inputs.element_size()
        self.chunk_size = chunk_size or max(1, min(256, CHUNK_BYTES // bytes_each))
        self.progress = progress
        self._rows = WeightRows(model, list(self.parameters))
        self._cached: _Sums | None = None

    def rows(self) -> Iterator[list[tuple[str, Tensor]]]:
        """Of each chunk of examples, ``(name, rows (n, m, *shape))`` weight by weight: F_w is the mean over examples
        of the sum over m of the rows' outer products."""
        start = 0
        total = -(-len(self.inputs) // self.chunk_size)
        with frozen(self.model):
            for x in track(
                chunks(self.inputs, self.chunk_size), f"weight Fisher ({self.labels})", total, self.progress
            ):
                part = slice(start, start + len(x))
                start += len(x)
                yield self._rows(x, lambda logits, part=part: self._directions(logits, part))

    def _directions(self, logits: Tensor, part: slice) -> Tensor:
        if self.labels == "exact":
            return softmax_root(logits)
        if self.labels == "empirical":
            return label_scores(logits, self._targets[part, None].to(logits.device))
        return label_scores(logits, sample_labels(logits, self._uniforms[part].to(logits.device)))

    def _squares(self) -> Iterator[tuple[str, Tensor]]:
        """Of each chunk and weight: ``(name, (F_x)_ii (n, *shape))``, the diagonal of each example's own matrix."""
        for chunk in self.rows():
            for name, rows in chunk:
                yield name, rows.square_().sum(1)

    def _sums(self) -> _Sums:
        """Diagonal, and per-example traces, in one pass that is made once."""
        if self._cached is None:
            zeros = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in self.parameters.items()}
            traces = torch.zeros(2, len(self.inputs), dtype=torch.float64, device=self.inputs.device)
            weights = {n: p.detach().square().flatten() for n, p in self.parameters.items()}
            done = dict.fromkeys(self.parameters, 0)
            for name, squares in self._squares():
                part = slice(done[name], done[name] + len(squares))
                done[name] = part.stop
                flat = squares.flatten(1)
                zeros[name] += squares.sum(0)
                traces[0, part] += flat.sum(1)
                traces[1, part] += flat @ weights[name]
            diagonal = torch.cat([z.flatten() for z in zeros.values()]) / len(self.inputs)
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
        influence = self._linear(-1 / (damped * self.size))
        value = -damped.log().mean()
        method = f"diagonal, damping {damping:g}"
        return self._estimate(value + influence - influence.mean(), "nats", method)

    def _linear(self, slope: Tensor) -> Tensor:
        """sum_i slope_i (F_x)_ii of each example, (N,), for a flat (k,) slope."""
        slopes = dict(zip(self.parameters, self.split(slope), strict=True))
        total = torch.zeros(len(self.inputs), dtype=torch.float64, device=self.inputs.device)
        done = dict.fromkeys(self.parameters, 0)
        for name, squares in self._squares():
            part = slice(done[name], done[name] + len(squares))
            done[name] = part.stop
            total[part] += squares.flatten(1) @ slopes[name].flatten().to(squares.dtype)
        return total

    def matrix(self) -> Tensor:
        """F_w as a dense (k, k) matrix, float64; for at most 4096 weights."""
        if self.size > LARGEST_MATRIX:
            raise UsageError(
                f"params has {self.size} weights; matrix() stops at {LARGEST_MATRIX}: use diagonal() or trace(), or "
                "choose fewer with params="
            )
        total = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.inputs.device)
        for chunk in self.rows():
            by_name = dict(chunk)
            rows = torch.cat([by_name[name].flatten(2) for name in self.parameters], dim=2).flatten(0, 1).double()
            total += rows.mT @ rows
        return total / len(self.inputs)

    def split(self, flat: Tensor) -> list[Tensor]:
        """A flat (k,) vector as one tensor a parameter."""
        parts = flat.split([p.numel() for p in self.parameters.values()])
        return [part.reshape(p.shape) for part, p in zip(parts, self.parameters.values(), strict=True)]

    def _estimate(self, samples: Tensor, unit: str, what: str) -> Estimate:
        return mean_estimate(samples, unit, f"{what}, {self.labels} labels", self.seed)


def _choose(model: nn.Module, params: str | Callable[[str], bool]) -> dict[str, Tensor]:
    """The chosen parameters by name, in ``model.parameters()`` order."""
    if not callable(params):
        check_choice("params", params, ("all", "features"))
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    named = dict(model.named_parameters())
    shared = [name for name in names if name not in named]
    if shared:
        raise UsageError(f"model shares the parameter {shared[0]!r} between layers; give each layer its own")
    if params == "features":
        if not hasattr(model, "head"):
            raise UsageError("params='features' needs model.head; wrap the model in FeatureClassifier")
        head = {id(p) for p in model.head.parameters()}
        chosen = {name: p for name, p in named.items() if id(p) not in head}
    elif params == "all":
        chosen = named
    else:
        chosen = {name: p for name, p in named.items() if params(name)}
    if not chosen:
        raise UsageError(f"params={params!r} chooses no parameter; the model has {', '.join(names[:4])}, ...")
    return chosen


def _check_targets(targets: Tensor | None, labels: str, n: int, classes: int) -> Tensor | None:
    if (targets is None) == (labels == "empirical"):
        what = "needs targets=, the labels of the inputs" if targets is None else "takes no targets; leave them out"
        raise UsageError(f"labels={labels!r} {what}")
    if targets is None:
        return None
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.shape != (n,):
        got = f"{targets.dtype} {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"targets must be an integer tensor ({n},), not {got}")
    if int(targets.min()) < 0 or int(targets.max()) >= classes:
        raise UsageError(
            f"targets run from {int(targets.min())} to {int(targets.max())}; the model knows 0 .. {classes - 1}"
        )
    return targets.long()
