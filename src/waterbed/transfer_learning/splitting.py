"""Cutting a network in two with torch.fx: a trunk that stays as it is, and a tail that is trained."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from waterbed.errors import UsageError
from waterbed.models.states import evaluating


class UntraceableError(UsageError):
    """torch.fx cannot follow the network's forward."""


def split(model: nn.Module, names: Sequence[str]) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Cut ``model`` before the modules ``names``: (trunk, tail) with model(x) = tail(*trunk(x)).

    The tail holds these modules and everything that depends on them; both parts share their modules with the model, so
    training the tail trains the model.

    Raises:
        UntraceableError: torch.fx cannot trace the model.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> trunk, tail = split(model, ["2"])
    >>> x = torch.randn(5, 3)
    >>> torch.equal(tail(*trunk(x)), model(x))
    True
    """
    with evaluating(model):
        try:
            graph = _Tracer(names).trace(model)
        except Exception as error:  # whatever a user's forward raises on a proxy
            raise UntraceableError(f"model cannot be traced ({error}), so it cannot be cut; pass another") from error
    late: set[fx.Node] = set()
    for node in graph.nodes:
        trained = node.op == "call_module" and node.target in names
        if trained or any(before in late for before in node.all_input_nodes):
            late.add(node)
    cut = [n for n in graph.nodes if n not in late and any(user in late for user in n.users)]
    trunk, tail = fx.Graph(), fx.Graph()
    early: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node not in late:
            early[node] = trunk.node_copy(node, early.__getitem__)
    trunk.output(tuple(early[node] for node in cut))
    copied = {node: tail.placeholder(f"cut_{i}") for i, node in enumerate(cut)}
    for node in graph.nodes:
        if node in late:
            copied[node] = tail.node_copy(node, copied.__getitem__)
    parts = fx.GraphModule(model, trunk), fx.GraphModule(model, tail)
    for part in parts:
        part.graph.eliminate_dead_code()
        part.recompile()
    return parts


class _Tracer(fx.Tracer):
    """Keeps the named modules whole: torch.fx would look into those that are not of torch.nn, as timm's layers."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = names

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return name in self.names or super().is_leaf_module(module, name)


def same_cut(tail: fx.GraphModule, model: nn.Module) -> fx.GraphModule:
    """The tail of ``model``, cut where ``tail`` was cut off a network with the same modules; nothing is traced again.

    >>> import torch
    >>> first, second = (nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)) for _ in range(2))
    >>> trunk, tail = split(first, ["1"])
    >>> x = torch.randn(5, 2)
    >>> torch.equal(same_cut(tail, second)(x), second[1](x))
    True
    """
    return fx.GraphModule(model, tail.graph)
