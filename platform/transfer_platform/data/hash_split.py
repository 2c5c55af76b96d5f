"""Assigns images to splits and folds by content hash and split seed."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from transfer_platform.data.catalog import ImageRecord, sort_by_content
from transfer_platform.data.message_lists import join_classes
from transfer_platform.data.split_selection import ClassShares, select_test
from transfer_platform.data.split_units import (
    ALL_CLASSES,
    SplitUnit,
    divide_dominant,
    form_units,
    require_two_units,
    scarce_classes,
)
from transfer_platform.errors import SplitError

_NOUN = "distinct images"


def split_by_hash(
    images: Iterable[ImageRecord],
    fractions: Mapping[str, float],
    split_seed: int,
    similar: Collection[Collection[str]] = (),
    *,
    folds: int = 0,
) -> dict[str, tuple[ImageRecord, ...]]:
    """Splits images into train, validation and test.

    An image is in test if `sha256(split_seed:digest)`, scaled to the range 0 to 1, is below the test fraction.
    Validation gets its fraction of the remaining images of each class, namely those with the smallest hashes. If
    necessary, images are moved into or out of test so that every class is in train and test, and a class with at
    least three images is also in validation (see `select_test`). Identical files count as one image.

    Args:
        images: Images of all classes.
        fractions: Fractions of `test` and `validation`; both are optional.
        split_seed: Seed of the split.
        similar: Digests of each set of near duplicates, which stay in one split (see `split_units`).
        folds: Number of folds into which train is divided afterwards, or 0.

    Returns:
        The images of `train` and, if listed in `fractions`, `test` and `validation`, sorted by label and digest.

    Raises:
        SplitError: A fraction is out of range, a class has a single distinct image, or validation would be empty.
    """
    require_fraction_bounds(fractions)
    images = sort_by_content(images)
    split_of: dict[str, str] = {}
    if fractions:
        units = divide_dominant(form_units(images, similar), first_fraction(fractions))
        require_two_units(units, "test" if "test" in fractions else "validation", _NOUN)
        test: list[SplitUnit] = []
        if "test" in fractions:
            keep = 2 if folds or "validation" in fractions else 1
            test, units = select_test(units, partial(_hash, f"{split_seed}"), fractions["test"], _NOUN, keep)
        validation: list[SplitUnit] = []
        if "validation" in fractions:
            validation = _select_validation(units, fractions["validation"], f"validation:{split_seed}")
            require_validation(validation, _NOUN)
        split_of = {name: "test" for unit in test for name in unit.names}
        split_of |= {name: "validation" for unit in validation for name in unit.names}
    return {
        split: tuple(image for image in images if split_of.get(image.sha256, "train") == split)
        for split in ("train", *fractions)
    }


def assign_folds(
    images: Sequence[ImageRecord], folds: int, split_seed: int, similar: Collection[Collection[str]] = ()
) -> tuple[int, ...]:
    """Returns the fold of each training image, from 0 to `folds` - 1; the folds are stratified by class.

    The images must be sorted by label. Identical files share a fold, and so do near duplicates in a set of `similar`.
    A class with fewer images than folds is missing from some folds, but every network is trained on all classes.

    Raises:
        SplitError: A class has a single distinct image, or there are fewer distinct images than folds.
    """
    units = divide_dominant(form_units(images, similar), 1 / folds)
    require_folds(units, folds, _NOUN)
    fold_of: dict[str, int] = {}
    counts = [Counter[str]() for _ in range(folds)]
    for unit in _by_class(units, f"folds:{split_seed}"):
        # Same result as dealing the images round-robin across class boundaries if there are no near duplicates.
        fold = min(range(folds), key=lambda each: (*_load(counts[each], unit), each))
        counts[fold].update(unit.counts)
        fold_of |= dict.fromkeys(unit.names, fold)
    return tuple(fold_of[image.sha256] for image in images)


def hash_to_int(text: str) -> int:
    """Returns the SHA-256 digest of a string as an integer from 0 to 2**256 - 1."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def first_fraction(fractions: Mapping[str, float]) -> float:
    """Returns the fraction that is split off first: the test fraction or, if there is none, the validation fraction."""
    return fractions.get("test", fractions.get("validation", 0.0))


def require_fraction_bounds(fractions: Mapping[str, float]) -> None:
    """Raises a `SplitError` if a fraction is not strictly between 0 and 1."""
    for split, fraction in fractions.items():
        if not 0 < fraction < 1:
            raise SplitError(f"dataset.splits.{split} is {fraction}, but a fraction must be strictly between 0 and 1")


def require_validation(validation: Collection[SplitUnit], noun: str) -> None:
    """Raises a `SplitError` if no unit was selected for validation."""
    if not validation:
        raise SplitError(
            f"validation has no images: no class has two {noun} outside the test split; add images, or set "
            "dataset.splits.validation or dataset.splits.test to a folder or to manifest rows"
        )


def require_folds(units: Sequence[SplitUnit], folds: int, noun: str) -> None:
    """Raises a `SplitError` if a class has a single unit, or if there are fewer units than folds."""
    if single := scarce_classes(units, 2):
        raise SplitError(
            f"cross-validation needs two {noun} for every class in train, but there is only one for "
            f"{join_classes(single)}; add images, set dataset.splits.validation to a fraction such as 0.2, or list the "
            "class folder (in a manifest, its images) in dataset.exclude"
        )
    if len(units) < folds:
        raise SplitError(
            f"{folds} folds need at least {folds} {noun}, but train has {len(units)}; add images, or reduce the number "
            "of folds in dataset.splits.validation"
        )


def _hash(salt: str, name: str) -> int:
    return hash_to_int(f"{salt}:{name}")


def _by_class(units: Sequence[SplitUnit], salt: str) -> Iterator[SplitUnit]:
    """Yields the units by class, sorted within each class by descending number of near duplicates, then by hash."""
    members: dict[str, list[SplitUnit]] = defaultdict(list)
    for unit in units:
        members[min(unit.labels)].append(unit)
    for _, own in sorted(members.items()):
        yield from sorted(own, key=lambda unit: (-len(unit.names), _hash(salt, unit.names[0])))


def _load(counts: Counter[str], unit: SplitUnit) -> tuple[int, int]:
    return sum(counts[label] for label in unit.labels), counts[ALL_CLASSES]


def _select_validation(units: Sequence[SplitUnit], fraction: float, salt: str) -> list[SplitUnit]:
    """Returns the units for validation: at least one of each class if possible, leaving at least one for train.

    For each class, selects `round(fraction * n)` of its n images that have no near duplicates. Then adds each
    set of near duplicates that fits (see `ClassShares`).
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, unit in enumerate(units):
        for label in unit.labels:
            members[label].append(index)
    left = Counter({label: len(own) for label, own in members.items()})
    shares, selected = ClassShares(units, fraction), dict[int, SplitUnit]()
    for label, own in sorted(members.items()):
        size = round(fraction * sum(not units[index].parts for index in own))
        # Near duplicates last, and the smallest first.
        order = sorted(own, key=lambda index: (len(units[index].names), _hash(salt, units[index].names[0])))
        for index in order:
            unit = units[index]
            fits = shares.fits(unit) if unit.parts else shares.taken(label) < size
            is_free = index not in selected and all(left[each] > 1 for each in unit.labels)
            if is_free and (fits or not shares.taken(label)):
                selected[index] = unit
                shares.add(unit)
                left.subtract(unit.labels)
    return [selected[index] for index in sorted(selected)]
