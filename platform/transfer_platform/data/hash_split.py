"""Which image lands on which side, by its content and the split seed: test, validation, or a fold."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, TypeVar

from transfer_platform.data.catalog import ImageRecord, sort_by_content
from transfer_platform.errors import SplitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_HASHES = 2.0**256

Unit = TypeVar("Unit", str, tuple[str, ...])
"""What is drawn for test: a digest, or the names of groups that stay together."""


def split_by_hash(
    images: Iterable[ImageRecord], fractions: Mapping[str, float], split_seed: int
) -> dict[str, tuple[ImageRecord, ...]]:
    """Divides the images of one folder.

    An image that lies in several classes (the same bytes) counts for the first of them by name, so that all
    of its copies stay together.

    Args:
        images: All of them.
        fractions: For `test` and `validation`, either, both or none of them; each above 0 and below 1.
        split_seed: Chooses another division.

    Returns:
        `train`, and what `fractions` names; each sorted by label and digest.

    Raises:
        SplitError: A fraction is out of bounds, or a class has too few images for one on every side.
    """
    require_fraction_bounds(fractions)
    images = sort_by_content(images)
    sides: dict[str, str] = {}
    left = _digests_by_class(images)
    if "test" in fractions:
        draws = {digest: hash_to_int(f"{split_seed}:{digest}") for each in left.values() for digest in each}
        sides = dict.fromkeys(select_test(left, draws, fractions["test"], "different images"), "test")
        left = {label: [digest for digest in each if digest not in sides] for label, each in left.items()}
    if "validation" in fractions:
        _select_validation(left, fractions["validation"], split_seed, sides)
    return {
        role: tuple(image for image in images if sides.get(image.sha256, "train") == role)
        for role in ("train", *fractions)
    }


def assign_folds(images: Sequence[ImageRecord], folds: int, split_seed: int) -> tuple[int, ...]:
    """Deals the training images into folds, each class evenly; copies of an image into the same one.

    Args:
        images: Sorted by label.
        folds: K, at least 2.
        split_seed: Chooses another division.

    Returns:
        For each image its fold, 0 to K - 1.

    Raises:
        SplitError: A class has fewer different images than there are folds.
    """
    digests = _digests_by_class(images)
    small = {label: len(each) for label, each in digests.items() if len(each) < folds}
    if small:
        counts = ", ".join(f"{label!r} has {count}" for label, count in small.items())
        raise SplitError(
            f"each of {folds} folds needs an image of every class, but of different images {counts}; "
            "add images or ask for fewer folds in dataset.splits.validation"
        )
    ranked = (
        digest
        for each in digests.values()
        for digest in sorted(each, key=lambda digest: hash_to_int(f"folds:{split_seed}:{digest}"))
    )
    # Dealt like cards, on and on through the classes, so that folds differ by one image at most.
    fold = {digest: position % folds for position, digest in enumerate(ranked)}
    return tuple(fold[image.sha256] for image in images)


def hash_to_int(text: str) -> int:
    """A number from 0 to 2**256 - 1 that a text determines: its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def require_fraction_bounds(fractions: Mapping[str, float]) -> None:
    """Raises a `SplitError` where a fraction is none."""
    for role, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise SplitError(f"dataset.splits.{role} is {fraction}, but a fraction lies between 0 and 1")


def select_test(
    of_class: Mapping[str, Sequence[Unit]], draws: Mapping[Unit, int], fraction: float, what: str
) -> set[Unit]:
    """Which images, or groups of them, are test.

    Args:
        of_class: Those that have images of each class.
        draws: A number below 2**256 for each; those below the fraction of it are test.
        fraction: Above 0 and below 1.
        what: They are, for errors.

    Raises:
        SplitError: A class has none that is test, or none that is not.
    """
    if single := ", ".join(repr(label) for label, those in of_class.items() if len(those) < 2):
        raise SplitError(
            f"a class needs {what} in train and in test, but there is only one of {single}; "
            "add some, or name the class in dataset.exclude"
        )
    without = {label: min(draws[each] for each in those) for label, those in of_class.items()}
    if max(without.values()) >= fraction * _HASHES:
        missing = ", ".join(repr(label) for label, drawn in without.items() if drawn >= fraction * _HASHES)
        raise SplitError(
            f"with the fraction {fraction:g} no image of {missing} is test; the smallest fraction that gives "
            f"every class one is {_rounded_up(max(without.values()) / _HASHES):g}; "
            "set dataset.splits.test to it, add images, or use another dataset.split_seed"
        )
    chosen = {each for each, drawn in draws.items() if drawn < fraction * _HASHES}
    counts = {label: (len(those), len(set(those) - chosen)) for label, those in of_class.items()}
    _refuse_too_few(counts, "test", fraction, what)
    return chosen


def _select_validation(
    digests: Mapping[str, list[str]], fraction: float, split_seed: int, sides: dict[str, str]
) -> None:
    """Writes what is validation into `sides`."""
    taken = {label: max(1, round(fraction * len(each))) for label, each in digests.items()}
    counts = {label: (len(each), len(each) - taken[label]) for label, each in digests.items()}
    _refuse_too_few(counts, "validation", fraction, "different images")
    for label, each in digests.items():
        # Salted, so that being nearly test says nothing about being validation.
        ranked = sorted(each, key=lambda digest: hash_to_int(f"validation:{split_seed}:{digest}"))
        sides |= dict.fromkeys(ranked[: taken[label]], "validation")


def _refuse_too_few(counts: Mapping[str, tuple[int, int]], role: str, fraction: float, what: str) -> None:
    """Args: `counts` has, by class, what there was and what is left of it for training."""
    lines = [
        f"  class {label!r}: {count} {what}, none left for training"
        for label, (count, rest) in counts.items()
        if rest < 1
    ]
    if lines:
        raise SplitError(
            f"the fraction {fraction:g} for {role} cannot be held out of train:\n" + "\n".join(lines) + "\n"
            "add some or lower the fraction; a class needs at least one image in every split"
        )


def _digests_by_class(images: Sequence[ImageRecord]) -> dict[str, list[str]]:
    """The different images of each class; `read_images` is sorted by label, so the first label owns an image."""
    owners: dict[str, str] = {}
    for image in images:
        owners.setdefault(image.sha256, image.label)
    digests: dict[str, list[str]] = {image.label: [] for image in images}
    for digest, label in owners.items():
        digests[label].append(digest)
    duplicates = [label for label, each in digests.items() if not each]
    if duplicates:
        raise SplitError(
            f"every image of {', '.join(map(repr, duplicates))} is byte for byte in another class too; "
            "remove it from one of them"
        )
    return digests


def _rounded_up(fraction: float) -> float:
    """To four decimals; strictly above, because a draw must be below the fraction."""
    return (math.floor(fraction * 10_000) + 1) / 10_000
