"""What a trained network takes for familiar: the reference, and how far held-out pictures are from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfer_model.network import Network
from transfer_model.novelty import Novelty
from transfer_platform.training.device import autocast
from transfer_platform.training.drawing import batches
from transfer_platform.training.material import Inputs

LARGEST = 2000
"""Pictures in a reference; further ones would make the served form larger and slower, and little else."""


def novelties(
    network: Network, inputs: Inputs, reference: Sequence[int], held_out: Sequence[int], precision: str
) -> tuple[Novelty, Tensor]:
    """A reference, and the novelty of pictures that it has not seen.

    Args:
        network: Trained; in eval mode afterwards.
        inputs: Of all pictures.
        reference: Positions of the pictures that it shall consist of.
        held_out: Positions of pictures that neither taught the network nor are in the reference. Where there
            are none, each picture of the reference is held out in its turn, which is fair where none of them
            taught the network anything but its head.
        precision: That the network computes in.

    Returns:
        The reference, and the novelties, one a held-out picture.
    """
    network.eval()
    novelty = Novelty(_heard(network, inputs, reference, precision))
    if not held_out:
        return novelty, novelty.of_the_reference()
    return novelty, novelty(_heard(network, inputs, held_out, precision))


def chosen(positions: Sequence[int], digests: Sequence[str]) -> list[int]:
    """Up to `LARGEST` of some positions; which ones depends on the pictures' content (SHA-256) alone."""
    return sorted(positions, key=lambda position: digests[position])[:LARGEST]


@torch.inference_mode()
def _heard(network: Network, inputs: Inputs, positions: Sequence[int], precision: str) -> Tensor:
    """What the head is given of pictures, (N, F)."""
    device = next(network.parameters()).device
    features: list[Tensor] = []
    with network.listen(features.append), autocast(device, precision):
        for batch in batches(len(positions), inputs.evaluation_batch, shuffle=False):
            inputs.logits(inputs.plain([positions[index] for index in batch]))
    return torch.cat(features)
