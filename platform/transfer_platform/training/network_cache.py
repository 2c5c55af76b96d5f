"""A network as every trial starts with it: built and split once, put back to its start between trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from transfer_model.network import Network, NetworkSpec, build_network
from transfer_platform.partition.split import Partition, PartitionError, partition_network
from transfer_platform.training.freezing import freeze_through
from transfer_platform.training.trainable_state import TrainableState


@dataclass(frozen=True)
class CachedNetwork:
    """One backbone, frozen through one stage.

    Attributes:
        network: Shared by all trials that start with it, one after the other.
        split: Where its frozen part ends; None where there is none, or where it cannot be cut.
        unsplit: Why it cannot be cut; empty where it could be, or where nothing is frozen.
        learned: What training changes.
        start: Copies of it, as it was before any.
    """

    network: Network
    partition: Partition | None
    partition_error: str
    trainable: TrainableState
    initial_state: dict[str, Tensor]

    def reset(self, seed: int, dropout: float) -> Network:
        """Forgets every trial: the weights of the start, and torch's generator as `seed` sets it."""
        self.trainable.restore(self.initial_state)
        self.network.set_dropout(dropout)
        torch.manual_seed(seed)
        return self.network


def prepare_network(
    spec: NetworkSpec, pretrained: Path | None, frozen_through: str, seed: int, device: torch.device
) -> CachedNetwork:
    """Builds a network, freezes it and splits it where learning starts.

    Args:
        spec: What to build.
        pretrained: File of the backbone's weights; None: random ones.
        frozen_through: A stage, `none` or `all`.
        seed: Of the head's first weights.
        device: Where it lives.
    """
    torch.manual_seed(seed)
    network = build_network(spec, pretrained)
    freeze_through(network, frozen_through)
    network.to_device(device)
    learned = TrainableState(network)
    start = learned.copy()
    if not network.frozen:
        return CachedNetwork(network, None, "", learned, start)
    try:
        return CachedNetwork(network, partition_network(network), "", learned, start)
    except PartitionError as error:
        return CachedNetwork(network, None, str(error), learned, start)
