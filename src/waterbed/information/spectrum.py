"""Spectral quantities of a symmetric positive semidefinite operator: exact where it is small, by Lanczos elsewhere.

Each function takes any operator with shape and ``@`` (:class:`waterbed.information.operators.Operator`). One that has
a Gram dual, U U^T of A = U^T U, is done through that, with errors over the examples; another as a dense matrix up to
4096 rows; a larger one by its products alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from waterbed.errors import UsageError, UsageTypeError, check_choice, check_count, check_number
from waterbed.information.estimate import SAMPLE_SIZE, Estimate, pseudo_values
from waterbed.information.lanczos import trace_of_function
from waterbed.information.left_out import LogAndRatio
from waterbed.information.operators import (
    LARGEST_MATRIX,
    GramOperator,
    Operator,
    apply,
    check_gram,
    check_operator,
    dense,
    device_of_operator,
    gram_fits,
    to_scipy,
)

METHODS = ("auto", "gram", "dense", "lanczos")
NEGATIVE = 1e-4  # of the largest eigenvalue: what rounding may put below 0


def choose(operator: Operator, method: str, also: tuple[str, ...] = ()) -> str:
    """ "gram", "dense" or "lanczos" for "auto"; a method that the operator does not allow is refused."""
    check_choice("method", method, (*METHODS, *also))
    size = check_operator(operator)
    has_gram = isinstance(operator, GramOperator)
    if method == "auto":
        if has_gram:
            return "gram" if gram_fits(operator.num_rows) else "lanczos"
        return "dense" if size <= LARGEST_MATRIX else "lanczos"
    if method == "gram":
        if not has_gram:
            raise UsageTypeError(
                f"method='gram' needs an operator with gram(), such as a WeightFisher, not {type(operator).__name__}; "
                "pass method='dense' or 'lanczos'"
            )
        check_gram(operator.num_rows)
    return method


def eigenvalues(operator: Operator, count: int | None = None, method: str = "auto") -> Tensor:
    """The ``count`` largest eigenvalues, descending, float64; all that can differ from 0 if ``count`` is None.

    Args:
        operator: (k, k), anything with shape and ``@``.
        method: "gram" and "dense" are exact; "lanczos" (SciPy's eigsh) gives the largest few.

    Raises:
        UsageError: more than there are, or all by Lanczos; an operator that is not positive semidefinite.

    >>> eigenvalues(torch.diag(torch.tensor([3.0, 1.0, 2.0])), 2)
    tensor([3., 2.], dtype=torch.float64)
    """
    size = check_operator(operator)
    if count is not None:
        check_count("count", count)
        if count > size:
            raise UsageError(f"count={count} is more than the {size} weights; ask for fewer")
    chosen = choose(operator, method)
    if chosen == "gram":
        values = torch.linalg.eigvalsh(operator.gram()).flip(0).clamp_min(0)
        values = values[: min(len(values), size)]
        if count is None or count <= len(values):
            return values[:count]
        return torch.cat([values, values.new_zeros(count - len(values))])
    if chosen == "dense":
        return not_negative(torch.linalg.eigvalsh(dense(operator))).flip(0)[:count]
    if count is None or count >= size:
        raise UsageError(f"count={count} needs every eigenvalue, which Lanczos cannot give; name a smaller count")
    return lanczos_eigenpairs(operator, count)[0].flip(0)


def top_eigenvector(operator: Operator) -> Tensor:
    """A unit eigenvector (k,) of the largest eigenvalue, float64."""
    chosen = choose(operator, "auto")
    if chosen == "gram":
        v = operator.combine(torch.linalg.eigh(operator.gram()).eigenvectors[:, -1:])[:, 0]
        return v / v.norm().clamp_min(torch.finfo(v.dtype).tiny)
    if chosen == "dense":
        return torch.linalg.eigh(dense(operator)).eigenvectors[:, -1]
    return lanczos_eigenpairs(operator, 1)[1][:, 0]


def lanczos_eigenpairs(operator: Operator, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest eigenvalues, ascending, and their eigenvectors (k, count), float64, by SciPy's eigsh."""
    start = np.random.default_rng(0).standard_normal(operator.shape[0])
    values, vectors = eigsh(to_scipy(operator), k=count, v0=start)
    order = np.argsort(values)
    device = device_of_operator(operator)
    return torch.from_numpy(values[order]).to(device), torch.from_numpy(vectors[:, order]).to(device)


@dataclass(frozen=True)
class SpectralSum:
    """A sum over the spectrum, its standard errors over examples and over probes, and how it was computed."""

    value: float
    stderr: float
    probe_stderr: float
    method: str


def spectral_sum(
    operator: Operator,
    function: Callable[[Tensor], Tensor],
    terms: LogAndRatio,
    method: str,
    num_probes: int = 10,
    steps: int = 60,
    seed: int = 0,
) -> SpectralSum:
    """sum_i f(lambda_i) for an f with f(0) = 0, which ``terms`` give again for the jackknife.

    The error over examples is the jackknife's, from the Gram matrix: that of the linearised sum is too small by half
    and more where the rank grows with the examples. An operator that does not tell them apart leaves it nan.
    """
    chosen = choose(operator, method)
    if chosen == "gram":
        return gram_sum(function, terms, *gram_eigenpairs(operator), operator.num_examples)
    if chosen == "dense":
        values = not_negative(torch.linalg.eigvalsh(dense(operator)))
        return SpectralSum(float(function(values).sum()), math.nan, 0.0, "dense, exact")
    check_count("num_probes", num_probes, at_least=2)
    check_count("steps", steps)
    value, error = trace_of_function(
        lambda v: apply(operator, v),
        operator.shape[0],
        function,
        num_probes=num_probes,
        steps=steps,
        seed=seed,
        device=device_of_operator(operator),
    )
    return SpectralSum(value, math.nan, error, f"stochastic Lanczos, {num_probes} probes, {steps} steps")


def gram_eigenpairs(operator: GramOperator) -> tuple[Tensor, Tensor]:
    """Eigenvalues (N m,), ascending and not negative, and eigenvectors (N m, N m) of U U^T."""
    values, vectors = torch.linalg.eigh(operator.gram())
    return values.clamp_min(0), vectors


def gram_sum(
    function: Callable[[Tensor], Tensor], terms: LogAndRatio, values: Tensor, vectors: Tensor, n: int
) -> SpectralSum:
    """:func:`spectral_sum` from :func:`gram_eigenpairs`, of n examples."""
    value = float(function(values).sum())
    left_out = terms.sums_left_out(values, vectors, n)
    return SpectralSum(value, _standard_error(pseudo_values(value, left_out)), 0.0, "Gram dual, exact")


def logdet(
    operator: Operator,
    damping: float,
    method: str = "auto",
    *,
    num_probes: int = 10,
    steps: int = 60,
    seed: int = 0,
) -> Estimate:
    """log det(A + damping I) in nats, of any symmetric positive semidefinite operator A.

    Args:
        operator: (k, k): a WeightFisher, an InputFisher (of its mean matrix), a dense matrix, an operator of SciPy or
            curvlinops; anything with shape and ``@``. ``dtype`` and ``device``, where it has them, say which vectors
            it takes.
        damping: > 0, in the units of A.
        method: "gram" is exact, for an operator with a Gram dual of up to 5000 rows; "dense" is exact up to k = 4096;
            "lanczos" is stochastic quadrature (Ubaru, Chen and Saad, 2017); "diagonal" is an upper bound (Hadamard).
            "auto" takes the first of these that fits, but a WeightFisher with too many rows goes by Lanczos.
        num_probes, steps: random vectors, 2 or more, and iterations for each, of Lanczos.
        seed: of the random vectors.

    Returns:
        An :class:`Estimate`. Its error over examples is nan, and n is 0, where the operator does not tell the examples
        apart; the error over probes is that of Lanczos.

    Raises:
        UsageError: not square or symmetric, an eigenvalue below 0, damping <= 0, too large for the method.

    >>> round(logdet(torch.eye(3), damping=1.0).value, 6) == round(3 * math.log(2), 6)
    True
    """
    check_number("damping", damping, above=0)
    check_choice("method", method, (*METHODS, "diagonal"))
    base = check_operator(operator) * math.log(damping)
    if method == "diagonal":
        result = diagonal_sum(operator, lambda v: torch.log1p(v / damping), "diagonal, an upper bound")
    else:
        result = spectral_sum(
            operator,
            lambda s: torch.log1p(s / damping),
            LogAndRatio(damping, log=1.0),
            method,
            num_probes,
            steps,
            seed,
        )
    return estimate_of(operator, base + result.value, result, f"{result.method}, damping {damping:g}", seed)


def diagonal_sum(operator: Operator, function: Callable[[Tensor], Tensor], method: str) -> SpectralSum:
    """sum_i f(A_ii), with the jackknife's error where the operator has its diagonal without each example."""
    value = float(function(diagonal_of(operator)).sum())
    sums_left_out = getattr(operator, "diagonal_sums_left_out", None)
    error = math.nan
    if sums_left_out is not None and operator.num_examples > 1:
        error = _standard_error(pseudo_values(value, sums_left_out(function)))
    return SpectralSum(value, error, 0.0, method)


def effective_dimension(
    operator: Operator, damping: float, method: str = "auto", *, num_probes: int = 10, steps: int = 60, seed: int = 0
) -> Estimate:
    """sum_i lambda_i / (lambda_i + z), z = ``damping``: how many directions the data determine beyond z.

    The "effective number of parameters" of MacKay (1992), "Bayesian interpolation", and effective dimension of Zhang
    (2005). With z = beta / prior_variance it is the number of directions in which Q* of eq. 6 differs from its prior.
    It lies below the rank, so for a Fisher matrix of N examples it grows with N.

    Args:
        operator: (k, k), anything with shape and ``@``.
        damping: z > 0, in the units of the operator.
        method, num_probes, steps, seed: as for :func:`waterbed.logdet`.

    >>> effective_dimension(torch.diag(torch.tensor([1.0, 3.0, 0.0])), damping=1.0).value
    1.25
    """
    check_number("damping", damping, above=0)
    result = spectral_sum(
        operator,
        lambda s: s / (s + damping),
        LogAndRatio(damping, ratio=1.0),
        method,
        num_probes,
        steps,
        seed,
    )
    e = estimate_of(operator, result.value, result, f"{result.method}, damping {damping:g}", seed)
    return replace(e, unit="dimensions")


def diagonal_of(operator: Operator) -> Tensor:
    """The diagonal (k,), float64, of an operator that has one."""
    if not hasattr(operator, "diagonal"):
        raise UsageTypeError(f"method='diagonal' needs an operator with diagonal(), not {type(operator).__name__}")
    return torch.as_tensor(operator.diagonal()).double()


def not_negative(values: Tensor) -> Tensor:
    """Ascending eigenvalues with rounding below 0 taken out; raise where there is more than rounding."""
    if float(values[0]) < -NEGATIVE * float(values.abs().max()):
        raise UsageError(
            f"operator has the eigenvalue {float(values[0]):.3g}; pass a positive semidefinite one, such as a Fisher "
            "or Gauss-Newton matrix rather than a Hessian"
        )
    return values.clamp_min(0)


def _standard_error(samples: Tensor) -> float:
    return float(samples.std()) / math.sqrt(len(samples)) if len(samples) > 1 else math.nan


def estimate_of(operator: Operator, value: float, result: SpectralSum, method: str, seed: int) -> Estimate:
    """An Estimate in nats, which a Fisher of the package makes itself: it names its labels."""
    make = getattr(operator, "estimate", None)
    if make is not None:
        return make(value, result.stderr, "nats", method, result.probe_stderr, seed, target=SAMPLE_SIZE)
    n = getattr(operator, "num_examples", 0)
    return Estimate(value, result.stderr, "nats", n, method, seed if result.probe_stderr else None, result.probe_stderr)
