"""Gradients for each example: with respect to its input, and to the weights, layer by layer.

For an example x with outputs o(x) in R^K and a matrix V (K, m) of directions, the m rows are V^T do/dx or
V^T do/dw. Fisher matrices are sums of outer products of such rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.hooks import RemovableHandle

from waterbed.errors import UsageError
from waterbed.models.states import evaluating

Directions = Callable[[Tensor], Tensor]  # outputs (N, K) -> V (N, K, m)
# For each layer: the names of its chosen parameters, and for each call its input and its output's gradients.
Tape = list[tuple[nn.Module, dict[str, str], list[tuple[Tensor, tuple[Tensor, ...]]]]]
SQUARE_BYTES = 2**22  # rows that are squared at once: what fits in the cache


def input_rows(function: Callable[[Tensor], Tensor], x: Tensor, directions: Directions) -> Tensor:
    """V^T do/dx of each example, (N, m, *x.shape[1:]), by m backward passes over the batch."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        outputs = function(x)
    v = directions(outputs.detach())
    return torch.stack([g[0] for g in _backward(outputs, [x], v)], dim=1)


def forward_product(function: Callable, primals: tuple, tangents: tuple) -> tuple[Tensor, Tensor]:
    """Outputs and J v by forward mode: ``torch.func.jvp``, without the warning of its first use about torch's own
    deprecated scripting."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning)
        return jvp(function, primals, tangents)


def _backward(outputs: Tensor, wanted: list[Tensor], v: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Gradients of <v_j, outputs> with respect to the ``wanted`` tensors, for each column j of v (N, K, m)."""
    for j in range(v.shape[2]):
        yield torch.autograd.grad(outputs, wanted, v[:, :, j], retain_graph=j + 1 < v.shape[2])


