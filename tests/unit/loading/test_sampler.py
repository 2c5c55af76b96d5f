"""Orders and views that repeat to the bit, wherever they are drawn."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_platform.loading.sampler import ViewSchedule, batch_indices, repeat_counts


@given(st.integers(1, 200), st.integers(1, 40), st.booleans(), st.integers(0, 100))
def test_every_image_is_in_one_batch(count: int, size: int, shuffle: bool, epoch: int) -> None:
    cut = batch_indices(count, size, shuffle=shuffle, seed=5, epoch=epoch)
    assert sorted(index for batch in cut for index in batch) == list(range(count))
    assert all(len(batch) <= size + 1 for batch in cut)
    if shuffle and size > 1 and count > 1:
        assert min(map(len, cut)) > 1
    if not shuffle:
        assert [index for batch in cut for index in batch] == list(range(count))


def test_orders_differ_by_epoch_and_seed() -> None:
    orders = {
        tuple(batch_indices(50, 50, shuffle=True, seed=seed, epoch=epoch)[0])
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_each_epoch_draws_among_the_views_that_are_kept() -> None:
    views = ViewSchedule("light", 4, seed=0)
    seeds = {views.augmentation_seed("ab", epoch) for epoch in range(60)}
    assert seeds == {views.seed_of("ab", number) for number in range(4)}
    assert {views.view_index("ab", epoch) for epoch in range(60)} == {0, 1, 2, 3}


def test_the_views_themselves_do_not_depend_on_the_seed_and_differ_between_images() -> None:
    def kept(seed: int, image: str) -> set[int]:
        return {ViewSchedule("light", 3, seed).augmentation_seed(image, epoch) for epoch in range(60)}

    assert kept(0, "ab") == kept(1, "ab")
    assert not kept(0, "ab") & kept(0, "cd")


def test_views_without_end_are_new_in_every_epoch() -> None:
    views = ViewSchedule("light", "unlimited", seed=0)
    assert len({views.augmentation_seed("ab", epoch) for epoch in range(60)}) == 60
    assert views.varies
    assert views.stored_count == 0


@pytest.mark.parametrize("count", [4, "unlimited"])
def test_an_image_that_comes_again_in_an_epoch_is_another_view(count) -> None:
    views = ViewSchedule("light", count, seed=0)
    for epoch in (1, 2):
        assert len({views.augmentation_seed("ab", epoch, turn) for turn in range(4)}) == 4
        assert views.augmentation_seed("ab", epoch, 0) == views.augmentation_seed("ab", epoch)


def test_turns_of_a_rare_image_count_on_through_the_epoch() -> None:
    cut = batch_indices(9, 4, shuffle=True, epoch=1, classes=[0] * 8 + [1])
    pairs = [
        pair
        for batch, turn in zip(cut, repeat_counts(cut), strict=True)
        for pair in zip(batch, turn, strict=True)
    ]
    rare = [turn for index, turn in pairs if index == 8]
    assert rare == list(range(len(rare)))
    assert len(rare) in (4, 5)


def test_one_view_is_the_image_as_it_is() -> None:
    assert not ViewSchedule("light", 1, seed=0).varies
    assert not ViewSchedule("none", 8, seed=0).varies
    assert (
        ViewSchedule("none", "unlimited", seed=0).stored_count
        == ViewSchedule("light", 1, seed=0).stored_count
        == 1
    )


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(1, 7),
    st.integers(0, 5),
)
def test_balanced_draws_have_equally_many_of_each_class(labels: list[int], size: int, epoch: int) -> None:
    cut = batch_indices(len(labels), size, shuffle=True, seed=1, epoch=epoch, classes=labels)
    drawn = [index for batch in cut for index in batch]
    counts = Counter(labels[index] for index in drawn)
    assert len(drawn) == len(labels)
    assert max(counts.values()) - min(counts.get(label, 0) for label in set(labels)) <= 1
    assert cut == batch_indices(len(labels), size, shuffle=True, seed=1, epoch=epoch, classes=labels)
    for label in set(labels):
        times = Counter({index: 0 for index, own in enumerate(labels) if own == label})
        times.update(index for index in drawn if labels[index] == label)
        assert max(times.values()) - min(times.values()) <= 1


def test_what_one_epoch_leaves_out_another_draws() -> None:
    labels = [0] * 90 + [1] * 10
    seen: set[int] = set()
    for epoch in range(1, 12):
        [drawn] = batch_indices(100, 100, shuffle=True, seed=0, epoch=epoch, classes=labels)
        assert {index for index in drawn if labels[index] == 1} == set(range(90, 100))
        seen |= set(drawn)
    assert seen == set(range(100))
