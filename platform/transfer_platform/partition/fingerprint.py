"""Process-independent digest of a graph's computation."""

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
"""Prefix of the names that `torch.fx` assigns to unnamed tensors; the rest of each name is an arbitrary number."""


def graph_digest(module: fx.GraphModule) -> str:
    """Returns the hexadecimal SHA-256 of a graph, its weights and buffers, and the library versions.

    The digest does not depend on train or eval mode, or on the device or memory layout of the weights.
    """
    sha = hashlib.sha256()
    for library in ("torch", "torchvision", "timm"):
        sha.update(f"{library} {version(library)}\n".encode())
    for line in graph_lines(module):
        sha.update(f"{line}\n".encode())
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name in sorted(name for name in state if not name.startswith(_CONSTANT)):
        sha.update(f"{name} {tuple(state[name].shape)} {state[name].dtype}\n".encode())
        sha.update(_tensor_bytes(state[name]))
    return sha.hexdigest()


def graph_lines(module: fx.GraphModule) -> list[str]:
    """Returns one line per operation; two graphs have equal lines if their operations and modules are equal."""
    numbers: dict[fx.Node, int] = {}
    lines = []
    for number, node in enumerate(module.graph.nodes):
        lines.append(graph_line(module, node, numbers))
        numbers[node] = number
    return lines


def graph_line(module: fx.GraphModule, node: fx.Node, numbers: Mapping[fx.Node, int]) -> str:
    """Describes an operation by its type, target and arguments; `numbers` maps each preceding node to its number."""
    arguments: Any = map_arg((node.args, node.kwargs), lambda argument: _NodeReference(numbers[argument]))
    return f"{node.op} {_target(module, node)} {_describe(arguments)}"


class _NodeReference(str):
    """Reference to another node in a node's arguments."""

    __slots__ = ()

    def __new__(cls, number: int) -> _NodeReference:
        return super().__new__(cls, f"%{number}")


def _target(module: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "placeholder":
        return "input"
    if node.op == "call_module":
        return f"{node.target} {_settings(resolve_attribute(module, node.target))}"
    if node.op == "get_attr" and str(node.target).startswith(_CONSTANT):
        return hashlib.sha256(_tensor_bytes(resolve_attribute(module, node.target))).hexdigest()
    return _describe(node.target)


def _settings(module: nn.Module) -> str:
    """Returns the public attributes of a module and its submodules, except `training`."""
    parts = []
    for name, part in module.named_modules():
        settings = {
            key: _describe(value) for key, value in vars(part).items() if not key.startswith("_") and key != "training"
        }
        parts.append(f"{name} {_describe(type(part))} {part.extra_repr()} {sorted(settings.items())}")
    return "; ".join(parts)


def _describe(value: object) -> str:
    """Describes a value independently of memory addresses."""
    if isinstance(value, torch.device):
        return value.type
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_describe, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_describe(k)}: {_describe(v)}' for k, v in value.items())}}}"
    if isinstance(value, slice):
        return f"slice{_describe((value.start, value.stop, value.step))}"
    if isinstance(value, partial):
        return f"partial{_describe((value.func, value.args, value.keywords))}"
    if value is None or isinstance(value, (str, int, float, complex, bool, torch.dtype, torch.memory_format)):
        return repr(value)
    if isinstance(value, Tensor):
        return hashlib.sha256(_tensor_bytes(value)).hexdigest()
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"


def _tensor_bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
