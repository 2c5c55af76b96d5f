"""Where a graph can be cut in two, and the two halves.

A half is all that its result depends on: by arguments, and by what has been written into the memory of an
argument before. What does not depend on the images is copied to whichever half needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from torch import fx, nn
from torch.fx.node import map_arg

from transfer_model.heads import Head
from transfer_platform.partition.fingerprint import graph_line, graph_lines
from transfer_platform.partition.observe import OpRecord
from transfer_platform.partition.trace import resolve_attribute

PROBED: Final = (2, 3)
"""Batch sizes at which a graph is observed: what changes with them is the batch's size."""


@dataclass(frozen=True)
class BatchSize:
    """Stands for the number of images in a batch, within a value that is otherwise known."""


class AnalyzedGraph:
    """A traced network, what its operations did at two batch sizes, and what follows from it.

    Args:
        module: From `trace`.
        observed: What `observe` found for each batch size of `PROBED`.
    """

    def __init__(self, module: fx.GraphModule, observed: tuple[dict[fx.Node, OpRecord], ...]) -> None:
        self.module = module
        self.nodes = list(module.graph.nodes)
        self.facts = observed[0]
        self._others = observed[1]
        self.lines = graph_lines(module)
        self._name_once()
        self.settled = {node: value for node in self.nodes for value in self._settle(node)}

    @cached_property
    def dependencies(self) -> dict[fx.Node, tuple[fx.Node, ...]]:
        """For each node its arguments, and who last wrote into the memory of one of them."""
        writers: dict[int, fx.Node] = {}
        found = {}
        for node in self.nodes:
            written = {writers[memory]: None for memory in sorted(self.facts[node].reads & writers.keys())}
            found[node] = tuple({**dict.fromkeys(node.all_input_nodes), **written})
            writers |= dict.fromkeys(self.facts[node].writes, node)
        return found

    @cached_property
    def trainable(self) -> frozenset[fx.Node]:
        """Nodes whose result may change in training, or be another each time, and all that depend on them."""
        found: set[fx.Node] = set()
        for node in self.nodes:
            if self._learns(node) or not found.isdisjoint(self.dependencies[node]):
                found.add(node)
        return frozenset(found)

    @cached_property
    def required(self) -> frozenset[fx.Node]:
        """Nodes that have to run: the output, and what draws random numbers or leaves something behind."""
        return frozenset(node for node in self.nodes if node.op == "output" or self._has_effect(node))

    @cached_property
    def keys(self) -> dict[fx.Node, int]:
        """Numbers that are equal where two nodes of this process' graphs compute the same."""
        found: dict[fx.Node, int] = {}
        for node in self.nodes:
            used = tuple(found[other] for other in self.dependencies[node])
            found[node] = hash((graph_line(self.module, node, found), used))
        return found

    def cut_candidates(self) -> Iterator[fx.Node]:
        """Tensors with one row an image that training cannot change, the last one first."""
        for node in reversed(self.nodes):
            if (
                node.op not in ("placeholder", "output")
                and node not in self.trainable
                and self._has_rows(node)
            ):
                yield node

    def nodes_after(self, cut: fx.Node) -> frozenset[fx.Node] | None:
        """All that has to run when the result of `cut` is given; None where that does not suffice."""
        found: set[fx.Node] = set()
        waiting = list(self.required)
        while waiting:
            node = waiting.pop()
            if node is cut or node in found or (node in self.settled and node not in self.required):
                continue
            if node.op == "placeholder":
                return None
            found.add(node)
            waiting.extend(self.dependencies[node])
        return frozenset(found)

    def nodes_before(self, cut: fx.Node) -> frozenset[fx.Node]:
        """All that has to run to get the result of `cut`."""
        found: set[fx.Node] = set()
        waiting = [cut]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting.extend(self.dependencies[node])
        return frozenset(found)

    def prefix(self, cut: fx.Node) -> fx.GraphModule:
        """Images (B, 3, S, S) -> the result of `cut`."""
        graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
        within = self.nodes_before(cut)
        for node in self.nodes:
            if node in within:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(copies[cut])
        return fx.GraphModule(self.module, graph)

    def suffix(self, cut: fx.Node, within: Iterable[fx.Node]) -> fx.GraphModule:
        """The result of `cut` -> what the whole graph gives."""
        graph, members = fx.Graph(), frozenset(within)
        features = graph.placeholder("features")
        size = graph.call_method("size", (features, 0))
        copies: dict[fx.Node, Any] = {node: _filled(value, size) for node, value in self.settled.items()}
        copies[cut] = features
        for node in self.nodes:
            if node in members:
                copies[node] = _copy(node, graph, copies)
        if not size.users:
            graph.erase_node(size)
        return fx.GraphModule(self.module, graph)

    def _name_once(self) -> None:
        """Lets whoever uses a tensor after an operation in place use that operation's result."""
        places = {node: place for place, node in enumerate(self.nodes)}
        for node in self.nodes:
            argument = self.facts[node].returned
            for user in list(argument.users) if argument else ():
                if argument and places[user] > places[node]:
                    user.replace_input_with(argument, node)

    def _settle(self, node: fx.Node) -> Iterator[Any]:
        """The value of a node that is known in advance, up to the size of the batch."""
        first, second = self.facts[node], self._others[node]
        if node.op in ("placeholder", "output") or not (first.plain and second.plain) or first.writes:
            return
        try:
            yield _common(first.value, second.value)
        except ValueError:
            return

    def _has_rows(self, node: fx.Node) -> bool:
        shapes = (self.facts[node].shape, self._others[node].shape)
        return (
            all(
                shape is not None and shape[:1] == (size,) for shape, size in zip(shapes, PROBED, strict=True)
            )
            and (shapes[0] or ())[1:] == (shapes[1] or ())[1:]
        )

    def _learns(self, node: fx.Node) -> bool:
        if self.facts[node].draws or self._others[node].draws or self.facts[node].lasting:
            return True
        if node.op == "get_attr":
            return bool(resolve_attribute(self.module, node.target).requires_grad)
        return node.op == "call_module" and _module_learns(resolve_attribute(self.module, node.target))

    def _has_effect(self, node: fx.Node) -> bool:
        if self.facts[node].draws or self.facts[node].lasting:
            return True
        return node.op == "call_module" and _counts(resolve_attribute(self.module, node.target))