class WeightRows:
    """V^T do/dw of each example, weight by weight, for a choice of named parameters.

    Linear, Conv2d and BatchNorm2d layers (eval mode) are done from each layer's input and output gradient: m
    backward passes for a whole batch. A model in which other layers own chosen weights goes through ``vmap``, and so
    does one that also uses them outside their layers: "auto" first compares with autograd on ``example``.

    Args:
        model: any module.
        names: names in ``model.named_parameters()`` to differentiate with respect to.
        example: one input (1, ...).
        function: the outputs to differentiate, "forward" or "features".
        method: "auto", "layers" or "vmap".
    """

    def __init__(
        self, model: nn.Module, names: list[str], example: Tensor, function: str = "forward", method: str = "auto"
    ) -> None:
        self.model, self.names, self.function = model, names, function
        self.parameters = dict(model.named_parameters())
        self.layers = {
            module: {p: f"{prefix}.{p}".lstrip(".") for p, _ in module.named_parameters(recurse=False)}
            for prefix, module in model.named_modules()
        }
        self.layers = {m: {p: n for p, n in own.items() if n in set(names)} for m, own in self.layers.items()}
        self.layers = {module: own for module, own in self.layers.items() if own}
        self.method = method
        if method != "vmap":
            able = all(_supported(module) for module in self.layers) and self._agrees(example)
            if method == "layers" and not able:
                kinds = sorted({type(m).__name__ for m in self.layers})
                raise UsageError(f"method='layers' cannot do all uses of {', '.join(kinds)} here; pass method='vmap'")
            self.method = "layers" if able else "vmap"

    def activations(self, example: Tensor) -> int:
        """The number of values that the modules output for one example (1, ...)."""
        counts: list[int] = []
        leaves = [module for module in self.model.modules() if not any(module.children())]
        hooks = [m.register_forward_hook(lambda m, args, out: counts.append(_numel(out))) for m in leaves]
        with torch.no_grad(), _removed(hooks), evaluating(self.model):
            getattr(self.model, self.function)(example)
        return sum(counts)

    def _agrees(self, example: Tensor) -> bool:
        """Whether the layers' formulas give autograd's gradient: not if a weight is also used outside its layer."""
        with evaluating(self.model):
            outputs = getattr(self.model, self.function)(example).detach()
            generator = torch.Generator().manual_seed(0)
            v = torch.randn(*outputs.shape, 1, generator=generator).to(outputs)
            taped = self._tape(example, lambda _: v)
            if taped is None:
                return False
            chosen = [self.parameters[name] for name in self.names]
            required = [p.requires_grad for p in chosen]
            try:
                for p in chosen:
                    p.requires_grad_(True)
                with torch.enable_grad():
                    total = (getattr(self.model, self.function)(example) * v[:, :, 0]).sum()
                expected = torch.autograd.grad(total, chosen, allow_unused=True)
            finally:
                for p, flag in zip(chosen, required, strict=True):
                    p.requires_grad_(flag)
            rows = {n: r for m, own, calls in taped for n, r in named_rows(m, own, calls).items()}
            size = max(float(e.norm()) for e in expected if e is not None)
            return all(
                float((rows[name][0, 0] - (0 if e is None else e)).norm())
                <= 1e-3 * (0 if e is None else float(e.norm())) + 1e-5 * size
                for name, e in zip(self.names, expected, strict=True)
            )

    def __call__(self, x: Tensor, directions: Directions) -> Iterator[tuple[str, Tensor]]:
        """Yield ``(name, rows (N, m, *parameter.shape))`` for every chosen parameter, in no fixed order."""
        return self._by_layers(x, directions) if self.method == "layers" else self._by_vmap(x, directions)

    def squares(self, x: Tensor, directions: Directions) -> Iterator[tuple[str, Tensor]]:
        """Yield ``(name, sum over m of the squared rows, (N, *parameter.shape))`` for every chosen parameter.

        The rows are made for a few examples at a time and never leave the processor's cache.
        """
        if self.method == "vmap":
            for name, rows in self._by_vmap(x, directions):
                yield name, rows.square().sum(1)  # not in place: those of an unused weight are one zero, expanded
            return
        for module, own, calls in self.taped(x, directions):
            row = sum(self.parameters[name].numel() for name in own.values()) * x.element_size()
            step = max(1, SQUARE_BYTES // (row * len(calls[0][1])))
            squares: dict[str, list[Tensor]] = {name: [] for name in own.values()}
            for start in range(0, len(x), step):
                for name, rows in named_rows(module, own, calls, slice(start, start + step)).items():
                    squares[name].append(rows.square_().sum(1))
            yield from ((name, torch.cat(parts)) for name, parts in squares.items())

    def _by_layers(self, x: Tensor, directions: Directions) -> Iterator[tuple[str, Tensor]]:
        for module, own, calls in self.taped(x, directions):
            yield from named_rows(module, own, calls).items()

    def taped(self, x: Tensor, directions: Directions) -> Tape:
        """For each layer: its chosen parameters, and for each call its input and its output's gradients."""
        taped = self._tape(x, directions)
        if taped is None:
            raise UsageError(
                "model calls other layers for these inputs than for the first one; pass inputs that take the same path"
            )
        return taped

    def _tape(self, x: Tensor, directions: Directions) -> Tape | None:
        """For each layer and each call: its input and its output's gradients, one for each column of V. None if the
        layer of a chosen weight was not called."""
        tape: list[tuple[nn.Module, Tensor, Tensor]] = []

        def record(module: nn.Module, args: tuple[Tensor, ...], keywords: dict[str, Tensor], output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = output.requires_grad_()
            tape.append((module, (args[0] if args else keywords["input"]).detach(), output))
            return output.clone()  # later layers may work in place

        hooks = [module.register_forward_hook(record, with_kwargs=True) for module in self.layers]
        with torch.enable_grad(), _removed(hooks):
            outputs = getattr(self.model, self.function)(x)
        if set(self.layers) - {module for module, _, _ in tape}:
            return None
        v = directions(outputs.detach())
        columns = list(zip(*_backward(outputs, [output for _, _, output in tape], v), strict=True))
        calls = [(module, a, gradients) for (module, a, _), gradients in zip(tape, columns, strict=True)]
        return [(m, own, [(a, g) for called, a, g in calls if called is m]) for m, own in self.layers.items()]

    def _by_vmap(self, x: Tensor, directions: Directions) -> Iterator[tuple[str, Tensor]]:
        chosen = {name: self.parameters[name].detach() for name in self.names}
        with torch.no_grad():
            v = directions(getattr(self.model, self.function)(x))

        def outputs(weights: dict[str, Tensor], one: Tensor) -> Tensor:
            return functional_call(MethodModule(self.model, self.function), weights, (one[None],))[0]

        def rows(one: Tensor, v_one: Tensor) -> dict[str, Tensor]:
            _, pull = vjp(lambda w: outputs({f"module.{n}": t for n, t in w.items()}, one), chosen)
            return vmap(lambda column: pull(column)[0], in_dims=1)(v_one)

        with (
            sdpa_kernel(SDPBackend.MATH),
            warnings.catch_warnings(),
        ):  # fused attentions have no rule for batched graphs
            warnings.filterwarnings("ignore", "There is a performance drop")  # of other operations without a rule
            by_name = vmap(rows)(x, v)
        yield from by_name.items()


class MethodModule(nn.Module):
    """Makes a method of a module its forward, so that functional_call can reach it."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.module, self.method)(x)


def _supported(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return type(module) in (nn.Linear, nn.BatchNorm2d)


@contextmanager
def _removed(hooks: list[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks at the end, also after an exception."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _numel(output: object) -> int:
    return output.numel() if isinstance(output, Tensor) else 0


def named_rows(
    module: nn.Module, own: dict[str, str], calls: list[tuple[Tensor, tuple[Tensor, ...]]], part: slice = slice(None)
) -> dict[str, Tensor]:
    """Rows of one layer by the parameters' full names, summed over its calls, for the examples ``part``."""
    rows: dict[str, Tensor] = {}
    for a, gradients in calls:
        gradient = torch.stack([g[part] for g in gradients], dim=1)
        for name, value in _layer_rows(module, a[part], gradient, own).items():
            rows[own[name]] = rows[own[name]] + value if own[name] in rows else value
    return rows


def _layer_rows(module: nn.Module, a: Tensor, g: Tensor, own: dict[str, str]) -> dict[str, Tensor]:
    """Rows of one layer's weight and bias from its input ``a`` (N, ...) and output gradients ``g`` (N, m, ...)."""
    rows = {}
    if "weight" in own:
        rows["weight"] = _weight_rows(module, a, g)
    if "bias" in own:
        linear = isinstance(module, nn.Linear)
        rows["bias"] = g.reshape(*g.shape[:2], -1, g.shape[-1]).sum(2) if linear else g.flatten(3).sum(3)
    return rows


def _weight_rows(module: nn.Module, a: Tensor, g: Tensor) -> Tensor:
    """(N, m, *weight.shape) from input and output gradients."""
    if isinstance(module, nn.BatchNorm2d):
        scale = (module.running_var + module.eps).rsqrt()
        a = (a - module.running_mean[:, None, None]) * scale[:, None, None]
        return torch.einsum("nmcp,ncp->nmc", g.flatten(3), a.flatten(2))
    patches, g = positions(module, a, g)
    n, m, out, p = g.shape
    groups = getattr(module, "groups", 1)
    patches = patches.reshape(n, groups, -1, p)
    g = g.reshape(n, m, groups, out // groups, p).transpose(1, 2).reshape(n, groups, -1, p)
    rows = torch.matmul(g, patches.mT).reshape(n, groups, m, out // groups, -1).transpose(1, 2)
    return rows.reshape(n, m, *module.weight.shape)


def positions(module: nn.Module, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The inputs that a Linear or Conv2d layer multiplies at each of its P output positions, (N, I, P), and its output
    gradients there, (N, m, O, P)."""
    if isinstance(module, nn.Linear):
        return a.reshape(len(a), -1, a.shape[-1]).mT, g.reshape(*g.shape[:2], -1, g.shape[-1]).mT
    return F.unfold(a, module.kernel_size, module.dilation, module.padding, module.stride), g.flatten(3)
