"""Units of images that stay together in one split, and the selection of `test`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from transfer_platform.data.catalog import ImageRecord
from transfer_platform.errors import SplitError

ALL_CLASSES = ""
"""Key for the total over all classes; differs from every label, because labels are never empty."""

_HASHES = 2.0**256
"""Number of possible SHA-256 values."""
_MAX_LISTED = 10


@dataclass(frozen=True, slots=True)
class SplitUnit:
    """Images that must be in the same split and fold.

    Attributes:
        names: Sorted names of the groups; without groups, the digests of the images.
        counts: Number of images per class; the key `ALL_CLASSES` holds the total over all classes.
        parts: Units joined into this one because they contain near duplicates of each other; empty for any other unit.
    """

    names: tuple[str, ...]
    counts: Mapping[str, int]
    parts: tuple[SplitUnit, ...] = ()

    @property
    def labels(self) -> list[str]:
        """Classes of the images."""
        return [label for label in self.counts if label != ALL_CLASSES]


def form_units(images: Sequence[ImageRecord], similar: Collection[Collection[str]] = ()) -> list[SplitUnit]:
    """Forms the units of a dataset: its groups if it has any, otherwise its distinct images.

    Groups that share an image are merged into one unit, as are units that contain near duplicates of each other. Near
    duplicates are not merged if a class would then have a single unit, because such a class cannot be divided.

    Args:
        images: Images, sorted by label.
        similar: Digests of each set of near duplicates; digests of other images are ignored.

    Raises:
        SplitError: Every image of a class is identical to an image of another class.
    """
    grouped = any(image.group for image in images)
    units = _group_units(images) if grouped else _image_units(images)
    joined = _join_similar(images, units, similar) if similar else units
    return separate(joined, scarce_classes(joined, 2))


def scarce_classes(units: Iterable[SplitUnit], minimum: int) -> list[str]:
    """Returns the sorted classes that are in fewer than `minimum` units."""
    counts = Counter(label for unit in units for label in unit.labels)
    return sorted(label for label, count in counts.items() if count < minimum)


def separate(units: Iterable[SplitUnit], labels: Collection[str]) -> list[SplitUnit]:
    """Returns the units, with each joined unit that contains a class in `labels` replaced by its parts."""
    classes = set(labels)
    return [
        part for unit in units for part in (unit.parts if unit.parts and classes.intersection(unit.counts) else (unit,))
    ]


def divide_dominant(units: Sequence[SplitUnit], fraction: float) -> list[SplitUnit]:
    """Returns the units, with each joined unit that has too many images of a class replaced by its parts.

    A unit has too many images if its share of the class is greater than both `fraction` and `1 - fraction`. If it were
    not replaced, either test or the rest might get only a single image of the class.
    """
    share = max(fraction, 1 - fraction)
    totals: Counter[str] = Counter()
    for unit in units:
        totals.update(unit.counts)
    dominant = (any(unit.counts[each] > share * totals[each] for each in unit.labels) for unit in units)
    parts = (unit.parts if unit.parts and divide else (unit,) for unit, divide in zip(units, dominant, strict=True))
    return list(chain.from_iterable(parts))


def require_two_units(units: Sequence[SplitUnit], split: str, noun: str) -> None:
    """Raises a `SplitError` if a class has only one unit and thus cannot be in both train and `split`."""
    if single := scarce_classes(units, 2):
        raise SplitError(
            f"every class needs {noun} in both train and {split}, but there is only one for {list_classes(single)}; "
            "add more, or list the class folder (in a manifest, its images) in dataset.exclude"
        )


def list_classes(labels: Sequence[str]) -> str:
    """Joins the first ten class names for a message; if there are more, appends the number of remaining classes."""
    more = f" and {len(labels) - _MAX_LISTED} more" if len(labels) > _MAX_LISTED else ""
    return ", ".join(map(repr, labels[:_MAX_LISTED])) + more


def select_test(
    units: Sequence[SplitUnit], hash_of: Callable[[str], int], fraction: float, noun: str, keep: int = 1
) -> tuple[list[SplitUnit], list[SplitUnit]]:
    """Divides units into test and the rest, so that every class is in both.

    The hash of a unit is the smallest hash of its names. A unit is in test if its hash, divided by 2**256, is below
    `fraction`. A unit of near duplicates must also fit (see `ClassShares`), because the smallest of its many hashes is
    almost always below `fraction`.

    If a class then has no unit in test, its smallest unit is moved there; among equally small units, the one with the
    smallest hash. If a class has fewer than `keep` units in the rest, its test units with the largest hashes are moved
    back, as long as one is left in test.

    Args:
        units: At least two units of each class.
        hash_of: Function that maps a name to an integer below 2**256.
        fraction: Test fraction, between 0 and 1.
        noun: Plural noun for the units in error messages.
        keep: Number of units of each class that the rest needs; 2 if the rest will be divided again.

    Raises:
        SplitError: A class has only one unit, or cannot be divided because other classes share its units.
    """
    require_two_units(units, "test", noun)
    selection = _Selection(units, [min(map(hash_of, unit.names)) for unit in units], fraction)
    if missing := selection.complete(keep):
        parts = separate(units, missing)
        if len(parts) == len(units):
            raise SplitError(
                f"every class needs {noun} in both train and test, but {list_classes(missing)} cannot be divided, "
                f"because other classes share the same {noun}; add {noun}, or list the class folder (in a manifest, "
                "its images) in dataset.exclude"
            )
        return select_test(parts, hash_of, fraction, noun, keep)
    test = [unit for unit, is_test in zip(units, selection.is_test, strict=True) if is_test]
    return test, [unit for unit, is_test in zip(units, selection.is_test, strict=True) if not is_test]


class ClassShares:
    """Counts the images of each class in a split, and limits the units of near duplicates that the split can take.

    A unit fits if the split would then have at most `fraction` of the images in units of this size or smaller. If
    larger units counted, a single large unit that stays in train could draw all other images into the split.
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
        """Returns whether the split can take a unit without exceeding the limit for any class."""
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
    """Returns the number of images in units of at most `size` images; `images` is keyed by unit size."""
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
        """Moves a unit to test if the rest keeps enough units of its classes; returns True if it was moved."""
        labels = self.units[index].labels
        is_movable = not self.is_test[index] and all(self._in_rest[each] > self._needed[each] for each in labels)
        if is_movable:
            self._move(index, labels, 1)
        return is_movable

    def _move_to_rest(self, index: int) -> None:
        """Moves a unit to the rest if test keeps another unit of each of its classes."""
        labels = self.units[index].labels
        if self.is_test[index] and all(self._in_test[each] > 1 for each in labels):
            self._move(index, labels, -1)

    def _move(self, index: int, labels: Sequence[str], step: int) -> None:
        self.is_test[index] = step > 0
        for label in labels:
            self._in_test[label] += step
            self._in_rest[label] -= step


