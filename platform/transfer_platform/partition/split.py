"""Splits a network into a frozen prefix and the remaining suffix.

The prefix runs once per image, the suffix in every epoch. Both are parts of the traced network
(https://docs.pytorch.org/docs/stable/fx.html) and share its parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx

from transfer_model.errors import cause
from transfer_model.network import Network
from transfer_platform.errors import PlatformError, is_out_of_memory
from transfer_platform.partition.cut import PROBE_BATCH_SIZES, AnalyzedGraph
from transfer_platform.partition.fingerprint import graph_digest, graph_lines
from transfer_platform.partition.observe import (
    RandomState,
    copy_buffers,
    equal_tensors,
    module_device,
    observe,
    preserve_state,
    restore_buffers,
)
from transfer_platform.partition.trace import trace

_TOLERANCE: Final = 1e-3
"""Tolerance relative to the largest absolute value, for results that need not be bitwise identical."""

Outputs = tuple[Tensor, tuple[Tensor, ...]]


class PartitionError(PlatformError):
    """Raised if a network cannot be split and has to be trained as a whole; the message states the reason."""


@dataclass(frozen=True)
class _Graphs:
    """The prefix and the suffixes for train and eval mode. The two suffixes may be the same module."""

    prefix: fx.GraphModule
    train_suffix: fx.GraphModule
    eval_suffix: fx.GraphModule


class Partition:
    """A network split after its frozen operations; both parts share the network's parameters.

    A partition remains valid as long as the same stages are frozen; weights and head dropout may be modified in place.

    Args:
        example: Features (B, ...) from the prefix, used to determine `shape`, `dtype` and the memory layout.

    Attributes:
        shape: Shape of one image's features.
        dtype: Dtype of the features if the prefix runs without autocast.
        digest: Hexadecimal SHA-256 of the library versions and the prefix's operations, weights and buffers.
            Together with the images and the precision, it determines the features.
    """

    def __init__(self, network: Network, graphs: _Graphs, example: Tensor) -> None:
        self._network, self._graphs = network, graphs
        strides = example.stride()
        self._memory_order = sorted(range(example.ndim), key=lambda axis: (-strides[axis], axis))
        self.shape = tuple(example.shape[1:])
        self.dtype = example.dtype
        self.digest = graph_digest(graphs.prefix)

    def features(self, images: Tensor) -> Tensor:
        """Runs the prefix without gradients, in the precision of the current autocast context.

        Images (B, 3, S, S) -> features (B, *shape) in any memory layout; the features may share memory with the images.
        """
        with torch.no_grad():
            features: Tensor = self._graphs.prefix(images)
        return features

    def logits(self, features: Tensor) -> Outputs:
        """Runs the suffix in the network's current mode; returns the same items as `Network.forward_with_auxiliary`.

        The features (B, *shape) must be on the network's device; this call may modify them in place.
        """
        suffix = self._graphs.train_suffix if self._network.training else self._graphs.eval_suffix
        outputs: Outputs = suffix(self._to_prefix_layout(features))
        return outputs

    def _to_prefix_layout(self, features: Tensor) -> Tensor:
        """Returns features in the prefix's memory layout; another layout would change the last bits of the results."""
        strides, step = [0] * features.ndim, 1
        for axis in reversed(self._memory_order):
            strides[axis] = step
            step *= features.shape[axis]
        if features.stride() == tuple(strides):
            return features
        copy = torch.empty_strided(features.shape, strides, dtype=features.dtype, device=features.device)
        return copy.copy_(features)


def partition_network(network: Network) -> Partition:
    """Splits a network after the last operation whose result cannot change during training.

    The parts are verified against the network in train and eval mode. The network and the random state do not change.

    Raises:
        PartitionError: The network has to be trained as a whole.
        MemoryError, RuntimeError: The verification needs too much memory; see `is_out_of_memory`.
    """
    if network.frozen == 0:
        raise _error(network, "no stage is frozen")
    try:
        with preserve_state(network), torch.inference_mode(mode=False), _full_precision(module_device(network)):
            return _verify(network, _split(network))
    except PartitionError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = cause(error)
        raise _error(network, f"torch.fx cannot trace it ({type(error).__name__}: {reason})") from error


