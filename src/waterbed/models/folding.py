"""A faster form of a network for attacks: batch norms folded into the convolutions before them, weights in bfloat16."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from waterbed.models.states import evaluating

# Layers whose weights autocast would convert at every call.
CONVERTED = (nn.Conv2d, nn.Linear)


def folded(
    model: nn.Module,
    images: Tensor,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Callable[[], nn.Module]:
    """A function that returns ``model`` in eval mode, with its current weights, in a form that runs faster.

    ``conv`` then ``BatchNorm`` in eval mode is one convolution; with weights in ``dtype`` (None: their own; another is
    for use under autocast) and ``memory_format``, and nothing to differentiate but the input, an attack's step costs
    about half. The copy is
    exact up to rounding, and is compared with ``model`` on ``images`` first. A network that torch.fx cannot trace (its
    control flow depends on values), or that has nothing to fold, is returned as it is.

    >>> from waterbed.models.create import create_model
    >>> model = create_model("resnet10", 10, width=4)
    >>> fast = folded(model, torch.rand(2, 3, 16, 16))()
    >>> any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    False
    """
    with evaluating(model), torch.no_grad():
        try:
            graph = fx.Tracer().trace(model)
        except Exception:  # whatever a user's forward raises on a proxy
            return lambda: model
        copy = _Folded(model, graph)
        copy.refresh()
        expected, actual = model(images), copy.module(images)
        scale = float(expected.abs().max())
        if not copy.pairs or not torch.allclose(actual, expected, rtol=1e-3, atol=1e-3 * scale):
            return lambda: model
    copy.convert(dtype, memory_format)

    def current() -> nn.Module:
        copy.refresh()
        return copy.module

    return current


class _Folded:
    """A traced copy and where its weights come from; modules without weights to convert are shared with the model."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.module = fx.GraphModule(model, graph)
        self.pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]] = []
        self.copies: list[tuple[nn.Module, nn.Module]] = []
        modules = dict(self.module.named_modules())
        calls = [node for node in graph.nodes if node.op == "call_module"]
        uses = [node.target for node in calls]
        live = self.module.graph
        for node in [n for n in live.nodes if n.op == "call_module"]:
            source = modules[node.target]
            if not _plain(source, nn.Conv2d, nn.Linear) or uses.count(node.target) > 1:
                continue
            after = next(iter(node.users)) if len(node.users) == 1 else None
            bn = modules.get(after.target) if after is not None and after.op == "call_module" else None
            fold = (
                isinstance(source, nn.Conv2d)
                and bn is not None
                and _plain(bn, nn.BatchNorm2d)
                and bn.running_mean is not None
                and uses.count(after.target) == 1
            )
            copy = _like(source, bias=fold or source.bias is not None)
            self.module.set_submodule(node.target, copy)
            if fold:
                self.pairs.append((source, bn, copy))
                after.replace_all_uses_with(node)
                live.erase_node(after)
            else:
                self.copies.append((source, copy))
        live.lint()
        self.module.recompile()
        self.module.delete_all_unused_submodules()
        self.module.eval()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the model's current weights."""
        for conv, bn, copy in self.pairs:
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
            )
            copy.weight.copy_(weight)
            copy.bias.copy_(bias)
        for source, copy in self.copies:
            for mine, theirs in zip(copy.parameters(), source.parameters(), strict=True):
                mine.copy_(theirs)

    def convert(self, dtype: torch.dtype | None, memory_format: torch.memory_format) -> None:
        """Keep convolutions and linear layers in ``dtype`` and ``memory_format``."""
        for *_, copy in (*self.pairs, *self.copies):
            copy.to(dtype=dtype, memory_format=memory_format)


def _plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether it is exactly one of these classes, without hooks, so that its formula is known."""
    return type(module) in kinds and not module._forward_hooks and not module._forward_pre_hooks


def _like(source: nn.Conv2d | nn.Linear, bias: bool) -> nn.Module:
    """A layer of the same shape with weights of its own."""
    weight = source.weight
    if isinstance(source, nn.Linear):
        made = nn.Linear(source.in_features, source.out_features, bias, device="meta", dtype=weight.dtype)
    else:
        made = nn.Conv2d(
            source.in_channels,
            source.out_channels,
            source.kernel_size,
            source.stride,
            source.padding,
            source.dilation,
            source.groups,
            bias,
            source.padding_mode,
            device="meta",
            dtype=weight.dtype,
        )
    made.weight = nn.Parameter(torch.empty_like(weight), requires_grad=False)
    if bias:
        made.bias = nn.Parameter(weight.new_empty(len(weight)), requires_grad=False)
    return made
