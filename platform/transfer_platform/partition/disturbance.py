"""What running a network changes beside its output, random streams and buffers, and how it is undone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transfer_model.network import Network


class RandomState:
    """The random numbers that a network on a device draws: the CPU's and that device's.

    Args:
        device: Where the network lives.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own = None if device.type == "cpu" else getattr(torch, device.type)

    def state(self) -> tuple[Tensor, ...]:
        """Where both streams are now."""
        if self._own is None:
            return (torch.get_rng_state(),)
        own = self._own.get_rng_state(*self._index())
        return torch.get_rng_state(), own

    def restore(self, state: tuple[Tensor, ...]) -> None:
        """Sets both streams to an earlier state."""
        torch.set_rng_state(state[0])
        if self._own is not None:
            self._own.set_rng_state(state[1], *self._index())

    def _index(self) -> tuple[torch.device, ...]:
        return (self._device,) if self._device.type == "cuda" else ()


def equal_tensors(one: Iterable[Tensor], other: Iterable[Tensor]) -> bool:
    """Whether two rows of tensors are equal bit by bit, but that all NaN are equal."""
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )


@contextmanager
def preserve_state(network: Network) -> Iterator[None]:
    """Gives a network its modes and buffers back at the end, and the caller the random stream."""
    streams = RandomState(module_device(network))
    state = streams.state()
    modes = [(module, module.training) for module in network.modules()]
    buffers = copy_buffers(network)
    try:
        yield
    finally:
        restore_buffers(network, buffers)
        for module, training in modes:
            module.training = training
        streams.restore(state)


def copy_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Copies of all buffers, those that no checkpoint holds included."""
    return {name: buffer.detach().clone() for name, buffer in network.named_buffers()}


def restore_buffers(network: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Gives the buffers their values back, in place, where they have changed."""
    for name, buffer in network.named_buffers():
        if name in buffers and not equal_tensors([buffer], [buffers[name]]):
            with torch.no_grad():
                buffer.copy_(buffers[name])


def module_device(network: nn.Module) -> torch.device:
    """Where a network's parameters live."""
    return next(network.parameters()).device
