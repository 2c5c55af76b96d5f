"""Traces a network into a `torch.fx` graph.

See https://docs.pytorch.org/docs/stable/fx.html for the meaning of nodes, `op` and `target`.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase

from transfer_model.heads import Head
from transfer_model.network import Network


def trace(network: Network) -> fx.GraphModule:
    """Traces `Network.forward_with_auxiliary` for images of shape (B, 3, S, S), in the network's current mode.

    The graph and the network share parameters, buffers and untraced modules, under the same names. Tracing runs the
    network's code and may change buffers, such as call counters. Library modules that cannot be traced become single
    operations. If tracing still fails, each stage becomes one operation. Not thread-safe: `torch.fx` patches modules.

    Raises:
        Exception: Any exception that the network raises when it receives proxies instead of tensors.
    """
    for proxy_buffers in (False, True):
        with suppress(Exception):  # libraries raise anything when they receive proxies
            return _trace(network, (), proxy_buffers)
    return _trace(network, tuple(f"backbone.{name}" for name in network.stages), proxy_buffers=False)


def _trace(network: Network, leaves: tuple[str, ...], proxy_buffers: bool) -> fx.GraphModule:
    """Traces the network. With `proxy_buffers`, computations on buffers become operations rather than constants."""
    module, tracer = _BackboneModule(network), _Tracer(leaves)
    tracer.proxy_buffer_attributes = proxy_buffers
    return fx.GraphModule(module, tracer.trace(module))


class _BackboneModule(nn.Module):
    """Computes the same outputs as `Network.forward_with_auxiliary` in a form that `torch.fx` can trace."""

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
    """Traces into all modules except built-in PyTorch layers, modules named in `leaves`, and those of `_leaf_types`."""

    def __init__(self, leaves: Sequence[str]) -> None:
        import torchvision
        from timm import models

        modules: Any = (math, torchvision.ops)  # annotated as `tuple[ModuleType]` in torch
        functions: Any = models.get_notrace_functions
        super().__init__(autowrap_modules=modules, autowrap_functions=tuple(functions()))
        self._leaves = frozenset(leaves)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_leaf = module_qualified_name in self._leaves or isinstance(m, _leaf_types())
        return is_leaf or super().is_leaf_module(m, module_qualified_name)


@lru_cache(maxsize=1)
def _leaf_types() -> tuple[type[nn.Module], ...]:
    """Returns the types of modules that are not traced: heads, batch and instance norms, and some library modules."""
    import torchvision
    from timm import models

    operations = (member for _, member in inspect.getmembers(torchvision.ops, inspect.isclass))
    modules = (member for member in operations if issubclass(member, nn.Module))
    untraceable: Any = models.get_notrace_modules
    return (Head, _NormBase, *modules, *untraceable())


def resolve_attribute(module: nn.Module, name: object) -> Any:  # noqa: ANN401 - a module or a tensor
    """Returns the parameter, buffer or submodule with the given dotted name."""
    return operator.attrgetter(cast("str", name))(module)
