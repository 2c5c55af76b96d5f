"""A network as a graph of its operations.

Graphs are `torch.fx`'s; see https://docs.pytorch.org/docs/stable/fx.html for nodes, `op` and `target`.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase

from transfer_model.heads import Head

if TYPE_CHECKING:
    from transfer_model.network import Network


def trace(network: Network) -> fx.GraphModule:
    """Writes down the operations of a network in the mode that it is in.

    A library's modules that cannot be looked into are one operation each. Where that does not suffice, whole
    stages are. Not to be called while another thread runs a network: `torch.fx` patches modules meanwhile.

    Args:
        network: Not changed, except for buffers that it counts in.

    Returns:
        Images (B, 3, S, S) -> what `forward_with_auxiliary` gives. Parameters, buffers and modules that are
        not looked into are the network's own, under their names in it.

    Raises:
        Exception: Whatever a network may raise when it is given no real images.
    """
    stages = tuple(f"backbone.{name}" for name in network.stages)
    for leaves, buffers in (((), False), ((), True)):
        try:
            return _traced(network, leaves, buffers)
        except Exception:  # noqa: BLE001, S112 - libraries expect tensors, and are given proxies
            continue
    return _traced(network, stages, buffers=False)


def _traced(network: Network, leaves: tuple[str, ...], buffers: bool) -> fx.GraphModule:
    """One attempt; with `buffers`, what is computed from buffers is part of the graph, not a constant."""
    whole, tracer = _Whole(network), _Tracer(leaves)
    tracer.proxy_buffer_attributes = buffers
    return fx.GraphModule(whole, tracer.trace(whole))


class _Whole(nn.Module):
    """A network's backbone with the outputs of `Network.forward_with_auxiliary`, which tests for tensors."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.positions = network.auxiliary_positions

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        output = self.backbone(images)
        if isinstance(output, (tuple, list)):
            return output[0], tuple(output[position] for position in self.positions)
        return output, ()


class _Tracer(fx.Tracer):
    """Records operations down to the modules and functions that torchvision and timm declare indivisible."""

    def __init__(self, leaves: Sequence[str]) -> None:
        import torchvision
        from timm import models

        modules: Any = (math, torchvision.ops)  # torch says `tuple[ModuleType]`, and means any number
        functions: Any = models.get_notrace_functions
        super().__init__(autowrap_modules=modules, autowrap_functions=tuple(functions()))
        self._leaves = frozenset(leaves)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        indivisible = module_qualified_name in self._leaves or isinstance(m, _leaf_types())
        return indivisible or super().is_leaf_module(m, module_qualified_name)


@lru_cache(maxsize=1)
def _leaf_types() -> tuple[type[nn.Module], ...]:
    """Heads are told by it from the backbone; norms count their batches outside of any graph."""
    import torchvision
    from timm import models

    operations = (member for _, member in inspect.getmembers(torchvision.ops, inspect.isclass))
    modules = (member for member in operations if issubclass(member, nn.Module))
    indivisible: Any = models.get_notrace_modules
    return (Head, _NormBase, *modules, *indivisible())


def resolve_attribute(module: nn.Module, name: object) -> Any:  # noqa: ANN401 - a module or a tensor
    """What stands under a dotted name in a module: a parameter, a buffer, a submodule."""
    return operator.attrgetter(cast("str", name))(module)
