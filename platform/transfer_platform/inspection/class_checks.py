"""What is to be said of classes and groups: which are missing, small, unlike in size, or in two splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from transfer_platform.data.catalog import class_differences
from transfer_platform.data.group_split import groups_in_several_splits
from transfer_platform.inspection.findings import Finding

if TYPE_CHECKING:
    from transfer_platform.data.catalog import Catalog, ImageRecord

IMBALANCE = 5.0
"""Images of the largest class by those of the smallest."""


def class_gaps(catalogs: Mapping[str, Catalog]) -> Iterator[Finding]:
    """Classes that keep a data set from being divided."""
    for catalog in catalogs.values():
        yield from (Finding("class folders", (), gap) for gap in catalog.class_errors())
    given = {role: catalog.images for role, catalog in catalogs.items()}
    yield from (Finding("classes differ", (), line) for line in class_differences(given))


def similar_classes(labels: Collection[str]) -> Iterator[Finding]:
    """Classes whose names differ in case, spaces or signs alone."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        alike["".join(each for each in label.casefold() if each.isalnum()) or label].append(label)
    for names in alike.values():
        if len(names) > 1:
            yield Finding("similar classes", (), " and ".join(map(repr, names)))


def class_sizes(train: Sequence[ImageRecord], few: int) -> Iterator[Finding]:
    """Classes of few training images, and of far fewer than others.

    Args:
        train: The training images.
        few: Images below which a class is small.
    """
    counts = Counter(image.label for image in train)
    for label, count in sorted(counts.items()):
        if count < few:
            yield Finding("few images", (), f"{label!r} has {count} training images")
    if not counts:
        return
    (most, large), (least, small) = counts.most_common()[0], counts.most_common()[-1]
    if large > IMBALANCE * small:
        yield Finding(
            "imbalance",
            (),
            f"{most!r} has {large} training images, {least!r} {small}: {large / small:.1f} times as many",
        )


def split_groups(roles: Mapping[str, Sequence[ImageRecord]]) -> Iterator[Finding]:
    """Groups that a manifest's own splits tear apart.

    Args:
        roles: The images of each split.
    """
    for name, held in groups_in_several_splits(roles).items():
        files = tuple(image.path for images in held.values() for image in images)
        counts = " and ".join(f"{len(images)} in {role}" for role, images in held.items())
        yield Finding("group in two splits", files, f"the group {name!r} has {counts}")
