"""Estimated costs of stored and recomputed features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from transfer_model.architecture import Architecture
from transfer_platform.training.cost_model import (
    DISK_BYTES_PER_SECOND,
    CostKey,
    MeasuredCost,
    StudyCosts,
    load_cost,
    save_cost,
)


def test_a_search_is_faster_with_small_stored_features() -> None:
    costs = StudyCosts(400, 20 * 15 * 293, MeasuredCost(5120, 0.02))
    assert costs.worth_storing
    assert costs.recomputed_seconds > 100 * costs.stored_seconds
    assert costs.bytes == 400 * 5120


def test_a_single_epoch_is_not() -> None:
    assert not StudyCosts(400, 400, MeasuredCost(5120, 0.02)).worth_storing


def test_more_views_than_epochs_are_not_worth_storing() -> None:
    assert not StudyCosts(100 * 400, 5 * 400, MeasuredCost(5120, 0.02)).worth_storing


def test_features_that_take_longer_to_read_than_to_compute_are_not_worth_storing() -> None:
    slow_to_read = round(0.003 * DISK_BYTES_PER_SECOND)
    assert not StudyCosts(400, 10**6, MeasuredCost(slow_to_read, 0.002)).worth_storing


def test_a_measured_cost_is_loaded_for_the_same_prefix_only(isolated: Path) -> None:
    key, cost = CostKey(Architecture("resnet18"), "layer2", 224, "float32", "cpu"), MeasuredCost(5120, 0.02)
    assert load_cost(key) is None
    save_cost(key, cost)
    assert load_cost(key) == cost
    assert load_cost(replace(key, image_size=192)) is None
