"""Measures how large features are and how long it takes to compute them."""

import time

import torch

from transfer_model.architecture import Architecture
from transfer_model.network import NetworkSpec
from transfer_platform.training.cost_model import CostKey, MeasuredCost, save_cost
from transfer_platform.training.device import choose_device, synchronize
from transfer_platform.training.network_cache import prepare_network
from transfer_platform.training.stored_features import PREFIX_BATCH, FrozenPrefix

ROUNDS = 3
"""Number of timed forward passes; the shortest time is used, because the machine may be busy during some passes."""


def measure_cost(prefix: FrozenPrefix, backbone: Architecture, frozen_through: str) -> MeasuredCost:
    """Measures the computation time and feature size of a frozen prefix on one batch, and caches the result."""
    images = torch.zeros(PREFIX_BATCH, 3, prefix.image_size, prefix.image_size, device=prefix.device)
    row_bytes = prefix.spec.row_bytes  # runs the prefix once: the warm-up
    seconds = []
    for _ in range(ROUNDS):
        synchronize(prefix.device)
        start = time.perf_counter()
        prefix.run(images)
        synchronize(prefix.device)
        seconds.append(time.perf_counter() - start)
    cost = MeasuredCost(row_bytes, min(seconds) / PREFIX_BATCH)
    key = CostKey(backbone, frozen_through, prefix.image_size, prefix.precision, prefix.device.type)
    save_cost(key, cost)
    return cost


def estimate_cost(key: CostKey) -> MeasuredCost | None:
    """Like `measure_cost`, but builds a network with random weights; returns None if the network cannot be partitioned.

    Raises:
        TrainingError: The device is not available.
    """
    spec = NetworkSpec(key.backbone, classes=2, dropout=0.0, image_size=key.image_size)
    device = choose_device(key.device)
    partition = prepare_network(spec, None, key.frozen_through, seed=0, device=device).partition
    if partition is None:
        return None
    prefix = FrozenPrefix(partition, key.precision, device, key.image_size)
    return measure_cost(prefix, key.backbone, key.frozen_through)
