"""What a symmetric positive semidefinite operator is here: shape, dtype, device and ``@``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from waterbed.errors import UsageError, UsageTypeError

LARGEST_MATRIX = 4096  # rows of a dense k x k matrix
LARGEST_GRAM = 5000  # rows of a Gram matrix


class Operator(Protocol):
    """A symmetric positive semidefinite matrix A (k, k) that is known by its products A @ V, V (k, p).

    ``dtype`` and ``device`` say which vectors it takes; one without them takes float64 on the CPU, one with a NumPy
    dtype takes arrays.
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    def __matmul__(self, columns: Any) -> Any: ...


@runtime_checkable
class GramOperator(Operator, Protocol):
    """An operator A = U^T U, U of ``num_rows`` = N m rows, m for each of ``num_examples`` = N examples. U U^T has the
    same non-zero eigenvalues, and tells the examples apart."""

    num_examples: int
    num_rows: int

    def gram(self) -> Tensor:
        """U U^T, (N m, N m), float64."""

    def project(self, columns: Tensor) -> Tensor:
        """U V for V (k, p): (N m, p), float64."""

    def combine(self, coefficients: Tensor) -> Tensor:
        """U^T C for C (N m, p): (k, p), float64."""


class SymmetricOperator(ABC):
    """The operators of this package: float64, several columns at once, ready for SciPy.

    Attributes:
        size: k, the number of rows and columns.
        dtype: float64.
    """

    size: int
    dtype = torch.float64

    @property
    def shape(self) -> tuple[int, int]:
        return self.size, self.size

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where products are computed."""

    @abstractmethod
    def _products(self, columns: Tensor) -> Tensor:
        """A V for V (k, p), float64 on the device."""

    def __matmul__(self, columns: Tensor) -> Tensor:
        """A v for a vector (k,), or A V for columns (k, p), float64.

        Raises:
            UsageError: the columns do not have k values each.
        """
        columns = torch.as_tensor(columns)
        if columns.ndim not in (1, 2) or len(columns) != self.size:
            raise UsageError(
                f"vector has shape {tuple(columns.shape)}; this operator acts on ({self.size},), or on the columns of "
                f"({self.size}, p)"
            )
        columns = columns.to(self.device, self.dtype)
        return self._products(columns) if columns.ndim == 2 else self._products(columns[:, None])[:, 0]

    def matvec(self, vector: Tensor) -> Tensor:
        """A v for v (k,), float64, without any matrix."""
        return self @ vector

    def to_scipy(self) -> LinearOperator:
        """A SciPy LinearOperator (k, k), for the solvers of scipy.sparse.linalg."""
        return to_scipy(self)


def to_scipy(operator: Operator) -> LinearOperator:
    """Any operator as a SciPy LinearOperator, float64."""

    def product(columns: np.ndarray) -> np.ndarray:
        return apply(operator, torch.from_numpy(np.ascontiguousarray(columns))).cpu().numpy()

    def vector_product(vector: np.ndarray) -> np.ndarray:
        return product(vector.reshape(-1))

    return LinearOperator(
        tuple(operator.shape),
        matvec=vector_product,
        rmatvec=vector_product,
        matmat=product,
        rmatmat=product,
        dtype=np.float64,
    )


def apply(operator: Operator, columns: Tensor) -> Tensor:
    """A V in float64, for V (k,) or (k, p) of any floating type, whichever vectors the operator takes."""
    dtype = getattr(operator, "dtype", torch.float64)
    if not isinstance(dtype, torch.dtype):  # NumPy's, SciPy's
        product = operator @ columns.cpu().numpy()
    elif dtype.is_floating_point:
        product = operator @ columns.to(device_of_operator(operator), dtype)
    else:
        raise UsageTypeError(f"operator has dtype {dtype}; pass one of floating type, such as operator.double()")
    return torch.as_tensor(product).detach().to(torch.float64)


def device_of_operator(operator: Operator) -> torch.device:
    """Where the operator's vectors lie; the CPU where it does not say."""
    return torch.device(getattr(operator, "device", "cpu"))


def check_operator(operator: Operator) -> int:
    """k; raise unless the operator has a shape (k, k) and ``@``."""
    shape = getattr(operator, "shape", None)
    if shape is None or not hasattr(operator, "__matmul__"):
        raise UsageTypeError(
            f"operator={type(operator).__name__} must have shape and @, such as a WeightFisher or a matrix (k, k)"
        )
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise UsageError(f"operator has shape {tuple(shape)}; pass a symmetric one, (k, k)")
    return int(shape[0])


def dense(operator: Operator) -> Tensor:
    """The matrix (k, k), float64, from its product with the identity.

    Raises:
        UsageError: k > 4096, or the matrix is not symmetric.
    """
    size = check_operator(operator)
    if size > LARGEST_MATRIX:
        raise UsageError(
            f"method='dense' would hold a {size} x {size} matrix and stops at {LARGEST_MATRIX}; pass method='lanczos'"
        )
    matrix = apply(operator, torch.eye(size, dtype=torch.float64, device=device_of_operator(operator)))
    if not bool(torch.isfinite(matrix).all()):
        raise UsageError("operator has products that are NaN or infinite")
    if float((matrix - matrix.mT).abs().max()) > 1e-4 * float(matrix.abs().max()):
        raise UsageError("operator is not symmetric; pass a symmetric positive semidefinite one")
    return matrix


def gram_fits(num_rows: int) -> bool:
    """Whether a Gram matrix of that many rows is within :data:`LARGEST_GRAM`."""
    return num_rows <= LARGEST_GRAM


def check_gram(num_rows: int) -> None:
    """Raise where a Gram matrix would be too large."""
    if not gram_fits(num_rows):
        raise UsageError(
            f"method='gram' would hold a matrix of {num_rows} rows and stops at {LARGEST_GRAM}; pass "
            "method='lanczos', fewer inputs or labels='sampled'"
        )
