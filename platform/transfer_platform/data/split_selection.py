"""Selects test units, and limits how many near duplicates a split can contain."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from transfer_platform.data.message_lists import join_classes
from transfer_platform.data.split_units import SplitUnit, require_two_units, separate
from transfer_platform.errors import SplitError

_HASHES = 2.0**256
"""Number of possible SHA-256 values."""


def select_test(
    units: Sequence[SplitUnit], hash_of: Callable[[str], int], fraction: float, noun: str, keep: int = 1
) -> tuple[list[SplitUnit], list[SplitUnit]]:
    """Divides units into test and the rest, so that every class is in both.

    The hash of a unit is the smallest hash of its names. A unit is in test if its hash, divided by 2**256, is below
    `fraction`. A unit of near duplicates must also fit (see `ClassShares`), because the smallest of its many hashes is
    almost always below `fraction`.

    If a class then has no unit in test, its smallest unit is moved there; among equally small units, the one with the
    smallest hash. If a class has fewer than `keep` units in the rest, its test units with the largest hashes are moved
    back, as long as one remains in test.

    Args:
        units: At least two units of each class.
        hash_of: Function that maps a name to an integer below 2**256.
        fraction: Test fraction, between 0 and 1.
        noun: Plural noun for the units in error messages.
        keep: Number of units of each class that must remain in the rest; 2 if the rest will be divided again.

    Raises:
        SplitError: A class has only one unit, or cannot be divided because other classes share its units.
    """
    require_two_units(units, "test", noun)
    selection = _Selection(units, [min(map(hash_of, unit.names)) for unit in units], fraction)
    if missing := selection.complete(keep):
        parts = separate(units, missing)
        if len(parts) == len(units):
            raise SplitError(
                f"every class needs {noun} in both train and test, but {join_classes(missing)} cannot be divided, "
                f"because other classes share the same {noun}; add {noun}, or list the class folder (in a manifest, "
                "its images) in dataset.exclude"
            )
        return select_test(parts, hash_of, fraction, noun, keep)
    test = [unit for unit, is_test in zip(units, selection.is_test, strict=True) if is_test]
    return test, [unit for unit, is_test in zip(units, selection.is_test, strict=True) if not is_test]


class ClassShares:
    """Counts the images of each class in a split, and limits the units of near duplicates that the split can take.

    A unit fits if the split would then have at most `fraction` of all images in units of this size or smaller. If
    larger units were counted, a single large unit in train could allow the split to take all other images.
    """

    def __init__(self, units: Iterable[SplitUnit], fraction: float) -> None:
        self._fraction = fraction
        self._available: dict[str, Counter[int]] = defaultdict(Counter)
        self._taken: dict[str, Counter[int]] = defaultdict(Counter)
        for unit in units:
            self._count(self._available, unit)

    def add(self, unit: SplitUnit) -> None:
        """Adds the images of a unit to the counts of the split."""
        self._count(self._taken, unit)

    def taken(self, label: str) -> int:
        """Returns the number of images of a class in the split."""
        return self._taken[label].total()

    def fits(self, unit: SplitUnit) -> bool:
        """Returns True if the split can take a unit without exceeding the limit for any class."""
        return all(
            _images_up_to(self._taken[label], unit.counts[label]) + unit.counts[label]
            <= self._fraction * _images_up_to(self._available[label], unit.counts[label])
            for label in unit.labels
        )

    @staticmethod
    def _count(counts: Mapping[str, Counter[int]], unit: SplitUnit) -> None:
        for label in unit.labels:
            size = unit.counts[label]
            counts[label][size] += size


def _images_up_to(images: Counter[int], size: int) -> int:
    """Returns the total number of images in all units of up to `size` images; `images` is keyed by unit size."""
    return sum(count for each, count in images.items() if each <= size)


class _Selection:
    """Selects test units by hash; `complete` then moves units so that every class is in both test and the rest."""

    def __init__(self, units: Sequence[SplitUnit], hashes: Sequence[int], fraction: float) -> None:
        self.units, self.hashes = units, hashes
        self.is_test = [False] * len(units)
        shares = ClassShares(units, fraction)
        selected = (index for index, value in enumerate(hashes) if value < fraction * _HASHES)
        for index in sorted(selected, key=hashes.__getitem__):
            if not units[index].parts or shares.fits(units[index]):
                self.is_test[index] = True
                shares.add(units[index])

    def complete(self, keep: int) -> list[str]:
        """Moves units so that test and the rest contain every class; returns the classes for which this is impossible.

        The rest gets at least `keep` units of each class, if the class has more than `keep` units.
        """
        members: dict[str, list[int]] = defaultdict(list)
        for index, unit in enumerate(self.units):
            for label in unit.labels:
                members[label].append(index)
        self._in_test = {label: sum(self.is_test[index] for index in own) for label, own in members.items()}
        self._in_rest = {label: len(own) - self._in_test[label] for label, own in members.items()}
        self._needed = {label: min(keep, len(own) - 1) for label, own in members.items()}
        for label, own in sorted(members.items(), key=lambda item: (len(item[1]), item[0])):
            if not self._in_test[label]:
                by_size = sorted(own, key=lambda index: (self.units[index].counts[label], self.hashes[index]))
                next(filter(self._move_to_test, by_size), None)
            for index in sorted(own, key=lambda index: -self.hashes[index]):
                if self._in_rest[label] < self._needed[label]:
                    self._move_to_rest(index)
        return [label for label in sorted(members) if not (self._in_test[label] and self._in_rest[label])]

    def _move_to_test(self, index: int) -> bool:
        """Moves a unit to test if the rest keeps enough units of its classes; returns True if the unit was moved."""
        labels = self.units[index].labels
        is_movable = not self.is_test[index] and all(self._in_rest[each] > self._needed[each] for each in labels)
        if is_movable:
            self._move(index, labels, 1)
        return is_movable

    def _move_to_rest(self, index: int) -> None:
        """Moves a unit out of test if test then still has another unit of each class that occurs in this unit."""
        labels = self.units[index].labels
        if self.is_test[index] and all(self._in_test[each] > 1 for each in labels):
            self._move(index, labels, -1)

    def _move(self, index: int, labels: Sequence[str], step: int) -> None:
        self.is_test[index] = step > 0
        for label in labels:
            self._in_test[label] += step
            self._in_rest[label] -= step
