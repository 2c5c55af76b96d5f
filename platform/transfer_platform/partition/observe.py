"""Records the effects of each operation in a graph; saves and restores state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from transfer_model.network import Network


@dataclass(frozen=True)
class OpRecord:
    """Result and side effects of an operation in one run.

    Attributes:
        value: The result if `is_plain`, otherwise None.
        is_plain: True if the result contains no tensors (for example, a size).
        shape: Shape of the result if it is a single tensor, otherwise None.
        reads: IDs of the storages of the operation's tensor arguments.
        writes: IDs of the storages in `reads` that the operation modifies.
        writes_state: True if the operation modifies a parameter or a buffer.
        returned_argument: The argument that the operation modifies in place and returns, if any.
    """

    value: Any
    is_plain: bool
    shape: tuple[int, ...] | None
    reads: frozenset[int]
    writes: frozenset[int]
    writes_state: bool
    draws_random: bool
    returned_argument: fx.Node | None


def observe(module: fx.GraphModule, images: Tensor) -> dict[fx.Node, OpRecord]:
    """Runs a graph once and records the effects of each operation.

    The images (B, 3, S, S) are modified if the network modifies its input in place.
    """
    interpreter = _RecordingInterpreter(module, RandomState(images.device))
    with torch.no_grad():
        interpreter.run(images)
    return interpreter.records


class _RecordingInterpreter(fx.Interpreter):
    """Runs a graph node by node and identifies live storages by their addresses."""

    def __init__(self, module: fx.GraphModule, random_state: RandomState) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.records: dict[fx.Node, OpRecord] = {}
        self._random_state = random_state
        self._storages: dict[fx.Node, tuple[int, ...]] = {}
        """Storage IDs of the tensors in the result of each node."""
        state = [*module.parameters(), *module.buffers()]
        self._state = {_address(tensor): number for number, tensor in enumerate(state)}
        self._next_id = len(state)

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - any value that a network computes
        inputs = [(node, list(_tensors(self.env[node]))) for node in n.all_input_nodes]
        versions = [[tensor._version for tensor in tensors] for _, tensors in inputs]
        random_before = self._random_state.get()
        result = super().run_node(n)
        writes = {
            storage
            for (node, tensors), before in zip(inputs, versions, strict=True)
            for storage, tensor, version in zip(self._storages[node], tensors, before, strict=True)
            if tensor._version != version
        }
        self._identify_storages(n, inputs, result)
        self.records[n] = OpRecord(
            value=result if _is_plain(result) else None,
            is_plain=_is_plain(result),
            shape=tuple(result.shape) if isinstance(result, Tensor) else None,
            reads=frozenset(storage for node, _ in inputs for storage in self._storages[node]),
            writes=frozenset(writes),
            writes_state=any(storage < len(self._state) for storage in writes),
            draws_random=not equal_tensors(random_before, self._random_state.get()),
            returned_argument=next((node for node in n.all_input_nodes if writes and self.env[node] is result), None),
        )
        return result

    def _identify_storages(self, n: fx.Node, inputs: list[tuple[fx.Node, list[Tensor]]], result: object) -> None:
        """Assigns IDs to the storages of a result; storages of arguments and weights already have IDs."""
        ids = dict(self._state)
        for node, tensors in inputs:
            ids |= {_address(t): storage for t, storage in zip(tensors, self._storages[node], strict=True)}
        storages = []
        for tensor in _tensors(result):
            address = _address(tensor)
            if address == 0 or address not in ids:
                ids[address] = self._next_id
                self._next_id += 1
            storages.append(ids[address])
        self._storages[n] = tuple(storages)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(value: object) -> Iterator[Tensor]:
    """Yields all tensors in a nested value, depth first."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _tensors(member)
    elif isinstance(value, (tuple, list)):
        for member in value:
            yield from _tensors(member)


def _is_plain(value: object) -> bool:
    """Returns whether a value can be embedded in a graph as a constant."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if isinstance(value, slice):
        return all(map(_is_plain, (value.start, value.stop, value.step)))
    return value is None or isinstance(value, (bool, int, float, str, torch.device))


class RandomState:
    """State of the random number generators of the CPU and one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._backend = None if device.type == "cpu" else getattr(torch, device.type)

    def get(self) -> tuple[Tensor, ...]:
        """Returns the state of all generators."""
        if self._backend is None:
            return (torch.get_rng_state(),)
        return torch.get_rng_state(), self._backend.get_rng_state(*self._index())

    def set(self, state: tuple[Tensor, ...]) -> None:
        """Restores the state of all generators from a result of `get`."""
        torch.set_rng_state(state[0])
        if self._backend is not None:
            self._backend.set_rng_state(state[1], *self._index())

    def _index(self) -> tuple[torch.device, ...]:
        return (self._device,) if self._device.type == "cuda" else ()


def equal_tensors(first: Iterable[Tensor], second: Iterable[Tensor]) -> bool:
    """Returns whether two sequences of tensors are exactly equal; NaNs count as equal."""
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )


@contextmanager
def preserve_state(network: Network) -> Iterator[None]:
    """Restores a network's train/eval modes, its buffers and the random state on exit."""
    generators = RandomState(module_device(network))
    state = generators.get()
    modes = [(module, module.training) for module in network.modules()]
    buffers = copy_buffers(network)
    try:
        yield
    finally:
        restore_buffers(network, buffers)
        for module, training in modes:
            module.training = training
        generators.set(state)


def copy_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Returns copies of all buffers, including non-persistent ones."""
    return {name: buffer.detach().clone() for name, buffer in network.named_buffers()}


def restore_buffers(network: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Restores modified buffers from their copies, in place."""
    for name, buffer in network.named_buffers():
        if name in buffers and not equal_tensors([buffer], [buffers[name]]):
            with torch.no_grad():
                buffer.copy_(buffers[name])


def module_device(network: nn.Module) -> torch.device:
    """Returns the device of a network's parameters."""
    return next(network.parameters()).device
