"""F_w by the estimators of curvlinops: EKFAC for its eigenbasis, XTrace for its trace. An optional extra.

    pip install 'waterbed[curvature]'

Both serve where the exact measures of :class:`WeightFisher` cost too much: many classes, or products with F_w inside a
solver. The exact trace costs one backward pass for each class.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from waterbed.devices import seeded
from waterbed.errors import UsageError, UsageTypeError, check_choice, check_count
from waterbed.information.checks import check_inputs, choose_parameters
from waterbed.information.estimate import Estimate
from waterbed.information.operators import SymmetricOperator, apply
from waterbed.information.weight_fisher import WeightFisher
from waterbed.models.states import evaluating

# Our names of the labels and curvlinops' names of the Fisher they make.
FISHER_TYPES = {"exact": "type-2", "sampled": "mc"}


class EKFAC(SymmetricOperator):
    """Eigenvalue-corrected Kronecker factors of F_w; made by :func:`ekfac`.

    F_w is taken as block-diagonal, one block for each weight and each bias, each diagonal in the eigenbasis of its
    Kronecker factors. The eigenvalues are exact there, so the trace is that of F_w itself. An operator (k, k) as
    :class:`WeightFisher` is one: ``@`` and ``to_scipy``.

    Attributes:
        operator: curvlinops' EKFACLinearOperator.
        names: the chosen parameters; flat vectors (k,) follow them in ``model.parameters()`` order.
        size: k.
    """

    def __init__(self, operator: Any, names: list[str], num_examples: int, labels: str, seed: int | None) -> None:
        self.operator, self.names, self.size = operator, names, operator.shape[0]
        self.num_examples, self._labels, self._seed = num_examples, labels, seed

    @property
    def device(self) -> torch.device:
        return self.operator.device

    def _products(self, columns: Tensor) -> Tensor:
        return apply(self.operator, columns)

    def trace(self) -> Estimate:
        """tr F_w in nats/weight^2. curvlinops keeps no value for each example, so the error over them is nan;
        :meth:`WeightFisher.trace` has it."""
        method = f"EKFAC trace, {self._labels} labels"
        value = float(self.operator.trace)
        probe_error = 0.0 if self._seed is None else math.nan
        return Estimate(value, math.nan, "nats/weight^2", self.num_examples, method, self._seed, probe_error)


def ekfac(
    model: nn.Module,
    inputs: Tensor,
    labels: str = "exact",
    params: str | Callable[[str], bool] = "all",
    *,
    seed: int = 0,
    chunk_size: int = 64,
) -> EKFAC:
    """EKFAC approximation of F_w.

    George, Laurent, Bouthillier, Ballas and Vincent (2018), "Fast approximate natural gradient descent in a
    Kronecker-factored eigenbasis". It is exact for one linear layer without bias and one example.

    Args:
        model: logits (N, K) from ``model(x)``, measured in eval mode.
        inputs: (N, ...).
        labels: "exact" sums over all K labels; "sampled" draws one for each example.
        params: "linear" takes the weights of all Linear and ungrouped Conv2d layers, the only ones that have factors;
            "all", "features" or a predicate on parameter names must choose none but these.
        seed: of the sampled labels.
        chunk_size: examples in one pass.

    Raises:
        UsageError: curvlinops is not installed; a chosen weight belongs to another kind of layer.
    """
    curvlinops = _curvlinops()
    check_choice("labels", labels, FISHER_TYPES)
    check_count("chunk_size", chunk_size)
    inputs, _ = check_inputs(model, inputs)
    chosen = choose_parameters(model, _factored(model) if params == "linear" else params)
    _check_layers(model, chosen)
    targets = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)  # their number matters, not their value
    data = list(zip(inputs.detach().split(chunk_size), targets.split(chunk_size), strict=True))
    required = [(p, p.requires_grad) for p in model.parameters()]
    with evaluating(model), torch.enable_grad():
        try:
            model.requires_grad_(True)
            operator = curvlinops.EKFACLinearOperator(
                model,
                nn.CrossEntropyLoss(),
                list(chosen.values()),
                data,
                check_deterministic=False,
                seed=seed,
                fisher_type=FISHER_TYPES[labels],
                num_data=len(inputs),
                num_per_example_loss_terms=1,
            )
            _ = operator.trace  # computed now, while the model is in eval mode
        finally:
            for parameter, flag in required:
                parameter.requires_grad_(flag)
    return EKFAC(operator, list(chosen), len(inputs), labels, seed if labels == "sampled" else None)


def xtrace(fisher: WeightFisher, num_matvecs: int = 20, seed: int = 0, *, repeats: int = 3) -> Estimate:
    """tr F_w by XTrace, from products with F_w alone.

    Epperly, Tropp and Webber (2024), "XTrace: making the most of every sample in stochastic trace estimation".

    Args:
        fisher: F_w, with any labels.
        num_matvecs: products in each repetition: even, at most twice the rank that F_w can have.
        seed: of the probes.
        repeats: independent repetitions; their mean is the value, their spread its probe error (nan for one).

    Returns:
        An :class:`Estimate` in nats/weight^2; its error over examples is nan, because products with the mean do not
        tell the examples apart.

    Raises:
        UsageError: curvlinops is not installed; ``num_matvecs`` is odd or too large for this F_w.
    """
    curvlinops = _curvlinops()
    if not isinstance(fisher, WeightFisher):
        raise UsageTypeError(f"fisher={type(fisher).__name__} must be a WeightFisher")
    check_count("num_matvecs", num_matvecs, at_least=2)
    check_count("repeats", repeats)
    rank = min(fisher.size, fisher.num_rows)
    limit = min(2 * rank, fisher.size - 1)
    if num_matvecs % 2 or num_matvecs > limit:
        raise UsageError(
            f"num_matvecs={num_matvecs} must be even and at most {limit} for this F_w (rank <= {rank}); pass fewer, or "
            "take the exact fisher.trace()"
        )
    with seeded(seed, fisher.inputs.device):
        draws = torch.stack([curvlinops.xtrace(fisher, num_matvecs) for _ in range(repeats)])
    if not bool(torch.isfinite(draws).all()):
        raise UsageError(
            f"num_matvecs={num_matvecs} is more than the rank of this F_w allows; pass fewer, or take the exact "
            "fisher.trace()"
        )
    error = float(draws.std()) / math.sqrt(repeats) if repeats > 1 else math.nan
    method = f"XTrace, {repeats} x {num_matvecs} products, {fisher.labels} labels"
    return Estimate(float(draws.mean()), math.nan, "nats/weight^2", len(fisher.inputs), method, seed, error)


def _curvlinops() -> ModuleType:
    """The optional package."""
    try:
        with warnings.catch_warnings():  # a dependency still compiles with the deprecated torch.jit
            warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated")
            import curvlinops
    except ImportError as error:
        raise UsageError(
            "curvlinops is not installed (or one of its dependencies); pip install 'waterbed[curvature]'"
        ) from error
    return curvlinops


def _has_factors(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _owners(model: nn.Module) -> dict[str, nn.Module]:
    """The layer of each parameter, by the parameter's name."""
    return {
        f"{prefix}.{name}".lstrip("."): module
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }


def _factored(model: nn.Module) -> Callable[[str], bool]:
    """A predicate for the parameters that have Kronecker factors."""
    names = {name for name, module in _owners(model).items() if _has_factors(module)}
    return lambda name: name in names


def _check_layers(model: nn.Module, chosen: dict[str, Tensor]) -> None:
    """Raise unless every chosen weight belongs to a layer that has Kronecker factors."""
    for name, module in _owners(model).items():
        if name in chosen and not _has_factors(module):
            kind = "grouped Conv2d" if isinstance(module, nn.Conv2d) else type(module).__name__
            raise UsageError(
                f"params chooses {name!r} of a {kind} layer, which has no Kronecker factors; pass params='linear' to "
                "leave such weights out, or use WeightFisher, which takes every layer exactly"
            )
