"""Finds cut points in a traced graph, and builds the prefix and suffix for a cut.

An operation depends on its arguments and on earlier writes to their storages. Operations that do not depend on the
images are copied to each part that needs them.
"""

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

PROBE_BATCH_SIZES: Final = (2, 3)
"""Batch sizes used to run a graph; an integer equal to the batch size in both runs is treated as the batch size."""


@dataclass(frozen=True)
class BatchSize:
    """Placeholder for the batch size in constant values, such as shapes."""


class AnalyzedGraph:
    """A traced network with the data dependencies of its operations.

    `records` contains one result of `observe` for each batch size in `PROBE_BATCH_SIZES`.
    """

    def __init__(self, module: fx.GraphModule, records: tuple[dict[fx.Node, OpRecord], ...]) -> None:
        self.module = module
        self.nodes = list(module.graph.nodes)
        self.lines = graph_lines(module)
        self._records, self._other_records = records
        self._use_inplace_results()
        self._constants = {node: value for node in self.nodes for value in self._constant(node)}

    @cached_property
    def dependencies(self) -> dict[fx.Node, tuple[fx.Node, ...]]:
        """Maps each node to its arguments and to the nodes that last wrote to the arguments' storages."""
        writers: dict[int, fx.Node] = {}
        dependencies = {}
        for node in self.nodes:
            record = self._records[node]
            written = {writers[storage]: None for storage in sorted(record.reads & writers.keys())}
            dependencies[node] = tuple({**dict.fromkeys(node.all_input_nodes), **written})
            writers |= dict.fromkeys(record.writes, node)
        return dependencies

    @cached_property
    def trainable(self) -> frozenset[fx.Node]:
        """Nodes whose results are random or may change during training, and all nodes that depend on such nodes."""
        trainable: set[fx.Node] = set()
        for node in self.nodes:
            if self._may_change(node) or not trainable.isdisjoint(self.dependencies[node]):
                trainable.add(node)
        return frozenset(trainable)

    @cached_property
    def required(self) -> frozenset[fx.Node]:
        """Nodes that must run: the output, and nodes that draw random numbers or modify state."""
        return frozenset(node for node in self.nodes if node.op == "output" or self._has_side_effect(node))

    @cached_property
    def keys(self) -> dict[fx.Node, int]:
        """Hashes of the nodes' computations; within a process, equal computations have equal hashes in all graphs."""
        keys: dict[fx.Node, int] = {}
        for node in self.nodes:
            used = tuple(keys[dependency] for dependency in self.dependencies[node])
            keys[node] = hash((graph_line(self.module, node, keys), used))
        return keys

    def cut_candidates(self) -> Iterator[fx.Node]:
        """Yields nodes whose result has one row per image and cannot change during training, last node first."""
        for node in reversed(self.nodes):
            is_operation = node.op not in ("placeholder", "output")
            if is_operation and node not in self.trainable and self._has_row_per_image(node):
                yield node

    def suffix_nodes(self, cut: fx.Node) -> frozenset[fx.Node] | None:
        """Returns the nodes that must run after `cut`, or None if the result of `cut` is not enough to run them."""
        nodes: set[fx.Node] = set()
        queue = list(self.required)
        while queue:
            node = queue.pop()
            if node is cut or node in nodes or (node in self._constants and node not in self.required):
                continue
            if node.op == "placeholder":
                return None
            nodes.add(node)
            queue.extend(self.dependencies[node])
        return frozenset(nodes)

    def prefix_nodes(self, cut: fx.Node) -> frozenset[fx.Node]:
        """Returns `cut` and all nodes that it depends on."""
        nodes = {cut}
        for node in reversed(self.nodes):
            if node in nodes:
                nodes.update(self.dependencies[node])
        return frozenset(nodes)

    def prefix(self, cut: fx.Node) -> fx.GraphModule:
        """Builds the prefix: images (B, 3, S, S) -> result of `cut`."""
        graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
        nodes = self.prefix_nodes(cut)
        for node in self.nodes:
            if node in nodes:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(copies[cut])
        return fx.GraphModule(self.module, graph)

    def suffix(self, cut: fx.Node, nodes: Iterable[fx.Node]) -> fx.GraphModule:
        """Builds the suffix: result of `cut` -> output of the graph; `nodes` comes from `suffix_nodes`."""
        graph, members = fx.Graph(), frozenset(nodes)
        features = graph.placeholder("features")
        size = graph.call_method("size", (features, 0))
        copies: dict[fx.Node, Any] = {node: _fill_batch_size(value, size) for node, value in self._constants.items()}
        copies[cut] = features
        for node in self.nodes:
            if node in members:
                copies[node] = _copy_node(node, graph, copies)
        if not size.users:
            graph.erase_node(size)
        return fx.GraphModule(self.module, graph)

    def _use_inplace_results(self) -> None:
        """Replaces later uses of a tensor modified in place with the result of the operation that modifies it."""
        positions = {node: position for position, node in enumerate(self.nodes)}
        for node in self.nodes:
            argument = self._records[node].returned_argument
            for user in list(argument.users) if argument else ():
                if argument and positions[user] > positions[node]:
                    user.replace_input_with(argument, node)

    def _constant(self, node: fx.Node) -> Iterator[Any]:
        """Yields the value of a node, or nothing if the value depends on anything other than the batch size."""
        first, second = self._records[node], self._other_records[node]
        if node.op in ("placeholder", "output") or not (first.is_plain and second.is_plain) or first.writes:
            return
        try:
            yield _merge_values(first.value, second.value)
        except ValueError:
            return

    def _has_row_per_image(self, node: fx.Node) -> bool:
        first, second = self._records[node].shape, self._other_records[node].shape
        if not first or not second:
            return False
        return (first[0], second[0]) == PROBE_BATCH_SIZES and first[1:] == second[1:]

    def _may_change(self, node: fx.Node) -> bool:
        records = self._records[node], self._other_records[node]
        if any(record.draws_random for record in records) or records[0].writes_state:
            return True
        if node.op == "get_attr":
            return bool(resolve_attribute(self.module, node.target).requires_grad)
        return node.op == "call_module" and _is_trainable(resolve_attribute(self.module, node.target))

    def _has_side_effect(self, node: fx.Node) -> bool:
        if self._records[node].draws_random or self._records[node].writes_state:
            return True
        return node.op == "call_module" and _tracks_statistics(resolve_attribute(self.module, node.target))


