"""When it pays to store what the frozen part makes."""

from __future__ import annotations

from transfer_platform.training.cost_model import DISK_BYTES_PER_SECOND, MeasuredCost, StudyCosts


def test_a_search_pays_for_small_features_many_times_over() -> None:
    costs = StudyCosts(400, 20 * 15 * 293, MeasuredCost(5120, 0.02))
    assert costs.worth_storing
    assert costs.computed > 100 * costs.stored
    assert costs.bytes == 400 * 5120


def test_a_single_epoch_does_not() -> None:
    assert not StudyCosts(400, 400, MeasuredCost(5120, 0.02)).worth_storing


def test_more_views_than_epochs_do_not() -> None:
    assert not StudyCosts(100 * 400, 5 * 400, MeasuredCost(5120, 0.02)).worth_storing


def test_features_that_take_longer_to_read_than_to_compute_do_not() -> None:
    slow_to_read = round(0.003 * DISK_BYTES_PER_SECOND)
    assert not StudyCosts(400, 10**6, MeasuredCost(slow_to_read, 0.002)).worth_storing