def _image_units(images: Sequence[ImageRecord]) -> list[SplitUnit]:
    labels_of: dict[str, tuple[str, ...]] = {}
    for image in images:
        labels = labels_of.get(image.sha256, ())
        if image.label not in labels:
            labels_of[image.sha256] = (*labels, image.label)
    unique = {labels[0] for labels in labels_of.values()}
    if copied := sorted({image.label for image in images} - unique):
        raise SplitError(
            f"every image of {list_classes(copied)} is an exact duplicate of an image in another class; "
            "remove each duplicate from one of the classes"
        )
    # Shared between images, because a million dictionaries would take far more memory.
    counts = {labels: {ALL_CLASSES: 1} | dict.fromkeys(labels, 1) for labels in set(labels_of.values())}
    return [SplitUnit((digest,), counts[labels]) for digest, labels in labels_of.items()]


def _group_units(images: Sequence[ImageRecord]) -> list[SplitUnit]:
    """Returns one unit for each set of groups that share images, sorted by the first group name."""
    import numpy as np

    names, group_of = np.unique([image.group for image in images], return_inverse=True)
    digests, digest_of = np.unique([image.sha256 for image in images], return_inverse=True)
    component = _components(group_of.tolist(), digest_of.tolist(), len(names), len(digests))
    names_of: dict[int, set[str]] = defaultdict(set)
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for image, group in zip(images, group_of.tolist(), strict=True):
        names_of[component[group]].add(image.group)
        counts[component[group]].update((image.label, ALL_CLASSES))
    units = (SplitUnit(tuple(sorted(names_of[key])), dict(sorted(counts[key].items()))) for key in names_of)
    return sorted(units, key=lambda unit: unit.names)


def _join_similar(
    images: Sequence[ImageRecord], units: Sequence[SplitUnit], similar: Collection[Collection[str]]
) -> list[SplitUnit]:
    """Joins units that contain near duplicates of each other; a joined unit replaces the first of its parts."""
    index_of = {name: index for index, unit in enumerate(units) for name in unit.names}
    unit_of = {image.sha256: index_of[image.group or image.sha256] for image in images}
    links = [(unit_of[digest], number) for number, own in enumerate(similar) for digest in own if digest in unit_of]
    component = _components([unit for unit, _ in links], [number for _, number in links], len(units), len(similar))
    parts_of: dict[int, list[SplitUnit]] = defaultdict(list)
    for key, unit in zip(component, units, strict=True):
        parts_of[key].append(unit)
    return [parts[0] if len(parts) == 1 else _joined(parts) for parts in parts_of.values()]


def _joined(parts: Sequence[SplitUnit]) -> SplitUnit:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    names = sorted(chain.from_iterable(part.names for part in parts))
    return SplitUnit(tuple(names), dict(sorted(counts.items())), tuple(parts))


def _components(rows: Sequence[int], columns: Sequence[int], height: int, width: int) -> list[int]:
    """Returns the connected component of each of `height` rows; `rows[i]` is linked to `columns[i]` for every i."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = height + width
    edges = coo_array((np.ones(len(rows), bool), (rows, np.add(columns, height))), shape=(nodes, nodes))
    component: list[int] = connected_components(edges, directed=False)[1].tolist()
    return component[:height]
