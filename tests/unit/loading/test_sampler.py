"""Deterministic batches and views."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_platform.loading.sampler import ViewSchedule, batch_indices, repeat_counts


@given(st.integers(1, 200), st.integers(1, 40), st.booleans(), st.integers(0, 100))
def test_every_image_is_in_one_batch(count: int, size: int, shuffle: bool, epoch: int) -> None:
    batches = batch_indices(count, size, shuffle=shuffle, seed=5, epoch=epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert all(len(batch) <= size + 1 for batch in batches)
    if shuffle and size > 1 and count > 1:
        assert min(map(len, batches)) > 1
    if not shuffle:
        assert [index for batch in batches for index in batch] == list(range(count))


def test_orders_differ_by_epoch_and_seed() -> None:
    orders = {
        tuple(batch_indices(50, 50, shuffle=True, seed=seed, epoch=epoch)[0]) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9


def test_each_epoch_uses_one_of_the_stored_views() -> None:
    views = ViewSchedule("light", 4, seed=0)
    seeds = {views.augmentation_seed("ab", epoch) for epoch in range(60)}
    assert seeds == {views.view_seed("ab", index) for index in range(4)}
    assert {views.view_index("ab", epoch) for epoch in range(60)} == {0, 1, 2, 3}


def test_views_do_not_depend_on_the_seed_and_differ_between_images() -> None:
    def view_seeds(seed: int, image: str) -> set[int]:
        return {ViewSchedule("light", 3, seed).augmentation_seed(image, epoch) for epoch in range(60)}

    assert view_seeds(0, "ab") == view_seeds(1, "ab")
    assert not view_seeds(0, "ab") & view_seeds(0, "cd")


def test_unlimited_views_are_new_in_every_epoch() -> None:
    views = ViewSchedule("light", "unlimited", seed=0)
    assert len({views.augmentation_seed("ab", epoch) for epoch in range(60)}) == 60
    assert views.varies
    assert views.stored_count == 0


@pytest.mark.parametrize("count", [4, "unlimited"])
def test_a_repeated_image_gets_another_view(count) -> None:
    views = ViewSchedule("light", count, seed=0)
    for epoch in (1, 2):
        assert len({views.augmentation_seed("ab", epoch, repeat) for repeat in range(4)}) == 4
        assert views.augmentation_seed("ab", epoch, 0) == views.augmentation_seed("ab", epoch)


def test_repeats_of_a_rare_image_are_counted_over_the_epoch() -> None:
    batches = batch_indices(9, 4, shuffle=True, epoch=1, classes=[0] * 8 + [1])
    pairs = [
        pair
        for batch, repeat in zip(batches, repeat_counts(batches), strict=True)
        for pair in zip(batch, repeat, strict=True)
    ]
    rare = [repeat for index, repeat in pairs if index == 8]
    assert rare == list(range(len(rare)))
    assert len(rare) in (4, 5)


def test_one_view_is_the_original_image() -> None:
    assert not ViewSchedule("light", 1, seed=0).varies
    assert not ViewSchedule("none", 8, seed=0).varies
    assert ViewSchedule("none", "unlimited", seed=0).stored_count == ViewSchedule("light", 1, seed=0).stored_count == 1


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 7), st.integers(0, 5))
def test_balanced_sampling_has_equal_class_counts(labels: list[int], size: int, epoch: int) -> None:
    batches = batch_indices(len(labels), size, shuffle=True, seed=1, epoch=epoch, classes=labels)
    sampled = [index for batch in batches for index in batch]
    counts = Counter(labels[index] for index in sampled)
    assert len(sampled) == len(labels)
    assert max(counts.values()) - min(counts.get(label, 0) for label in set(labels)) <= 1
    assert batches == batch_indices(len(labels), size, shuffle=True, seed=1, epoch=epoch, classes=labels)
    for label in set(labels):
        times = Counter({index: 0 for index, own in enumerate(labels) if own == label})
        times.update(index for index in sampled if labels[index] == label)
        assert max(times.values()) - min(times.values()) <= 1


def test_every_image_is_sampled_in_some_epoch() -> None:
    labels = [0] * 90 + [1] * 10
    used: set[int] = set()
    for epoch in range(1, 12):
        [sampled] = batch_indices(100, 100, shuffle=True, seed=0, epoch=epoch, classes=labels)
        assert {index for index in sampled if labels[index] == 1} == set(range(90, 100))
        used |= set(sampled)
    assert used == set(range(100))
