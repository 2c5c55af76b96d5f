"""What comes out of a frozen backbone: computed once, learnt from in every epoch of every trial.

Features are held in memory. They serve where the whole backbone is frozen, no augmentation varies the images,
and the network is nothing but its head on top of them; elsewhere trials learn from the images themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from transfer_model.network import Network

PREFIX_BATCH = 8
"""Images in a forward pass. One size for all: on most networks the last bits depend on it."""


@dataclass(frozen=True)
class Features:
    """The features of one split.

    Attributes:
        values: (N, ...) float32, on the CPU.
        labels: Class indices (N,).
    """

    values: Tensor
    labels: Tensor


def compute(network: Network, batches: Iterable[tuple[Tensor, Tensor]], precision: str) -> Features:
    """Runs the backbone once over all images of a split.

    Args:
        network: On its device; in eval mode afterwards.
        batches: Images (B, 3, S, S) with B at most `PREFIX_BATCH`, and their class indices.
        precision: Arithmetic of the backbone.
    """
    device = next(network.parameters()).device
    network.eval()
    values, labels = [], []
    for images, targets in batches:
        padded = functional.pad(images, (0, 0, 0, 0, 0, 0, 0, PREFIX_BATCH - len(images)))
        padded = padded.to(device, memory_format=torch.channels_last)
        # no_grad, not inference_mode: what comes out is input to training.
        with (
            torch.no_grad(),
            torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32"),
        ):
            features = network.embed(padded)
        values.append(features[: len(images)].float().cpu())
        labels.append(targets)
    return Features(torch.cat(values), torch.cat(labels))