def _error(network: Network, reason: str) -> PartitionError:
    return PartitionError(f"cannot split {network.spec.backbone}: {reason}")


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Disables autocast and TF32, and suppresses warnings that libraries emit while being traced.

    By default, PyTorch allows TF32 for convolutions on GPUs. The rounding errors of TF32 exceed `_TOLERANCE`.
    """
    backends: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    with warnings.catch_warnings(), torch.autocast(device.type, enabled=False):
        warnings.simplefilter("ignore")
        allowed = [backend.allow_tf32 for backend in backends]
        try:
            for backend in backends:
                backend.allow_tf32 = False
            yield
        finally:
            for backend, value in zip(backends, allowed, strict=True):
                backend.allow_tf32 = value


def _split(network: Network) -> _Graphs:
    batches = [_probe_images(network, size) for size in PROBE_BATCH_SIZES]
    train_graph = _analyze(network.train(), batches)
    eval_graph = _analyze(network.eval(), batches, train_graph)
    eval_nodes = {key: node for node, key in eval_graph.keys.items()}
    for cut in train_graph.cut_candidates():
        eval_cut = eval_nodes.get(train_graph.keys[cut])
        nodes = train_graph.suffix_nodes(cut)
        if eval_cut is None or nodes is None:
            continue
        nodes_in_eval = eval_graph.suffix_nodes(eval_cut)
        if nodes_in_eval is not None:
            suffix = train_graph.suffix(cut, nodes)
            eval_suffix = suffix if eval_graph is train_graph else eval_graph.suffix(eval_cut, nodes_in_eval)
            return _Graphs(train_graph.prefix(cut), suffix, eval_suffix)
    raise _error(network, "no single tensor separates the frozen operations from the trainable ones")


def _analyze(network: Network, batches: list[Tensor], known: AnalyzedGraph | None = None) -> AnalyzedGraph:
    """Traces a network in its current mode and returns the observed graph, or `known` if the graphs are identical."""
    module = trace(network)
    if known is not None and graph_lines(module) == known.lines:
        return known
    first, second = (observe(module, batch.clone()) for batch in batches)
    return AnalyzedGraph(module, (first, second))


def _probe_images(network: Network, count: int) -> Tensor:
    """Returns the first `count` images of a fixed set of random images, in the network's memory layout."""
    side = network.spec.image_size
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(max(PROBE_BATCH_SIZES), 3, side, side, generator=generator)
    images = noise[:count].to(module_device(network))
    filters = next((p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1), None)
    if filters is not None and not filters.is_contiguous():
        images = images.to(memory_format=torch.channels_last)
    return images


def _verify(network: Network, graphs: _Graphs) -> Partition:
    """Returns the partition after verifying it against the network."""
    batches = [_probe_images(network, size) for size in PROBE_BATCH_SIZES]
    with torch.no_grad():
        features = [graphs.prefix(batch.clone()) for batch in batches]
    partition = Partition(network, graphs, features[0])
    if not _close(features[1][: PROBE_BATCH_SIZES[0]], features[0]):
        raise _error(network, "the features of an image depend on the other images in its batch")
    network.eval()
    with torch.no_grad():
        for batch in batches:
            _compare(network, partition, batch)
    network.train()
    with torch.enable_grad():
        _compare(network, partition, batches[0])
    return partition


def _compare(network: Network, partition: Partition, images: Tensor) -> None:
    """Compares a partition's outputs, random numbers and updated buffers with those of the network.

    Raises:
        PartitionError: The outputs, random numbers or buffers differ.
    """
    generators = RandomState(images.device)
    start, buffers = generators.get(), copy_buffers(network)
    logits, auxiliary = network.forward_with_auxiliary(images.clone())
    expected = [logits, *auxiliary, *copy_buffers(network).values()]
    end = generators.get()
    generators.set(start)
    restore_buffers(network, buffers)
    features = partition.features(images.clone())
    prefix_is_random = not equal_tensors(start, generators.get())
    logits, auxiliary = partition.logits(features.contiguous().clone())
    actual = [logits, *auxiliary, *copy_buffers(network).values()]
    restore_buffers(network, buffers)
    if prefix_is_random or not equal_tensors(end, generators.get()):
        raise _error(network, "the two parts draw different random numbers than the whole network")
    agree = equal_tensors if images.device.type == "cpu" else _all_close
    if len(actual) != len(expected) or not agree(actual, expected):
        raise _error(network, "the two parts compute different results than the whole network")


def _all_close(actual: list[Tensor], expected: list[Tensor]) -> bool:
    """Returns whether all tensors match within a tolerance, because accelerator results may vary from run to run."""
    return all(_close(a, b) for a, b in zip(actual, expected, strict=True))


def _close(actual: Tensor, expected: Tensor) -> bool:
    if actual.shape != expected.shape or not expected.numel():
        return actual.shape == expected.shape
    # Converted on the CPU, because MPS has no float64.
    first, second = (tensor.detach().cpu().double() for tensor in (actual, expected))
    atol = _TOLERANCE * float(second.nan_to_num().abs().max())
    return torch.allclose(first, second, rtol=0, atol=atol, equal_nan=True)
