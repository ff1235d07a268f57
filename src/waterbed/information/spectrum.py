"""Spectral quantities of F_w: exact through the Gram dual, or by Lanczos where that is too large.

F = U^T U with the N m scaled rows of a :class:`WeightFisher` as U, so the k x k matrix F and the Gram matrix
G = U U^T (N m x N m) share their non-zero eigenvalues. U is never held as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.func import functional_call, vjp

from waterbed.distributed import share, summed
from waterbed.errors import UsageError, check_choice, check_count, check_number
from waterbed.information.estimate import Estimate
from waterbed.information.lanczos import trace_of_function
from waterbed.information.per_example import forward_product
from waterbed.models.states import frozen
from waterbed.progress import Progress

if TYPE_CHECKING:
    from waterbed.information.weight_fisher import WeightFisher

LARGEST_GRAM = 5000
METHODS = ("auto", "gram", "lanczos")
BLOCK_BYTES = 2**30


def choose(fisher: WeightFisher, method: str, also: tuple[str, ...] = ()) -> str:
    """ "gram" or "lanczos" for "auto"; a Gram matrix that would be too large is refused."""
    check_choice("method", method, (*METHODS, *also))
    if method == "auto":
        return "gram" if fisher.num_rows <= LARGEST_GRAM else "lanczos"
    if method == "gram" and fisher.num_rows > LARGEST_GRAM:
        raise UsageError(
            f"method='gram' would hold a matrix of {fisher.num_rows} rows and stops at {LARGEST_GRAM}; pass "
            "method='lanczos', fewer inputs or labels='sampled'"
        )
    return method


def gram(fisher: WeightFisher) -> Tensor:
    """G = U U^T, float64, block by block: two blocks of rows are in memory at a time."""
    bytes_each = fisher.size * fisher.inputs.element_size() * fisher.width
    examples = max(1, BLOCK_BYTES // bytes_each)
    blocks = range(0, len(fisher.inputs), examples)
    total = torch.zeros(fisher.num_rows, fisher.num_rows, dtype=torch.float64, device=fisher.inputs.device)
    mine = share([(i, [j for j in blocks if j >= i]) for i in blocks])
    with Progress("Gram matrix of the weight Fisher", sum(len(js) for _, js in mine), fisher.progress) as shown:
        for i, js in mine:
            left = fisher.block(i, i + examples)
            for j in js:
                right = left if i == j else fisher.block(j, j + examples)
                a, b = i * fisher.width, j * fisher.width
                product = sum((x @ right[name].T).double() for name, x in left.items())
                total[a : a + len(product), b : b + product.shape[1]] = product
                total[b : b + product.shape[1], a : a + len(product)] = product.T
                shown.advance()
    return summed(total) / len(fisher.inputs)


def matvec(fisher: WeightFisher, vector: Tensor) -> Tensor:
    """F v for v (k,), float64, by one forward-mode and one reverse-mode product for each chunk."""
    vector = torch.as_tensor(vector)
    if vector.shape != (fisher.size,):
        raise UsageError(f"vector has shape {tuple(vector.shape)}; F_w acts on ({fisher.size},)")
    primal = {name: p.detach() for name, p in fisher.parameters.items()}
    parts = fisher.split(vector.to(fisher.inputs.device))
    tangent = {name: part.to(p.dtype) for (name, p), part in zip(primal.items(), parts, strict=True)}
    total = torch.zeros(fisher.size, dtype=torch.float64, device=fisher.inputs.device)
    with frozen(fisher.model) as model, torch.no_grad():
        for x, part in fisher.examples(fisher.forward_size):

            def outputs(weights: dict[str, Tensor], x: Tensor = x) -> Tensor:
                return functional_call(model, weights, (x,))

            logits, change = forward_product(outputs, (primal,), (tangent,))
            v = fisher.directions(logits, part)
            _, pull = vjp(outputs, primal)
            (back,) = pull((v @ (v.mT @ change[:, :, None]))[:, :, 0])
            total += torch.cat([back[name].double().flatten() for name in primal])
    return summed(total) / len(fisher.inputs)


def linear_operator(fisher: WeightFisher) -> LinearOperator:
    """F_w as a SciPy operator of shape (k, k)."""

    def product(v: np.ndarray) -> np.ndarray:
        return matvec(fisher, torch.from_numpy(np.ascontiguousarray(v).reshape(-1))).cpu().numpy()

    return LinearOperator((fisher.size,) * 2, matvec=product, rmatvec=product, dtype=np.float64)


def eigenvalues(fisher: WeightFisher, count: int | None, method: str) -> Tensor:
    """The largest eigenvalues of F_w, descending; all that can differ from 0 if ``count`` is None."""
    if count is not None:
        check_count("count", count)
        if count > fisher.size:
            raise UsageError(f"count={count} is more than the {fisher.size} weights; ask for fewer")
    chosen = choose(fisher, method)
    if chosen == "gram":
        values = torch.linalg.eigvalsh(fisher.gram()).flip(0).clamp_min(0)
        values = values[: min(len(values), fisher.size)]
        if count is None or count <= len(values):
            return values[:count]
        return torch.cat([values, values.new_zeros(count - len(values))])
    if count is None or count >= fisher.size:
        raise UsageError(f"count={count} needs every eigenvalue, which Lanczos cannot give; name a smaller count")
    start = np.random.default_rng(0).standard_normal(fisher.size)
    values = eigsh(linear_operator(fisher), k=count, v0=start, return_eigenvectors=False)
    return torch.from_numpy(np.sort(values)[::-1].copy()).to(fisher.inputs.device)


def top_eigenvector(fisher: WeightFisher) -> Tensor:
    """A unit eigenvector (k,) of the largest eigenvalue."""
    if choose(fisher, "auto") == "gram":
        u = torch.linalg.eigh(fisher.gram()).eigenvectors[:, -1:]
        v = transposed_product(fisher, u)[:, 0]
        return v / v.norm().clamp_min(torch.finfo(v.dtype).tiny)
    start = np.random.default_rng(0).standard_normal(fisher.size)
    _, vectors = eigsh(linear_operator(fisher), k=1, v0=start)
    return torch.from_numpy(vectors[:, 0]).to(fisher.inputs.device)


def transposed_product(fisher: WeightFisher, columns: Tensor) -> Tensor:
    """U^T c for columns c (N m, p): (k, p), float64."""
    sums = {
        n: torch.zeros(p.numel(), columns.shape[1], dtype=torch.float64, device=columns.device)
        for n, p in fisher.parameters.items()
    }
    for name, rows, part in _flat_rows(fisher):
        sums[name] += rows.T.double() @ columns[part]
    return summed(torch.cat(list(sums.values()))) / math.sqrt(len(fisher.inputs))


def product(fisher: WeightFisher, columns: Tensor) -> Tensor:
    """U v for columns v (k, p): (N m, p), float64."""
    offsets = dict(
        zip(fisher.parameters, np.cumsum([0, *(p.numel() for p in fisher.parameters.values())]), strict=False)
    )
    total = torch.zeros(fisher.num_rows, columns.shape[1], dtype=torch.float64, device=columns.device)
    for name, rows, part in _flat_rows(fisher):
        start = int(offsets[name])
        total[part] += rows.double() @ columns[start : start + rows.shape[1]]
    return summed(total) / math.sqrt(len(fisher.inputs))


def _flat_rows(fisher: WeightFisher) -> Iterator[tuple[str, Tensor, slice]]:
    """Of each chunk and parameter: its name, unscaled rows (n m, size) and where they stand among the N m."""
    for name, rows, part in fisher.rows():
        yield name, rows.flatten(2).flatten(0, 1), slice(part.start * fisher.width, part.stop * fisher.width)


def spectral_sum(
    fisher: WeightFisher,
    function: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor], Tensor],
    method: str,
    num_probes: int,
    steps: int,
    seed: int,
) -> tuple[float, float, float, str]:
    """sum_i f(lambda_i) over the spectrum of F_w for an f with f(0) = 0.

    Returns the value, its standard errors over examples and over probes, and the method. The error over examples is
    that of the linearised sum, tr f'(F) (F_x - F), from the Gram matrix; Lanczos leaves it nan.
    """
    chosen = choose(fisher, method)
    if chosen == "gram":
        values, vectors = torch.linalg.eigh(fisher.gram())
        values = values.clamp_min(0)
        n = len(fisher.inputs)
        # u_r^T f'(F) u_r of each row: the diagonal of V diag(lambda f'(lambda)) V^T.
        along = (vectors.square() @ (values * slope(values))).reshape(n, fisher.width).sum(1) * n
        error = float(along.std()) / math.sqrt(n) if n > 1 else math.nan
        return float(function(values).sum()), error, 0.0, "Gram dual, exact"
    check_count("num_probes", num_probes, at_least=2)
    check_count("steps", steps)
    value, error = trace_of_function(
        lambda v: matvec(fisher, v),
        fisher.size,
        function,
        num_probes=num_probes,
        steps=steps,
        seed=seed,
        device=fisher.inputs.device,
    )
    return value, math.nan, error, f"stochastic Lanczos, {num_probes} probes, {steps} steps"


def logdet(
    fisher: WeightFisher, damping: float, method: str, num_probes: int = 10, steps: int = 60, seed: int = 0
) -> Estimate:
    """log det(F_w + damping I); see :meth:`WeightFisher.logdet`."""
    check_number("damping", damping, above=0)
    check_choice("method", method, (*METHODS, "diagonal"))
    base = fisher.size * math.log(damping)
    if method == "diagonal":
        value = float(torch.log1p(fisher.diagonal() / damping).sum())
        influence = fisher.linear(1 / (fisher.diagonal() + damping))
        error = float(influence.std()) / math.sqrt(len(influence)) if len(influence) > 1 else math.nan
        probe_error, said = 0.0, "diagonal, an upper bound"
    else:
        value, error, probe_error, said = spectral_sum(
            fisher,
            lambda s: torch.log1p(s / damping),
            lambda s: 1 / (s + damping),
            method,
            num_probes,
            steps,
            seed,
        )
    return fisher.estimate(base + value, error, "nats", f"{said}, damping {damping:g}", probe_error, seed)


def information(
    fisher: WeightFisher, beta: float, prior_variance: float, convention: str, method: str, seed: int = 0
) -> Estimate:
    """KL(Q* || P); see :meth:`WeightFisher.information`."""
    check_number("beta", beta, above=0)
    check_number("prior_variance", prior_variance, above=0)
    check_choice("convention", convention, ("exact", "paper"))
    scale = prior_variance / (beta if convention == "exact" else beta / 2)

    def kl(values: Tensor) -> Tensor:
        s = scale * values
        return 0.5 * (torch.log1p(s) - s / (1 + s))

    def slope(values: Tensor) -> Tensor:
        s = scale * values
        return 0.5 * scale * s / (1 + s).square()

    value, error, probe_error, said = spectral_sum(fisher, kl, slope, method, 10, 60, seed)
    norm = sum(float(p.detach().double().square().sum()) for p in fisher.parameters.values())
    total = value + norm / (2 * prior_variance)
    return fisher.estimate(total, error, "nats", f"KL, {convention} convention, {said}", probe_error, seed)


def sample(
    fisher: WeightFisher, beta: float, prior_variance: float, num_samples: int, seed: int, method: str
) -> Tensor:
    """Draws from N(0, Sigma*); see :meth:`WeightFisher.sample`."""
    check_number("beta", beta, above=0)
    check_number("prior_variance", prior_variance, above=0)
    check_count("num_samples", num_samples)
    check_choice("method", method, ("exact", "diagonal"))
    generator = torch.Generator().manual_seed(seed)
    damping = beta / prior_variance
    device = fisher.inputs.device
    second = torch.randn(fisher.size, num_samples, generator=generator, dtype=torch.float64).to(device)
    if method == "diagonal":
        return (second * (beta / (fisher.diagonal() + damping)).sqrt()[:, None]).T
    choose(fisher, "gram")
    first = torch.randn(fisher.num_rows, num_samples, generator=generator, dtype=torch.float64).to(device)
    g = fisher.gram()
    rhs = math.sqrt(beta) * (transposed_product(fisher, first) + math.sqrt(damping) * second)
    against = math.sqrt(beta) * (g @ first + math.sqrt(damping) * product(fisher, second))
    solved = torch.linalg.solve(g + damping * torch.eye(len(g), dtype=g.dtype, device=device), against)
    return ((rhs - transposed_product(fisher, solved)) / damping).T
