"""Assigns whole groups, such as patients or animals, to splits and folds.

Groups that contain identical image files stay together. Scikit-learn's `StratifiedGroupKFold` is not used because it
does not support fractions and because its assignment may change between versions.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from transfer_platform.data.catalog import ImageRecord, in_several_splits, sort_by_content
from transfer_platform.data.hash_split import (
    first_fraction,
    hash_to_int,
    require_folds,
    require_fraction_bounds,
    require_validation,
)
from transfer_platform.data.split_selection import select_test
from transfer_platform.data.split_units import (
    ALL_CLASSES,
    SplitUnit,
    divide_dominant,
    form_units,
    require_two_units,
    scarce_classes,
)
from transfer_platform.errors import SplitError

_MISSING_CLASS_COST = 100.0
"""Cost of a class that is missing from a part; exceeds the cost of any imbalance."""
_MIN_GAIN = 1e-9
_MAX_ROUNDS = 100


def split_by_group(
    images: Iterable[ImageRecord],
    fractions: Mapping[str, float],
    split_seed: int,
    similar: Collection[Collection[str]] = (),
    *,
    folds: int = 0,
) -> dict[str, tuple[ImageRecord, ...]]:
    """Splits images into train, validation and test without breaking up groups.

    `fractions` may contain `test` and `validation`. A group is in test if `sha256(split_seed:group:NAME)`, scaled to
    the range 0 to 1, is below the test fraction. Groups in test therefore stay there when the dataset grows. Every
    class has images in train and test (see `select_test`). Validation gets roughly its fraction of the remaining images
    of each class. If a class has only one group left, that group stays in train. Groups that share near duplicates,
    listed in `similar`, stay together. `folds` is the number of folds into which train is divided afterwards.

    Returns:
        `train` and the splits in `fractions`, each sorted by label and digest.

    Raises:
        SplitError: A fraction is out of range, or a class has too few groups to be in every split.
    """
    require_fraction_bounds(fractions)
    images = sort_by_content(images)
    remaining = divide_dominant(form_units(images, similar), first_fraction(fractions))
    split_of: dict[str, str] = {}
    if "test" in fractions:
        hash_of, keep = partial(_hash, f"{split_seed}:group"), 2 if folds or "validation" in fractions else 1
        test, remaining = select_test(remaining, hash_of, fractions["test"], "groups", keep)
        split_of = {name: "test" for unit in test for name in unit.names}
    elif fractions:
        require_two_units(remaining, "validation", "groups")
    if "validation" in fractions:
        validation = _select_validation(remaining, fractions["validation"], f"validation:{split_seed}")
        require_validation(validation, "groups")
        split_of |= {name: "validation" for unit in validation for name in unit.names}
    return {
        split: tuple(image for image in images if split_of.get(image.group, "train") == split)
        for split in ("train", *fractions)
    }


def assign_group_folds(
    images: Sequence[ImageRecord], folds: int, split_seed: int, similar: Collection[Collection[str]] = ()
) -> tuple[int, ...]:
    """Returns the fold index (0 to `folds` - 1) of each training image, keeping groups whole and balancing classes.

    Raises:
        SplitError: A class would be missing from the training images of a fold, or there are fewer groups than folds.
    """
    units = divide_dominant(form_units(sort_by_content(images), similar), 1 / folds)
    require_folds(units, folds, "groups")
    parts = _assign_parts(units, [1 / folds] * folds, f"folds:{split_seed}")
    _require_classes(units, parts, "at least two folds", "reduce the number of folds")
    fold_of = {name: part for unit, part in zip(units, parts, strict=True) for name in unit.names}
    return tuple(fold_of[image.group] for image in images)


def groups_in_several_splits(
    images_by_split: Mapping[str, Sequence[ImageRecord]],
) -> dict[str, dict[str, tuple[ImageRecord, ...]]]:
    """Returns the images of groups found in more than one split, keyed by group, then by split."""
    return dict(sorted(in_several_splits(images_by_split, "group").items()))


def _hash(salt: str, name: str) -> int:
    return hash_to_int(f"{salt}:{name}")


def _select_validation(units: Sequence[SplitUnit], fraction: float, salt: str) -> list[SplitUnit]:
    """Returns the units for validation. If a class has only one unit, that unit stays in train."""
    single = set(scarce_classes(units, 2))
    divided = [unit for unit in units if not single.intersection(unit.labels)]
    if not divided:
        return []
    parts = _assign_parts(divided, (1 - fraction, fraction), salt)
    in_train = {label for unit in units if single.intersection(unit.labels) for label in unit.labels}
    _require_classes(divided, parts, "both train and validation", "set another fraction", in_train)
    return [unit for unit, part in zip(divided, parts, strict=True) if part]


def _assign_parts(units: Sequence[SplitUnit], shares: Sequence[float], salt: str) -> list[int]:
    """Returns the part index of each unit. Each part gets approximately its target share of each class.

    Assigns each unit, largest first, to the part where it adds the least cost, then moves units to lower the cost.
    """
    totals: Counter[str] = Counter()
    for unit in units:
        totals.update(unit.counts)
    assignment = _Assignment(totals, shares, [Counter() for _ in shares])
    order = sorted(
        range(len(units)),
        key=lambda index: (
            -units[index].counts[ALL_CLASSES].bit_length(),
            hash_to_int(f"{salt}:{units[index].names[0]}"),
        ),
    )
    parts = [0] * len(units)
    for index in order:
        counts = units[index].counts
        parts[index] = min(range(len(shares)), key=lambda part: (assignment.cost(part, counts, 1), part))
        assignment.counts[parts[index]].update(counts)
    for _ in range(_MAX_ROUNDS):
        if not sum(assignment.move(parts, index, units[index].counts) for index in order):
            break
    return parts


@dataclass(frozen=True)
class _Assignment:
    """Number of images of each class, in total and in each part, and the target share of each part."""

    totals: Mapping[str, int]
    shares: Sequence[float]
    counts: Sequence[Counter[str]]

    def cost(self, part: int, counts: Mapping[str, int], sign: int) -> float:
        """Returns the change in cost from adding a unit to a part (`sign` = 1) or removing it (`sign` = -1)."""
        cost = 0.0
        for label, count in counts.items():
            total, current = self.totals[label], self.counts[part][label]
            cost += count * (2 * sign * (current - self.shares[part] * total) + count) / total**2
            without_unit = 0 if sign > 0 else count
            cost -= sign * _MISSING_CLASS_COST * (current == without_unit)
        return cost

    def move(self, parts: list[int], index: int, counts: Mapping[str, int]) -> bool:
        """Moves a unit to the cheapest other part if this lowers the cost; returns True if the unit was moved."""
        current = parts[index]
        others = [part for part in range(len(self.shares)) if part != current]
        best = min(others, key=lambda part: (self.cost(part, counts, 1), part))
        if self.cost(best, counts, 1) + self.cost(current, counts, -1) > -_MIN_GAIN:
            return False
        self.counts[current].subtract(counts)
        self.counts[best].update(counts)
        parts[index] = best
        return True


def _require_classes(
    units: Sequence[SplitUnit], parts: Sequence[int], subject: str, remedy: str, in_train: Collection[str] = ()
) -> None:
    """Raises a `SplitError` if a class is in only one part, unless the class is listed in `in_train`."""
    parts_of: dict[str, set[int]] = defaultdict(set)
    groups: Counter[str] = Counter()
    for unit, part in zip(units, parts, strict=True):
        for label in unit.labels:
            parts_of[label].add(part)
            groups[label] += 1
    if missing := [label for label in sorted(parts_of) if label not in in_train and len(parts_of[label]) < 2]:
        available = ", ".join(f"{label!r} is in {groups[label]}" for label in missing)
        raise SplitError(
            f"{subject} must have images of every class, but some classes are in too few groups (dataset.group_by): "
            f"{available}; add groups with images of these classes, or {remedy} in dataset.splits.validation"
        )
