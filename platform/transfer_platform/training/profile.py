"""Measures what the frozen part of a network costs: the bytes and the seconds of one picture."""

from __future__ import annotations

import time

import torch

from transfer_model.network import NetworkSpec
from transfer_platform.training.cost_model import Measured, Subject, remember
from transfer_platform.training.device import choose_device, wait_for
from transfer_platform.training.features import PREFIX_BATCH, Prefix
from transfer_platform.training.network_cache import prepare

ROUNDS = 3
"""A single one may have met a busy moment, and would be believed for ever."""


def measure(prefix: Prefix, backbone: str, frozen_through: str) -> Measured:
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
        wait_for(prefix.device)
        start = time.perf_counter()
        prefix.run(images)
        wait_for(prefix.device)
        seconds.append(time.perf_counter() - start)
    found = Measured(row_bytes, min(seconds) / PREFIX_BATCH)
    subject = Subject(backbone, frozen_through, prefix.image_size, prefix.precision, prefix.device.type)
    remember(subject, found)
    return found


def measure_beforehand(subject: Subject) -> Measured | None:
    """Measures a network with random weights, which cost the same; None where it cannot be split.

    Raises:
        TrainingError: There is no such device here.
    """
    spec = NetworkSpec(subject.backbone, classes=2, dropout=0.0, image_size=subject.image_size)
    device = choose_device(subject.device)
    prepared = prepare(spec, None, subject.frozen_through, seed=0, device=device)
    if prepared.split is None:
        return None
    prefix = Prefix(prepared.split, subject.precision, device, subject.image_size)
    return measure(prefix, subject.backbone, subject.frozen_through)
