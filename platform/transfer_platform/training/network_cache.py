"""Networks that are built, frozen and partitioned once, and reset between trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from transfer_model.network import Network, NetworkSpec, build_network, build_pretrained_classifier
from transfer_model.stages import count_through
from transfer_platform.partition.split import Partition, PartitionError, partition_network
from transfer_platform.training.trainable_state import TrainableState


@dataclass(frozen=True)
class CachedNetwork:
    """Network with a backbone that is frozen through a given stage. Consecutive trials share the network.

    Attributes:
        partition: Frozen prefix and trainable suffix; None if nothing is frozen or partitioning failed.
        partition_error: Error message if partitioning failed; empty otherwise.
        initial_state: Copies of the trainable tensors, made before the first trial.
        classifier: The linear classifier that `network` was built with.
    """

    network: Network
    partition: Partition | None
    partition_error: str
    trainable: TrainableState
    initial_state: dict[str, Tensor]
    classifier: nn.Module

    def reset(self, seed: int, dropout: float) -> Network:
        """Restores the initial weights, sets the dropout rate and seeds PyTorch's random number generator."""
        self.network.set_classifier(self.classifier)
        self.trainable.restore(self.initial_state)
        self.network.set_dropout(dropout)
        torch.manual_seed(seed)
        return self.network


def prepare_network(
    spec: NetworkSpec,
    pretrained: Path | None,
    frozen_through: str,
    seed: int,
    device: torch.device,
    label_rows: Sequence[int] = (),
) -> CachedNetwork:
    """Builds a network, freezes it through the given stage and partitions it after that stage.

    Args:
        spec: Architecture of the network.
        pretrained: File with backbone weights, or None for random weights.
        frozen_through: Last frozen stage, `none` or `all`.
        seed: Seed for initializing the head.
        device: Device on which the network runs.
        label_rows: Rows of the pretrained classifier from which the head is copied; empty for a random head.
    """
    torch.manual_seed(seed)
    network = build_network(spec, pretrained)
    if label_rows and pretrained:
        network.copy_label_rows(build_pretrained_classifier(spec.backbone, pretrained)[0], label_rows)
    freeze_through(network, frozen_through)
    network.to_device(device)
    trainable = TrainableState(network)
    initial_state = trainable.copy()
    partition, partition_error = None, ""
    if network.frozen:
        try:
            partition = partition_network(network)
        except PartitionError as error:
            partition_error = str(error)
    return CachedNetwork(network, partition, partition_error, trainable, initial_state, network.classifier)


def freeze_through(network: Network, stage: str) -> int:
    """Freezes the backbone from the input through the given stage, and unfreezes the rest.

    Frozen modules get no gradients and stay in eval mode: batch norm layers do not update their running statistics, and
    dropout and stochastic depth are disabled.

    Args:
        network: Network to modify in place; maps images (B, 3, H, W) to logits (B, C).
        stage: A name in `network.stages`, a prefix such as `layer1` (the last matching stage is used), `none` or `all`.

    Returns:
        Number of trainable parameters, including the head.

    Raises:
        UnknownStageError: The backbone has no matching stage.
    """
    network.freeze(count_through(network.stages, stage))
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
