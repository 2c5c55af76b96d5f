"""What each operation of a graph does when it runs: its sizes, what it writes to, whether it draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from transfer_platform.partition.disturbance import RandomState, equal_tensors


@dataclass(frozen=True)
class OpRecord:
    """What an operation did in one run.

    Attributes:
        value: Of a result without tensors in it, such as a size; None where `plain` is false.
        plain: Whether it is such a result.
        shape: Of a result that is one tensor; None elsewhere.
        reads: Numbers of the memories that its tensor arguments lie in.
        writes: Those of them that it has changed.
        lasting: Whether it has changed a parameter or a buffer.
        draws: Whether it has drawn random numbers.
        returned: The argument that it gave back as its result after writing to it.
    """

    value: Any
    plain: bool
    shape: tuple[int, ...] | None
    reads: frozenset[int]
    writes: frozenset[int]
    lasting: bool
    draws: bool
    returned: fx.Node | None


def observe(module: fx.GraphModule, images: Tensor) -> dict[fx.Node, OpRecord]:
    """Runs a graph once and notes what each operation does.

    Args:
        module: From `trace`.
        images: (B, 3, S, S) on the network's device; may be written to, as the network would.
    """
    observer = _Observer(module, RandomState(images.device))
    with torch.no_grad():
        observer.run(images)
    return observer.facts


class _Observer(fx.Interpreter):
    """Runs a graph node by node; memories are told apart by address while they are in use."""

    def __init__(self, module: fx.GraphModule, streams: RandomState) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.facts: dict[fx.Node, OpRecord] = {}
        self._streams = streams
        self._memories: dict[fx.Node, tuple[int, ...]] = {}
        lasting = [*module.parameters(), *module.buffers()]
        self._lasting = {_address(tensor): number for number, tensor in enumerate(lasting)}
        self._next = len(lasting)

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - whatever the network hands around
        inputs = [(node, list(tensors(self.env[node]))) for node in n.all_input_nodes]
        versions = [[tensor._version for tensor in found] for _, found in inputs]
        before = self._streams.state()
        result = super().run_node(n)
        written = {
            memory
            for (node, found), earlier in zip(inputs, versions, strict=True)
            for memory, tensor, version in zip(self._memories[node], found, earlier, strict=True)
            if tensor._version != version
        }
        self._number(n, inputs, result)
        self.facts[n] = OpRecord(
            value=result if plain(result) else None,
            plain=plain(result),
            shape=tuple(result.shape) if isinstance(result, Tensor) else None,
            reads=frozenset(memory for node, _ in inputs for memory in self._memories[node]),
            writes=frozenset(written),
            lasting=any(memory < len(self._lasting) for memory in written),
            draws=not equal_tensors(before, self._streams.state()),
            returned=next((node for node in n.all_input_nodes if written and self.env[node] is result), None),
        )
        return result

    def _number(
        self,
        n: fx.Node,
        inputs: list[tuple[fx.Node, list[Tensor]]],
        result: Any,  # noqa: ANN401 - whatever the network hands around
    ) -> None:
        """A result lies in the memory of an argument, in that of a weight, or in its own."""
        known = dict(self._lasting)
        for node, found in inputs:
            known |= {_address(t): memory for t, memory in zip(found, self._memories[node], strict=True)}
        numbers = []
        for tensor in tensors(result):
            address = _address(tensor)
            if address == 0 or address not in known:
                known[address] = self._next
                self._next += 1
            numbers.append(known[address])
        self._memories[n] = tuple(numbers)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def tensors(value: object) -> Iterator[Tensor]:
    """All tensors in a value, depth first."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from tensors(member)
    elif isinstance(value, (tuple, list)):
        for member in value:
            yield from tensors(member)


def plain(value: object) -> bool:
    """Whether a value is numbers, words and devices only, so that it can be written into a graph."""
    if isinstance(value, (tuple, list)):
        return all(map(plain, value))
    if isinstance(value, slice):
        return all(map(plain, (value.start, value.stop, value.step)))
    return value is None or isinstance(value, (bool, int, float, str, torch.device))
