"""FisherOperator: a Fisher matrix about the weights of a model, known by its rows and its products."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from waterbed.distributed import share, slices, summed
from waterbed.information.checks import examples_that_fit
from waterbed.information.operators import SymmetricOperator, check_gram
from waterbed.information.per_example import Directions, WeightRows, forward_product
from waterbed.models.states import frozen
from waterbed.progress import Progress, track

LEFT_OUT_VALUES = 2**20  # of the diagonal without each example, at once
BLOCK_BYTES = 2**30  # of rows, in a block of the Gram matrix
SQUARES_BYTES = 3 * 2**28  # of the diagonals of all F_x: 500 examples of 400,000 weights in float32
Squares = tuple[str, Tensor, slice]


@dataclass(frozen=True)
class _Sums:
    """What one pass over the examples gives: diagonal (k,), tr F_x and tr(D F_x D) of each example (N,)."""

    diagonal: Tensor
    traces: Tensor
    invariant_traces: Tensor


class FisherOperator(SymmetricOperator):
    """F = E_x F_x, F_x = J^T V V^T J, with J = doutputs/dw of an example and V (K, m) its :meth:`directions`.

    F = U^T U, where U stacks the m rows V^T J of each of N examples, over sqrt(N): (N m, k). U is never held as a
    whole. Flat weights are in ``model.parameters()`` order, row-major; results are float64.

    One pass over the examples serves :meth:`diagonal`, the per-example traces and :meth:`weighted_traces`, as long as
    the diagonals of all F_x (N k numbers) fit into 768 MiB, which the operator then holds; beyond that,
    weighted_traces makes a pass of its own.

    Args:
        model: outputs (N, K) from ``model(x)``.
        inputs: (N, ...), checked, on the model's device.
        parameters: the weights w by name.
        width: m.
        chunk_size: examples held at a time; by default what fits in 512 MiB.
        progress: show a bar.
    """

    name = "Fisher"

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        parameters: dict[str, Tensor],
        width: int,
        chunk_size: int | None = None,
        progress: bool = False,
    ) -> None:
        self.model, self.inputs, self.parameters, self.width = model, inputs, parameters, width
        self.size = sum(p.numel() for p in parameters.values())
        self.num_examples, self.num_rows = len(inputs), len(inputs) * width
        self.progress = progress
        self._rows = WeightRows(model, list(parameters), inputs[:1])
        # An example's rows of all weights at once; and what backward passes hold, with which squares make do.
        rows = width * self.size * inputs.element_size()
        activations = (width + 2) * self._rows.activations(inputs[:1]) * inputs.element_size()
        self.chunk_size = chunk_size or examples_that_fit(rows + activations)
        self._squares_size = chunk_size or examples_that_fit(activations + (rows if self._rows.method == "vmap" else 0))
        self.forward_size = chunk_size or 256
        self._cached_sums: _Sums | None = None
        self._cached_squares: list[Squares] = []
        self._gram: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.inputs.device

    @abstractmethod
    def directions(self, logits: Tensor, part: slice) -> Tensor:
        """V (n, K, m), for the examples ``part`` with outputs ``logits`` (n, K)."""

    def examples(self, size: int) -> Iterator[tuple[Tensor, slice]]:
        """The inputs in groups of at most ``size``, with their positions; of several processes each gets its own."""
        for part in slices(self.num_examples, size):
            yield self.inputs[part], part

    def split(self, flat: Tensor) -> list[Tensor]:
        """A flat (k,) vector as one tensor for each parameter."""
        parts = flat.split([p.numel() for p in self.parameters.values()])
        return [part.reshape(p.shape) for part, p in zip(parts, self.parameters.values(), strict=True)]

    def rows(self) -> Iterator[tuple[str, Tensor, slice]]:
        """For each chunk of examples ``part`` and each weight: ``(name, rows (n, m, *shape), part)``, without the
        1 / sqrt(N) of U."""
        for x, directions, part in self._chunks(self.chunk_size):
            for name, rows in self._rows(x, directions):
                yield name, rows, part

    def _chunks(self, size: int) -> Iterator[tuple[Tensor, Directions, slice]]:
        parts = track(self.examples(size), self.name, len(slices(self.num_examples, size)), self.progress)
        with frozen(self.model):
            for x, part in parts:
                yield x, lambda logits, part=part: self.directions(logits, part), part

    def _flat_rows(self) -> Iterator[tuple[str, Tensor, slice]]:
        """For each chunk and parameter: its name, rows (n m, size) and their positions among the N m."""
        for name, rows, part in self.rows():
            yield name, rows.flatten(2).flatten(0, 1), slice(part.start * self.width, part.stop * self.width)

    def block(self, start: int, stop: int) -> dict[str, Tensor]:
        """Rows (n m, size) of examples start .. stop by parameter."""
        with frozen(self.model):
            pieces: dict[str, list[Tensor]] = {name: [] for name in self.parameters}
            stop = min(stop, self.num_examples)
            for first in range(start, stop, self.chunk_size):
                part = slice(first, min(first + self.chunk_size, stop))
                for name, rows in self._rows(self.inputs[part], lambda logits, p=part: self.directions(logits, p)):
                    pieces[name].append(rows.flatten(2).flatten(0, 1))
        return {name: torch.cat(parts) for name, parts in pieces.items()}

    def _products(self, columns: Tensor) -> Tensor:
        """F V: for each chunk one graph of the forward pass, then a forward-mode and a reverse-mode product
        for each column.

        A vmap over the columns was measured, too: faster on tiny dense networks, slower and p times as large on
        convolutions, whose weights' gradients it turns into grouped convolutions.
        """
        primal = {name: p.detach() for name, p in self.parameters.items()}
        tangents = [
            {name: part.to(p.dtype) for (name, p), part in zip(primal.items(), self.split(column), strict=True)}
            for column in columns.T
        ]
        total = torch.zeros_like(columns)
        with frozen(self.model) as model, torch.no_grad():
            for x, part in self.examples(self.forward_size):

                def outputs(weights: dict[str, Tensor], x: Tensor = x) -> Tensor:
                    return functional_call(model, weights, (x,))

                logits, pull = vjp(outputs, primal)
                v = self.directions(logits, part)
                for j, tangent in enumerate(tangents):
                    _, change = forward_product(outputs, (primal,), (tangent,))
                    (back,) = pull((v @ (v.mT @ change[:, :, None]))[:, :, 0])
                    total[:, j] += torch.cat([back[name].double().flatten() for name in primal])
        return summed(total) / self.num_examples

    def project(self, columns: Tensor) -> Tensor:
        """U V for columns V (k, p): (N m, p), float64."""
        starts = np.cumsum([0, *(p.numel() for p in self.parameters.values())])
        offsets = dict(zip(self.parameters, starts, strict=False))
        total = torch.zeros(self.num_rows, columns.shape[1], dtype=torch.float64, device=columns.device)
        for name, rows, part in self._flat_rows():
            start = int(offsets[name])
            total[part] += rows.double() @ columns[start : start + rows.shape[1]]
        return summed(total) / math.sqrt(self.num_examples)

    def combine(self, coefficients: Tensor) -> Tensor:
        """U^T C for coefficients C (N m, p): (k, p), float64."""
        sums = {
            n: torch.zeros(p.numel(), coefficients.shape[1], dtype=torch.float64, device=coefficients.device)
            for n, p in self.parameters.items()
        }
        for name, rows, part in self._flat_rows():
            sums[name] += rows.T.double() @ coefficients[part]
        return summed(torch.cat(list(sums.values()))) / math.sqrt(self.num_examples)

    def gram(self) -> Tensor:
        """The dual of F, U U^T: (N m, N m), float64, the same non-zero eigenvalues. Computed once, block by block.

        Raises:
            UsageError: N m > 5000.
        """
        if self._gram is None:
            check_gram(self.num_rows)
            self._gram = self._compute_gram()
        return self._gram

    def _compute_gram(self) -> Tensor:
        examples = max(1, BLOCK_BYTES // (self.size * self.inputs.element_size() * self.width))
        blocks = range(0, self.num_examples, examples)
        total = torch.zeros(self.num_rows, self.num_rows, dtype=torch.float64, device=self.device)
        mine = share([(i, [j for j in blocks if j >= i]) for i in blocks])
        with Progress(f"Gram matrix of the {self.name}", sum(len(js) for _, js in mine), self.progress) as progress:
            for i, js in mine:
                left = self.block(i, i + examples)
                for j in js:
                    right = left if i == j else self.block(j, j + examples)
                    a, b = i * self.width, j * self.width
                    product = sum((x @ right[name].T).double() for name, x in left.items())
                    total[a : a + len(product), b : b + product.shape[1]] = product
                    total[b : b + product.shape[1], a : a + len(product)] = product.T
                    progress.advance()
        return summed(total) / self.num_examples

    def _squares(self) -> Iterator[Squares]:
        """For each chunk and weight: ``(name, (F_x)_ii (n, *shape), part)``, the diagonal of each example's matrix."""
        if self._cached_squares:
            yield from self._cached_squares
            return
        fits = self.num_examples * self.size * self.inputs.element_size() <= SQUARES_BYTES
        squares: list[Squares] = []
        for x, directions, part in self._chunks(self._squares_size):
            for name, values in self._rows.squares(x, directions):
                if fits:
                    squares.append((name, values, part))
                yield name, values, part
        self._cached_squares = squares

    def _sums(self) -> _Sums:
        """Diagonal and per-example traces, in one pass that is made once."""
        if self._cached_sums is None:
            zeros = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in self.parameters.items()}
            traces = torch.zeros(2, self.num_examples, dtype=torch.float64, device=self.device)
            weights = {n: p.detach().square().flatten() for n, p in self.parameters.items()}
            for name, squares, part in self._squares():
                flat = squares.flatten(1)
                zeros[name] += squares.sum(0)
                traces[0, part] += flat.sum(1)
                traces[1, part] += flat @ weights[name]
            diagonal = summed(torch.cat([z.flatten() for z in zeros.values()])) / self.num_examples
            traces = summed(traces)
            self._cached_sums = _Sums(diagonal, traces[0], traces[1])
        return self._cached_sums

    def diagonal(self) -> Tensor:
        """Diagonal of F, (k,), float64."""
        return self._sums().diagonal.clone()

    def weighted_traces(self, weights: Tensor) -> Tensor:
        """sum_i c_i (F_x)_ii of each example, (N,), for flat weights c (k,)."""
        by_name = dict(zip(self.parameters, self.split(weights), strict=True))
        total = torch.zeros(self.num_examples, dtype=torch.float64, device=self.device)
        for name, squares, part in self._squares():
            total[part] += squares.flatten(1) @ by_name[name].flatten().to(squares.dtype)
        return summed(total)

    def diagonal_sums_left_out(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """sum_i f(F_ii) without each example, (N,), N >= 2, for an f of every entry; for the jackknife."""
        by_name = dict(zip(self.parameters, self.split(self.num_examples * self._sums().diagonal), strict=True))
        total = torch.zeros(self.num_examples, dtype=torch.float64, device=self.device)
        for name, squares, part in self._squares():
            whole, each = by_name[name].flatten(), squares.flatten(1)
            few = each.split(max(1, LEFT_OUT_VALUES // each.shape[1]))
            # What rounding leaves below 0, where one example has nearly all of an entry, is 0.
            rest = ((whole - some.double()).clamp_min(0) / (self.num_examples - 1) for some in few)
            total[part] += torch.cat([function(values).sum(1) for values in rest])
        return summed(total)
