"""A network in two parts: a prefix that training cannot change, and what learns from its output.

The prefix is run once per image, the suffix in every epoch. Both are cut out of the traced network
(https://docs.pytorch.org/docs/stable/fx.html) and share its parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, fx

from transfer_platform.errors import PlatformError
from transfer_platform.partition.cut import PROBED, AnalyzedGraph
from transfer_platform.partition.disturbance import (
    RandomState,
    copy_buffers,
    equal_tensors,
    module_device,
    preserve_state,
    restore_buffers,
)
from transfer_platform.partition.fingerprint import graph_digest, graph_lines
from transfer_platform.partition.observe import observe
from transfer_platform.partition.trace import trace

if TYPE_CHECKING:
    from transfer_model.network import Network

_CLOSE: Final = 1e-3
"""How far results may differ where bits are not promised, as a share of the largest number."""

Outputs = tuple[Tensor, tuple[Tensor, ...]]


class PartitionError(PlatformError):
    """A network that has to be trained whole; the message says why."""


@dataclass(frozen=True)
class _Halves:
    """Graphs of one cut: the suffix in train mode and in eval mode, which may be the same."""

    prefix: fx.GraphModule
    training: fx.GraphModule
    evaluation: fx.GraphModule


class Partition:
    """A network, cut where learning starts.

    It holds while the network stays frozen as it is: its weights may be changed in place, and its heads'
    dropout as well.

    Args:
        network: Both parts share its parameters.
        halves: The graphs.
        example: What the prefix gave for some images, (B, ...).

    Attributes:
        shape: Of one image's features.
        dtype: Of features that were computed in float32.
        digest: Changes with all that the features depend on but the images and the arithmetic: the operations
            of the prefix, its weights and buffers, the libraries' versions. Hexadecimal SHA-256.
    """

    def __init__(self, network: Network, halves: _Halves, example: Tensor) -> None:
        self._network, self._halves = network, halves
        strides = example.stride()
        self._order = sorted(range(example.ndim), key=lambda axis: (-strides[axis], axis))
        self.shape = tuple(example.shape[1:])
        self.dtype = example.dtype
        self.digest = graph_digest(halves.prefix)

    def features(self, images: Tensor) -> Tensor:
        """Runs the prefix, without gradients, in whatever arithmetic the caller's autocast says.

        Args:
            images: (B, 3, S, S) on the network's device.

        Returns:
            (B, *shape), in any memory layout; may share its memory with the images.
        """
        with torch.no_grad():
            features: Tensor = self._halves.prefix(images)
        return features

    def logits(self, features: Tensor) -> Outputs:
        """Runs the suffix, in train mode or eval mode as the network is.

        Args:
            features: (B, *shape) on the network's device, as `features` gave them; may be written to.

        Returns:
            What `Network.forward_with_auxiliary` gives for the images that the features are of.
        """
        suffix = self._halves.training if self._network.training else self._halves.evaluation
        outputs: Outputs = suffix(self._laid_out(features))
        return outputs

    def _laid_out(self, features: Tensor) -> Tensor:
        """Features in the memory layout that the prefix gives: the last bits depend on it."""
        strides, step = [0] * features.ndim, 1
        for axis in reversed(self._order):
            strides[axis] = step
            step *= features.shape[axis]
        if features.stride() == tuple(strides):
            return features
        fresh = torch.empty_strided(features.shape, strides, dtype=features.dtype, device=features.device)
        return fresh.copy_(features)


def partition_network(network: Network) -> Partition:
    """Cuts a network after the last operation that training cannot change.

    What comes out is compared with the whole network, in train and in eval mode. The network and the caller's
    random numbers stay as they are.

    Args:
        network: Frozen as wished, on its device; S is `network.spec.image_size`.

    Raises:
        NotSplitError: It has to be trained whole.
    """
    if network.frozen == 0:
        raise _not_split(network, "nothing of it is frozen")
    try:
        with preserve_state(network), torch.inference_mode(mode=False), _plainly(module_device(network)):
            return _verified(network, _cut(network))
    except PartitionError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _not_split(network, f"it cannot be traced ({type(error).__name__}: {reason})") from error


def _not_split(network: Network, reason: str) -> PartitionError:
    return PartitionError(f"{network.spec.backbone} is trained whole: {reason}")


@contextmanager
def _plainly(where: torch.device) -> Iterator[None]:
    """Float32 arithmetic, and none of the warnings that libraries have for being traced."""
    with warnings.catch_warnings(), torch.autocast(where.type, enabled=False):
        warnings.simplefilter("ignore")
        yield


def _cut(network: Network) -> _Halves:
    images = [_images(network, size) for size in PROBED]
    training = _anatomised(network.train(), images)
    evaluation = _anatomised(network.eval(), images, training)
    counterparts = {key: node for node, key in evaluation.keys.items()}
    for cut in training.cut_candidates():
        counterpart = counterparts.get(training.keys[cut])
        within = training.nodes_after(cut)
        if counterpart is None or within is None:
            continue
        within_evaluation = evaluation.nodes_after(counterpart)
        if within_evaluation is not None:
            suffix = training.suffix(cut, within)
            other = suffix if evaluation is training else evaluation.suffix(counterpart, within_evaluation)
            return _Halves(training.prefix(cut), suffix, other)
    raise _not_split(network, "there is no tensor in it that all later operations start from")


def _anatomised(network: Network, images: list[Tensor], known: AnalyzedGraph | None = None) -> AnalyzedGraph:
    """A network in its present mode; `known` where that does the same."""
    module = trace(network)
    if known is not None and graph_lines(module) == known.lines:
        return known
    first, second = (observe(module, batch.clone()) for batch in images)
    return AnalyzedGraph(module, (first, second))


def _images(network: Network, count: int) -> Tensor:
    """Noise in the memory layout that the network computes in; larger batches start with smaller ones."""
    side = network.spec.image_size
    noise = torch.randn(max(PROBED), 3, side, side, generator=torch.Generator().manual_seed(0))
    images = noise[:count].to(module_device(network))
    maps = next((p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1), None)
    if maps is not None and not maps.is_contiguous():
        images = images.to(memory_format=torch.channels_last)
    return images


def _verified(network: Network, halves: _Halves) -> Partition:
    """A split that was compared with its network."""
    images = [_images(network, size) for size in PROBED]
    with torch.no_grad():
        rows = [halves.prefix(batch.clone()) for batch in images]
    found = Partition(network, halves, rows[0])
    if not _close(rows[1][: PROBED[0]], rows[0]):
        raise _not_split(network, "what its frozen part makes of an image depends on the others in a batch")
    network.eval()
    with torch.no_grad():
        for batch in images:
            _compare(network, found, batch)
    network.train()
    with torch.enable_grad():
        _compare(network, found, images[0])
    return found


def _compare(network: Network, found: Partition, images: Tensor) -> None:
    """Refuses a split that gives other outputs, draws other random numbers or leaves other statistics."""
    streams = RandomState(images.device)
    start, buffers = streams.state(), copy_buffers(network)
    logits, auxiliary = network.forward_with_auxiliary(images.clone())
    expected = [logits, *auxiliary, *copy_buffers(network).values()]
    end = streams.state()
    streams.restore(start)
    restore_buffers(network, buffers)
    rows = found.features(images.clone())
    drawn = not equal_tensors(start, streams.state())
    logits, auxiliary = found.logits(rows.contiguous().clone())
    given = [logits, *auxiliary, *copy_buffers(network).values()]
    restore_buffers(network, buffers)
    if drawn or not equal_tensors(end, streams.state()):
        raise _not_split(network, "cut in two it draws other random numbers")
    agree = equal_tensors if images.device.type == "cpu" else _all_close
    if len(given) != len(expected) or not agree(given, expected):
        raise _not_split(network, "cut in two it computes something else than whole")


def _all_close(given: list[Tensor], expected: list[Tensor]) -> bool:
    """Accelerators choose among kernels as they like, so that bits are not promised there."""
    return all(_close(a, b) for a, b in zip(given, expected, strict=True))


def _close(given: Tensor, expected: Tensor) -> bool:
    if given.shape != expected.shape or not expected.numel():
        return given.shape == expected.shape
    one, other = given.detach().double().cpu(), expected.detach().double().cpu()
    room = _CLOSE * float(other.nan_to_num().abs().max())
    return torch.allclose(one, other, rtol=0, atol=room, equal_nan=True)
