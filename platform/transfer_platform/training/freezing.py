"""Freezing: which part of a pretrained network keeps what it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_model.stages import count_through

if TYPE_CHECKING:
    from transfer_model.network import Network


def freeze_through(network: Network, stage: str) -> int:
    """Freezes the backbone from its input up to and including one stage, and thaws the rest.

    What is frozen gets no gradient and stays in eval mode: batch norms keep their running statistics too,
    dropout and stochastic depth are off.

    Args:
        network: Changed in place. Images (B, 3, H, W) -> logits (B, C).
        stage: A name in `network.stages` or a beginning that several share (`layer1`: through the last of
            them), or "none" or "all".

    Returns:
        How many parameters still learn, head included.

    Raises:
        UnknownStageError: `stage` is not one of the backbone's; the message lists those that are.
    """
    network.freeze(count_through(network.stages, stage))
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
