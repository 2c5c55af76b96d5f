"""Units of images that stay together in one split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from transfer_platform.data.catalog import ImageRecord
from transfer_platform.data.message_lists import join_classes
from transfer_platform.errors import SplitError

ALL_CLASSES = ""
"""Key for the total over all classes; differs from every label, because labels are never empty."""


@dataclass(frozen=True, slots=True)
class SplitUnit:
    """Images that must be in the same split and fold.

    Attributes:
        names: Sorted names of the groups; without groups, the digests of the images.
        counts: Number of images per class; the key `ALL_CLASSES` holds the total over all classes.
        parts: Units joined into this one because they contain near duplicates of each other; empty if none were joined.
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
            f"every class needs {noun} in both train and {split}, but there is only one for {join_classes(single)}; "
            "add more, or list the class folder (in a manifest, its images) in dataset.exclude"
        )


def _image_units(images: Sequence[ImageRecord]) -> list[SplitUnit]:
    labels_of: dict[str, tuple[str, ...]] = {}
    for image in images:
        labels = labels_of.get(image.sha256, ())
        if image.label not in labels:
            labels_of[image.sha256] = (*labels, image.label)
    unique = {labels[0] for labels in labels_of.values()}
    if copied := sorted({image.label for image in images} - unique):
        raise SplitError(
            f"every image of {join_classes(copied)} is an exact duplicate of an image in another class; "
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
    """Returns the connected component of each row in a graph that links `rows[i]` to `columns[i]` for every i."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = height + width
    edges = coo_array((np.ones(len(rows), bool), (rows, np.add(columns, height))), shape=(nodes, nodes))
    component: list[int] = connected_components(edges, directed=False)[1].tolist()
    return component[:height]
