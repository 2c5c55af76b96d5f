"""What a part of a network computes, as a digest: equal in another process, on another day."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from transfer_platform.partition.trace import resolve_attribute

_CONSTANT = "_tensor_constant"
"""Beginning of the names that `torch.fx` gives to tensors without one; their numbers mean nothing."""


def graph_digest(module: fx.GraphModule) -> str:
    """SHA-256 of a graph, of all weights and buffers that it reads, and of the libraries' versions.

    The mode, the device and the memory layout of the weights do not enter.

    Args:
        module: A graph and the modules that it calls.

    Returns:
        Hexadecimal.
    """
    sha = hashlib.sha256()
    for library in ("torch", "torchvision", "timm"):
        sha.update(f"{library} {version(library)}\n".encode())
    for text in graph_lines(module):
        sha.update(f"{text}\n".encode())
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name in sorted(name for name in state if not name.startswith(_CONSTANT)):
        sha.update(f"{name} {tuple(state[name].shape)} {state[name].dtype}\n".encode())
        sha.update(_bytes(state[name]))
    return sha.hexdigest()


def graph_lines(module: fx.GraphModule) -> list[str]:
    """One line for each operation of a graph: equal where two graphs do the same with the same modules."""
    numbers: dict[fx.Node, int] = {}
    found = []
    for number, node in enumerate(module.graph.nodes):
        found.append(graph_line(module, node, numbers))
        numbers[node] = number
    return found


def graph_line(module: fx.GraphModule, node: fx.Node, numbers: Mapping[fx.Node, int]) -> str:
    """One operation: what is done, with what.

    Args:
        module: Holds the graph.
        node: One of its nodes.
        numbers: What the nodes before it are called.
    """
    arguments: Any = map_arg((node.args, node.kwargs), lambda used: _Number(numbers[used]))
    return f"{node.op} {_target(module, node)} {_described(arguments)}"


class _Number(str):
    """A node among the arguments of another."""

    __slots__ = ()

    def __new__(cls, number: int) -> _Number:
        return super().__new__(cls, f"%{number}")


def _target(module: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "placeholder":
        return "input"
    if node.op == "call_module":
        return f"{node.target} {_settings(resolve_attribute(module, node.target))}"
    if node.op == "get_attr" and str(node.target).startswith(_CONSTANT):
        return hashlib.sha256(_bytes(resolve_attribute(module, node.target))).hexdigest()
    return _described(node.target)


def _settings(module: nn.Module) -> str:
    """All that a module and the modules in it were told: sizes, slopes, functions; not their mode."""
    parts = []
    for name, part in module.named_modules():
        own = {key: _described(value) for key, value in vars(part).items() if _tells(key)}
        parts.append(f"{name} {_described(type(part))} {part.extra_repr()} {sorted(own.items())}")
    return "; ".join(parts)


def _tells(key: str) -> bool:
    return not key.startswith("_") and key != "training"


def _described(value: object) -> str:
    """Text for a value that does not hold the address of an object."""
    if isinstance(value, torch.device):
        return value.type
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_described, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_described(k)}: {_described(v)}' for k, v in value.items())}}}"
    if isinstance(value, slice):
        return f"slice{_described((value.start, value.stop, value.step))}"
    if isinstance(value, partial):
        return f"partial{_described((value.func, value.args, value.keywords))}"
    if value is None or isinstance(value, (str, int, float, complex, bool, torch.dtype, torch.memory_format)):
        return repr(value)
    if isinstance(value, Tensor):
        return hashlib.sha256(_bytes(value)).hexdigest()
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().tobytes()
