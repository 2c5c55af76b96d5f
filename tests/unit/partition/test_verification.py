"""Verification of a partition on devices whose arithmetic differs from that of a CPU."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from transfer_model.network import Network, NetworkSpec, build_network
from transfer_platform.partition import split
from transfer_platform.partition.split import PartitionError, partition_network

FLAGS = (torch.backends.cudnn, torch.backends.cuda.matmul)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    network = build_network(NetworkSpec("efficientnet_lite0", classes=3, dropout=0.0, image_size=64))
    network.freeze(len(network.stages))
    return network


@pytest.fixture
def tf32() -> Iterator[None]:
    """Allows TF32 everywhere, as PyTorch does for convolutions."""
    before = [flag.allow_tf32 for flag in FLAGS]
    for flag in FLAGS:
        flag.allow_tf32 = True
    yield
    for flag, allowed in zip(FLAGS, before, strict=True):
        flag.allow_tf32 = allowed


class TensorCores(TorchDispatchMode):
    """Computes convolutions of three images in TF32 if allowed; cuDNN selects the algorithm by the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: set[bool] = set()

    def __torch_dispatch__(
        self, operation: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(name in str(operation) for name in ("convolution", "addmm")):
            self.allowed.update(flag.allow_tf32 for flag in FLAGS)
        if "convolution" in str(operation) and torch.backends.cudnn.allow_tf32 and len(args[0]) == 3:
            args = (to_tf32(args[0]), to_tf32(args[1]), *args[2:])
        return operation(*args, **(kwargs or {}))


def to_tf32(tensor: Tensor) -> Tensor:
    """Rounds to the 10 bits of TF32's mantissa."""
    bits = tensor.detach().contiguous().view(torch.int32)
    return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


def test_tf32_is_disabled_during_verification(network: Network, tf32: None) -> None:
    with TensorCores() as device:
        partition_network(network)
    assert device.allowed == {False}
    assert all(flag.allow_tf32 for flag in FLAGS)


def test_tf32_is_allowed_again_after_a_failure(network: Network, tf32: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PartitionError("failed")

    monkeypatch.setattr(split, "_verify", fail)
    with pytest.raises(PartitionError):
        partition_network(network)
    assert all(flag.allow_tf32 for flag in FLAGS)


class MpsTensor(Tensor):
    """A tensor on a device without float64."""

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        plain = tree_map(lambda value: value.as_subclass(Tensor) if isinstance(value, MpsTensor) else value, args)
        result = function(*plain, **(kwargs or {}))
        if function is Tensor.cpu or not isinstance(result, Tensor):
            return result
        if result.dtype is torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return result.as_subclass(cls)


def test_results_are_compared_on_devices_without_float64() -> None:
    values = torch.tensor([1.0, 2.0, float("nan")])
    on_device = values.as_subclass(MpsTensor)
    assert split._close(on_device, on_device.clone())
    assert not split._close(on_device, on_device + 0.1)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 24.00 MiB."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=str,
)
def test_a_lack_of_memory_does_not_count_as_a_network_that_cannot_be_split(
    network: Network, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a study would train the whole network because another process used the memory for a moment."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(split, "observe", fail)
    with pytest.raises(type(error), match=re.escape(str(error))):
        partition_network(network)
