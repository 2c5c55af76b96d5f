"""Assigns individual images to splits and folds by content hash and split seed."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from transfer_platform.data.catalog import ImageRecord, sort_by_content
from transfer_platform.errors import SplitError

_HASHES = 2.0**256
"""Number of possible SHA-256 values."""

Unit = TypeVar("Unit", str, tuple[str, ...])
"""Unit assigned to a split: an image digest, or the names of groups that stay together."""


def split_by_hash(
    images: Iterable[ImageRecord], fractions: Mapping[str, float], split_seed: int
) -> dict[str, tuple[ImageRecord, ...]]:
    """Splits images into train, validation and test.

    An image is in test if `sha256(split_seed:digest)`, scaled to the range 0 to 1, is below the test fraction. The
    validation fraction applies to the images left in each class; those with the smallest hashes are chosen, at least
    one per class. Identical files count as one image; if their labels differ, the alphabetically first label is used.

    Returns:
        The images of `train` and, if listed in `fractions`, `test` and `validation`, sorted by label and digest.

    Raises:
        SplitError: A fraction is out of range, or a class has too few images to appear in every split.
    """
    require_fraction_bounds(fractions)
    images = sort_by_content(images)
    remaining, split_of = _digests_by_class(images), dict[str, str]()
    if "test" in fractions:
        hashes = {digest: hash_to_int(f"{split_seed}:{digest}") for digests in remaining.values() for digest in digests}
        test = select_test(remaining, hashes, fractions["test"], "distinct images")
        split_of = dict.fromkeys(test, "test")
        remaining = {
            label: [digest for digest in digests if digest not in test] for label, digests in remaining.items()
        }
    if "validation" in fractions:
        validation = _select_validation(remaining, fractions["validation"], split_seed)
        split_of |= dict.fromkeys(validation, "validation")
    return {
        split: tuple(image for image in images if split_of.get(image.sha256, "train") == split)
        for split in ("train", *fractions)
    }


def assign_folds(images: Sequence[ImageRecord], folds: int, split_seed: int) -> tuple[int, ...]:
    """Returns the fold of each training image, from 0 to `folds` - 1; the folds are stratified by class.

    The images must be sorted by label. Identical files are assigned to the same fold.

    Raises:
        SplitError: A class has fewer distinct images than there are folds.
    """
    digests_by_class = _digests_by_class(images)
    too_small = {label: len(digests) for label, digests in digests_by_class.items() if len(digests) < folds}
    if too_few := ", ".join(f"{label!r} has {count}" for label, count in too_small.items()):
        raise SplitError(
            f"each of the {folds} folds needs an image of every class, but some classes have too few distinct "
            f"images: {too_few}; add images, or reduce the number of folds in dataset.splits.validation"
        )
    ordered = (
        digest
        for digests in digests_by_class.values()
        for digest in sorted(digests, key=lambda digest: hash_to_int(f"folds:{split_seed}:{digest}"))
    )
    # Round-robin across class boundaries, so that fold sizes differ by at most one distinct image.
    fold_of = {digest: position % folds for position, digest in enumerate(ordered)}
    return tuple(fold_of[image.sha256] for image in images)


def hash_to_int(text: str) -> int:
    """Returns the SHA-256 of a string as an integer from 0 to 2**256 - 1."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def require_fraction_bounds(fractions: Mapping[str, float]) -> None:
    """Raises a `SplitError` if a fraction is not strictly between 0 and 1."""
    for split, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise SplitError(f"dataset.splits.{split} is {fraction}, but a fraction must be between 0 and 1")


def select_test(
    units_by_class: Mapping[str, Sequence[Unit]], hashes: Mapping[Unit, int], fraction: float, noun: str
) -> set[Unit]:
    """Returns the units to assign to test: those whose hash, divided by 2**256, is below the fraction.

    Args:
        units_by_class: Units of each class: its images, or all groups that contain an image of the class.
        hashes: Hash of each unit, as an integer below 2**256.
        fraction: Test fraction, between 0 and 1.
        noun: Plural noun for the units in error messages.

    Raises:
        SplitError: A class would have no units in the test split, or none left for training.
    """
    if single := ", ".join(repr(label) for label, units in units_by_class.items() if len(units) < 2):
        raise SplitError(
            f"every class needs {noun} in both train and test, but there is only one for {single}; "
            "add more, or list the class in dataset.exclude"
        )
    smallest = {label: min(hashes[unit] for unit in units) for label, units in units_by_class.items()}
    largest = max(smallest.values())
    if largest >= fraction * _HASHES:
        sufficient = (math.floor(largest / _HASHES * 10_000) + 1) / 10_000  # rounded up; a hash must be below it
        missing = ", ".join(repr(label) for label, value in smallest.items() if value >= fraction * _HASHES)
        raise SplitError(
            f"with a fraction of {fraction:g}, test has no images of {missing}; the smallest fraction that "
            f"includes every class is {sufficient:g}; "
            "set dataset.splits.test to this value, add images, or change dataset.split_seed"
        )
    test = {unit for unit, value in hashes.items() if value < fraction * _HASHES}
    counts = {label: (len(units), len(set(units) - test)) for label, units in units_by_class.items()}
    _require_training_images(counts, "test", fraction, noun)
    return test


def _select_validation(digests_by_class: Mapping[str, list[str]], fraction: float, split_seed: int) -> list[str]:
    sizes = {label: max(1, round(fraction * len(digests))) for label, digests in digests_by_class.items()}
    counts = {label: (len(digests), len(digests) - sizes[label]) for label, digests in digests_by_class.items()}
    _require_training_images(counts, "validation", fraction, "distinct images")
    # The prefix makes this order independent of the hashes that determine the test split.
    return [
        digest
        for label, digests in digests_by_class.items()
        for digest in sorted(digests, key=lambda digest: hash_to_int(f"validation:{split_seed}:{digest}"))[
            : sizes[label]
        ]
    ]


def _require_training_images(counts: Mapping[str, tuple[int, int]], split: str, fraction: float, noun: str) -> None:
    """Raises a `SplitError` if a class has no units left for training; `counts` holds (total, left) by class."""
    lines = [
        f"  class {label!r}: {total} {noun}, none left for training"
        for label, (total, rest) in counts.items()
        if rest < 1
    ]
    if lines:
        raise SplitError(
            f"the {split} fraction of {fraction:g} leaves some classes without training images:\n"
            + "\n".join(lines)
            + f"\nadd {noun}, or lower the fraction; every split needs at least one image of every class"
        )


def _digests_by_class(images: Sequence[ImageRecord]) -> dict[str, list[str]]:
    """Returns the distinct image digests of each class; if an image has several labels, only its first label counts."""
    label_of: dict[str, str] = {}
    for image in images:
        label_of.setdefault(image.sha256, image.label)
    digests: dict[str, list[str]] = {image.label: [] for image in images}
    for digest, label in label_of.items():
        digests[label].append(digest)
    if duplicated := ", ".join(repr(label) for label, own in digests.items() if not own):
        raise SplitError(
            f"every image of {duplicated} is an exact duplicate of an image in another class; "
            "remove each duplicate from one of the classes"
        )
    return digests
