"""What a trained network takes for familiar: the pictures that stand for all, and what its head is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer_model.network import Network
from transfer_platform.training.device import autocast
from transfer_platform.training.drawing import batches
from transfer_platform.training.material import Inputs

LARGEST = 2000
"""Pictures in a reference; further ones would make the served form larger and slower, and little else."""


def chosen(positions: Sequence[int], digests: Sequence[str]) -> list[int]:
    """Up to `LARGEST` of some positions; which ones depends on the pictures' content (SHA-256) alone."""
    return sorted(positions, key=lambda position: digests[position])[:LARGEST]


@torch.inference_mode()
def heard(network: Network, inputs: Inputs, positions: Sequence[int], precision: str) -> Tensor:
    """What the head is given of pictures, (N, F).

    Args:
        network: Trained; in eval mode afterwards.
        inputs: Of all pictures.
        positions: Of these.
        precision: That the network computes in.
    """
    network.eval()
    device = next(network.parameters()).device
    features: list[Tensor] = []
    with network.listen(features.append), autocast(device, precision):
        for batch in batches(len(positions), inputs.evaluation_batch, shuffle=False):
            inputs.logits(inputs.plain([positions[index] for index in batch]))
    return torch.cat(features)