def _module_learns(module: nn.Module) -> bool:
    """Whether an indivisible module may learn; a head may have another dropout in the next trial."""
    if isinstance(module, Head) or _counts(module):
        return True
    unknown = module.training and not type(module).__module__.startswith(("torch.nn.", "torchvision.ops."))
    return unknown or any(parameter.requires_grad for parameter in module.parameters())


def _counts(module: nn.Module) -> bool:
    """Whether a module keeps statistics of what it is given, as batch norms in train mode do."""
    return any(part.training and next(part.buffers(False), None) is not None for part in module.modules())


def _common(one: Any, other: Any) -> Any:  # noqa: ANN401 - any plain value
    """A value that was the same at both batch sizes but for the size itself."""
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)) and len(one) == len(other):
        return tuple(_common(a, b) for a, b in zip(one, other, strict=True))
    if type(one) is int and type(other) is int and (one, other) == PROBED:
        return BatchSize()
    if one != other:
        raise ValueError
    return one


def _filled(value: Any, size: fx.Node) -> Any:  # noqa: ANN401 - any plain value
    if isinstance(value, tuple):
        return tuple(_filled(member, size) for member in value)
    return size if isinstance(value, BatchSize) else value


def _copy(node: fx.Node, graph: fx.Graph, copies: dict[fx.Node, Any]) -> fx.Node:
    arguments: Any = map_arg(node.args, copies.__getitem__)
    keywords: Any = map_arg(node.kwargs, copies.__getitem__)
    return graph.create_node(node.op, node.target, arguments, keywords, node.name)
