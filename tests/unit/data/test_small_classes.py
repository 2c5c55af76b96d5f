"""Classes of few images: a fraction never leaves one of them out, and content alone decides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transfer_platform.data.catalog import ImageRecord, sort_by_content
from transfer_platform.data.hash_split import assign_folds, hash_to_int, split_by_hash
from transfer_platform.errors import SplitError

Division = dict[str, tuple[ImageRecord, ...]]

SIZES = st.lists(st.integers(2, 20), min_size=2, max_size=8)
FRACTIONS = st.floats(1e-9, 1 - 1e-9)
SEEDS = st.integers(0, 1000)


def classes(sizes: Sequence[int], start: int = 0) -> list[ImageRecord]:
    return [
        ImageRecord(f"/{label}/{number}", f"{label:04}", hashlib.sha256(f"{label} {number}".encode()).hexdigest())
        for label, size in enumerate(sizes)
        for number in range(start, start + size)
    ]


def labels(division: Division, split: str) -> set[str]:
    return {image.label for image in division[split]}


def content(division: Division) -> dict[str, list[str]]:
    return {split: [image.sha256 for image in images] for split, images in division.items()}


@given(SIZES, FRACTIONS, FRACTIONS, SEEDS)
@example([2, 2], 1e-9, 1 - 1e-9, 0)
def test_every_class_of_two_images_is_in_train_and_test(sizes, test, validation, seed) -> None:
    images = classes([*sizes, 3])
    everyone = {image.label for image in images}
    division = split_by_hash(images, {"test": test, "validation": validation}, seed)
    assert labels(division, "train") == labels(division, "test") == everyone
    assert sorted(image for own in division.values() for image in map(repr, own)) == sorted(map(repr, images))
    counts = Counter(image.label for image in images)
    assert labels(division, "validation") == {label for label, count in counts.items() if count > 2}
    only_validation = split_by_hash(images, {"validation": validation}, seed)
    assert labels(only_validation, "train") == labels(only_validation, "validation") == everyone


@given(SIZES, FRACTIONS, SEEDS, st.randoms())
def test_names_order_and_copies_do_not_decide(sizes, fraction, seed, draw) -> None:
    images = classes(sizes)
    expected = content(split_by_hash(images, {"test": fraction}, seed))
    changed = [replace(image, file=f"/else/{number}") for number, image in enumerate(images)]
    draw.shuffle(changed)
    assert content(split_by_hash(changed, {"test": fraction}, seed)) == expected
    copied = split_by_hash(
        [*images, *(replace(image, file=f"{image.file} copy") for image in images)], {"test": fraction}, seed
    )
    assert {split: sorted(set(own)) for split, own in content(copied).items()} == {
        split: sorted(own) for split, own in expected.items()
    }


@given(SIZES, st.lists(st.integers(0, 20), min_size=8, max_size=8), FRACTIONS, SEEDS)
def test_a_test_image_stays_in_test_while_the_class_has_no_other_choice(sizes, growth, fraction, seed) -> None:
    """A test image is replaced only by one of a smaller hash, or if it would be the last one that train could get."""
    grown = [*classes(sizes), *classes([more for more, _ in zip(growth, sizes, strict=False)], start=40)]
    before, after = (split_by_hash(images, {"test": fraction}, seed) for images in (classes(sizes), grown))
    draw = {image.sha256: hash_to_int(f"{seed}:{image.sha256}") / 2**256 for image in grown}
    now = {image.sha256 for image in after["test"]}
    for image in before["test"]:
        of_class = [draw[each.sha256] for each in grown if each.label == image.label]
        if draw[image.sha256] < fraction:
            assert image.sha256 in now or draw[image.sha256] == max(of_class)
        else:
            assert (image.sha256 in now) == (draw[image.sha256] == min(of_class))


@pytest.mark.parametrize(("count", "size"), [(50, 6), (300, 6), (20, 5), (1000, 4), (50, 10)])
def test_many_small_classes_are_divided_close_to_the_fraction(count, size) -> None:
    expected = 0.2 + 0.8**size / size  # one image of each class without an image below the fraction
    for seed in range(3):
        division = split_by_hash(classes([size] * count), {"test": 0.2, "validation": 0.2}, seed)
        assert len(labels(division, "test")) == len(labels(division, "validation")) == count
        assert abs(len(division["test"]) / (count * size) - expected) < 4 * (0.16 / (count * size)) ** 0.5


@pytest.mark.parametrize("fractions", [{"test": 0.2}, {"validation": 0.2}, {"test": 0.2, "validation": 0.2}])
def test_classes_of_one_image_are_named_with_a_remedy_that_works(fractions) -> None:
    images = classes([5, 1, 1, 6])
    copies = [replace(image, file=f"{image.file} copy") for image in images]
    with pytest.raises(
        SplitError, match=r"only one for '0001', '0002'; add more, or list the class folder .* in dataset.exclude"
    ):
        split_by_hash([*images, *copies], fractions, 0)
    split_by_hash([image for image in images if image.label not in ("0001", "0002")], fractions, 0)


def test_many_classes_of_one_image_are_counted() -> None:
    with pytest.raises(SplitError, match=r"'0009' and 90 more; add more"):
        split_by_hash(classes([1] * 100), {"test": 0.2}, 0)


def test_validation_without_images_is_refused() -> None:
    with pytest.raises(
        SplitError, match="validation has no images: no class has two distinct images outside the test split"
    ):
        split_by_hash(classes([2, 2, 2]), {"test": 0.2, "validation": 0.2}, 0)


@given(SIZES, st.integers(2, 4), SEEDS)
def test_every_fold_is_trained_on_all_classes(sizes, folds, seed) -> None:
    images = sort_by_content(classes(sizes))
    assigned = assign_folds(images, folds, seed)
    assert set(assigned) == set(range(folds))
    for fold in range(folds):
        others = {image.label for image, own in zip(images, assigned, strict=True) if own != fold}
        assert others == {image.label for image in images}


def test_folds_without_enough_images_are_refused_with_a_remedy() -> None:
    with pytest.raises(SplitError, match=r"two distinct images .* only one for '0001'; .* a fraction such as 0\.2"):
        assign_folds(sort_by_content(classes([9, 1])), 5, 0)
    with pytest.raises(SplitError, match="5 folds need at least 5 distinct images, but train has 4"):
        assign_folds(sort_by_content(classes([2, 2])), 5, 0)