def _is_trainable(module: nn.Module) -> bool:
    """Returns whether a leaf module may change during training. Heads may, because trials change their dropout."""
    if isinstance(module, Head) or _tracks_statistics(module):
        return True
    unknown = module.training and not type(module).__module__.startswith(("torch.nn.", "torchvision.ops."))
    return unknown or any(parameter.requires_grad for parameter in module.parameters())


def _tracks_statistics(module: nn.Module) -> bool:
    """Returns whether a module updates buffers, as batch norm layers do in train mode."""
    return any(part.training and next(part.buffers(False), None) is not None for part in module.modules())


def _merge_values(first: Any, second: Any) -> Any:  # noqa: ANN401 - any plain value
    """Merges values observed for two batch sizes into one, with `BatchSize` in place of the batch size.

    Raises:
        ValueError: The values differ in something other than the batch size.
    """
    if isinstance(first, (tuple, list)) and isinstance(second, (tuple, list)) and len(first) == len(second):
        return tuple(_merge_values(a, b) for a, b in zip(first, second, strict=True))
    if type(first) is int and type(second) is int and (first, second) == PROBE_BATCH_SIZES:
        return BatchSize()
    if first != second:
        raise ValueError
    return first


def _fill_batch_size(value: Any, size: fx.Node) -> Any:  # noqa: ANN401 - any plain value
    if isinstance(value, tuple):
        return tuple(_fill_batch_size(member, size) for member in value)
    return size if isinstance(value, BatchSize) else value


def _copy_node(node: fx.Node, graph: fx.Graph, copies: dict[fx.Node, Any]) -> fx.Node:
    args: Any = map_arg(node.args, copies.__getitem__)
    kwargs: Any = map_arg(node.kwargs, copies.__getitem__)
    return graph.create_node(node.op, node.target, args, kwargs, node.name)
