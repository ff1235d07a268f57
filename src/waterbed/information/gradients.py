"""Gradients of each example: about its input, and about the weights, layer by layer.

For an example x with outputs o(x) in R^K and a matrix V (K, m) of directions, the m rows are V^T do/dx or
V^T do/dw. Fisher matrices are sums of outer products of such rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap

from waterbed.errors import UsageError

Directions = Callable[[Tensor], Tensor]  # outputs (N, K) -> V (N, K, m)


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
    """Gradients of <v_j, outputs> about the wanted tensors, for each column j of v (N, K, m)."""
    for j in range(v.shape[2]):
        yield torch.autograd.grad(outputs, wanted, v[:, :, j], retain_graph=j + 1 < v.shape[2])


class WeightRows:
    """V^T do/dw of each example, weight by weight, for a choice of named parameters.

    Linear, Conv2d and BatchNorm2d layers (eval mode) are done from each layer's input and output gradient: m
    backward passes for a whole batch. A model with other layers that own chosen weights goes through ``vmap``.

    Args:
        model: any module.
        names: names of ``model.named_parameters()`` to differentiate about.
        function: the outputs to differentiate, such as ``model`` or ``model.features``.
        method: "auto", "layers" or "vmap".
    """

    def __init__(self, model: nn.Module, names: list[str], function: str = "forward", method: str = "auto") -> None:
        self.model, self.names, self.function = model, names, function
        self.parameters = dict(model.named_parameters())
        self.layers = {
            module: {p: f"{prefix}.{p}".lstrip(".") for p, _ in module.named_parameters(recurse=False)}
            for prefix, module in model.named_modules()
        }
        self.layers = {m: {p: n for p, n in own.items() if n in set(names)} for m, own in self.layers.items()}
        self.layers = {module: own for module, own in self.layers.items() if own}
        able = all(_supported(module) for module in self.layers)
        if method == "layers" and not able:
            kinds = sorted({type(m).__name__ for m in self.layers if not _supported(m)})
            raise UsageError(f"method='layers' cannot do {', '.join(kinds)}; pass method='vmap'")
        self.method = ("layers" if able else "vmap") if method == "auto" else method

    def __call__(self, x: Tensor, directions: Directions) -> Iterator[tuple[str, Tensor]]:
        """Yield ``(name, rows (N, m, *parameter.shape))`` for every chosen parameter, in no fixed order."""
        return self._by_layers(x, directions) if self.method == "layers" else self._by_vmap(x, directions)

    def _by_layers(self, x: Tensor, directions: Directions) -> Iterator[tuple[str, Tensor]]:
        tape: list[tuple[nn.Module, Tensor, Tensor]] = []

        def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = output.requires_grad_()
            tape.append((module, args[0].detach(), output))
            return output.clone()  # what follows may work in place

        handles = [module.register_forward_hook(record) for module in self.layers]
        try:
            with torch.enable_grad():
                outputs = getattr(self.model, self.function)(x)
        finally:
            for handle in handles:
                handle.remove()
        missed = set(self.layers) - {module for module, _, _ in tape}
        if missed:  # the weights are used without calling their layer
            yield from self._by_vmap(x, directions)
            return
        v = directions(outputs.detach())
        columns = list(_backward(outputs, [output for _, _, output in tape], v))
        for module, own in self.layers.items():
            calls = [i for i, (called, _, _) in enumerate(tape) if called is module]
            rows: dict[str, Tensor] = {}
            for i in calls:
                gradient = torch.stack([column[i] for column in columns], dim=1)
                for name, value in _layer_rows(module, tape[i][1], gradient, own).items():
                    rows[name] = rows[name] + value if name in rows else value
            yield from ((own[name], value) for name, value in rows.items())

    def _by_vmap(self, x: Tensor, directions: Directions) -> Iterator[tuple[str, Tensor]]:
        chosen = {name: self.parameters[name].detach() for name in self.names}
        with torch.no_grad():
            v = directions(getattr(self.model, self.function)(x))

        def outputs(weights: dict[str, Tensor], one: Tensor) -> Tensor:
            return functional_call(MethodModule(self.model, self.function), weights, (one[None],))[0]

        def rows(one: Tensor, v_one: Tensor) -> dict[str, Tensor]:
            _, pull = vjp(lambda w: outputs({f"module.{n}": t for n, t in w.items()}, one), chosen)
            return vmap(lambda column: pull(column)[0], in_dims=1)(v_one)

        yield from vmap(rows)(x, v).items()


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


def _layer_rows(module: nn.Module, a: Tensor, g: Tensor, own: dict[str, str]) -> dict[str, Tensor]:
    """Rows of one layer's weight and bias from its input ``a`` (N, ...) and output gradients ``g`` (N, m, ...)."""
    n, m = g.shape[:2]
    if isinstance(module, nn.Conv2d):
        g = g.flatten(3)
        weight = lambda: _conv_weight_rows(module, a, g)  # noqa: E731
    elif isinstance(module, nn.BatchNorm2d):
        scale = (module.running_var + module.eps).rsqrt()
        a = (a - module.running_mean[:, None, None]) * scale[:, None, None]
        g = g.flatten(3)
        weight = lambda: torch.einsum("nmcp,ncp->nmc", g, a.flatten(2))  # noqa: E731
    else:
        a, g = a.reshape(n, -1, a.shape[-1]), g.reshape(n, m, -1, g.shape[-1]).mT
        weight = lambda: torch.einsum("nmop,npi->nmoi", g, a)  # noqa: E731
    rows = {}
    if "weight" in own:
        rows["weight"] = weight()
    if "bias" in own:
        rows["bias"] = g.sum(3)
    return rows


def _conv_weight_rows(module: nn.Conv2d, a: Tensor, g: Tensor) -> Tensor:
    """(N, m, O, I / groups, kh, kw) from input (N, I, H, W) and output gradients (N, m, O, P)."""
    n, m, out, p = g.shape
    groups = module.groups
    patches = F.unfold(a, module.kernel_size, module.dilation, module.padding, module.stride)
    patches = patches.reshape(n, groups, -1, p)
    g = g.reshape(n, m, groups, out // groups, p).transpose(1, 2).reshape(n, groups, -1, p)
    rows = torch.matmul(g, patches.mT).reshape(n, groups, m, out // groups, -1).transpose(1, 2)
    return rows.reshape(n, m, *module.weight.shape)
