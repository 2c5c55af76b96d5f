"""Measures what the frozen part of a network costs: the bytes and the seconds of one image."""

from __future__ import annotations

import time

import torch

from transfer_model.network import NetworkSpec
from transfer_platform.training.cost_model import CostKey, MeasuredCost, save_cost
from transfer_platform.training.device import choose_device, synchronize
from transfer_platform.training.features import PREFIX_BATCH, FrozenPrefix
from transfer_platform.training.network_cache import prepare_network

ROUNDS = 3
"""A single one may have met a busy moment, and would be believed for ever."""


def measure_cost(prefix: FrozenPrefix, backbone: str, frozen_through: str) -> MeasuredCost:
    """Times the frozen part on one batch, after one that loads kernels, and remembers the shortest time.

    Args:
        prefix: What runs once.
        backbone: Its name in the recipe.
        frozen_through: Its last stage.
    """
    images = torch.zeros(PREFIX_BATCH, 3, prefix.image_size, prefix.image_size, device=prefix.device)
    row_bytes = prefix.layout.row_bytes  # runs it for the first time
    seconds = []
    for _ in range(ROUNDS):
        synchronize(prefix.device)
        start = time.perf_counter()
        prefix.run(images)
        synchronize(prefix.device)
        seconds.append(time.perf_counter() - start)
    found = MeasuredCost(row_bytes, min(seconds) / PREFIX_BATCH)
    subject = CostKey(backbone, frozen_through, prefix.image_size, prefix.precision, prefix.device.type)
    save_cost(subject, found)
    return found


def estimate_cost(subject: CostKey) -> MeasuredCost | None:
    """Measures a network with random weights, which cost the same; None where it cannot be split.

    Raises:
        TrainingError: There is no such device here.
    """
    spec = NetworkSpec(subject.backbone, classes=2, dropout=0.0, image_size=subject.image_size)
    device = choose_device(subject.device)
    prepared = prepare_network(spec, None, subject.frozen_through, seed=0, device=device)
    if prepared.partition is None:
        return None
    prefix = FrozenPrefix(prepared.partition, subject.precision, device, subject.image_size)
    return measure_cost(prefix, subject.backbone, subject.frozen_through)
