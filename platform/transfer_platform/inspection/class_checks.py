"""Checks for invalid or imbalanced classes, and for groups that span splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from transfer_platform.data.catalog import class_differences
from transfer_platform.data.group_split import groups_in_several_splits
from transfer_platform.inspection.findings import Finding

if TYPE_CHECKING:
    from transfer_platform.data.catalog import Catalog, ImageRecord

MAX_IMBALANCE = 5.0
"""Ratio of largest to smallest class size above which class imbalance is reported."""


def check_class_folders(catalogs: Mapping[str, Catalog]) -> Iterator[Finding]:
    """Yields findings for missing and invalid classes, which prevent the dataset from being split."""
    for catalog in catalogs.values():
        yield from (Finding("invalid classes", (), error) for error in catalog.class_errors())
    images = {split: catalog.images for split, catalog in catalogs.items()}
    yield from (Finding("classes differ", (), difference) for difference in class_differences(images))


def check_class_names(labels: Collection[str]) -> Iterator[Finding]:
    """Yields findings for class names that differ only in case, spaces or punctuation."""
    similar: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        similar["".join(filter(str.isalnum, label.casefold())) or label].append(label)
    for names in similar.values():
        if len(names) > 1:
            yield Finding("similar class names", (), " and ".join(map(repr, names)))


def check_class_sizes(train: Sequence[ImageRecord], few: int) -> Iterator[Finding]:
    """Yields findings for classes with fewer than `few` training images and for class imbalance."""
    counts = Counter(image.label for image in train)
    for label, count in sorted(counts.items()):
        if count < few:
            yield Finding("few images", (), f"{label!r} has {count} training images")
    if not counts:
        return
    (largest, most), (smallest, fewest) = counts.most_common()[0], counts.most_common()[-1]
    if most > MAX_IMBALANCE * fewest:
        sizes = f"{largest!r} has {most} training images and {smallest!r} has {fewest}"
        yield Finding("class imbalance", (), f"{sizes} (ratio {most / fewest:.1f})")


def check_validation(splits: Mapping[str, Sequence[ImageRecord]]) -> Iterator[Finding]:
    """Yields findings for classes without validation images, unless no class has validation images."""
    if validation := splits.get("validation"):
        for label in sorted({image.label for image in splits["train"]} - {image.label for image in validation}):
            yield Finding("not in validation", (), f"{label!r} has no validation image")


def check_test_shares(splits: Mapping[str, Sequence[ImageRecord]], fraction: float) -> Iterator[Finding]:
    """Yields findings for classes whose number of test images is far below the number expected from `fraction`.

    Reports classes that have less than half of this number and are more than three standard deviations below it.
    """
    test = Counter(image.label for image in splits.get("test", ()))
    totals = Counter(image.label for images in splits.values() for image in images)
    for label, total in sorted(totals.items()):
        expected, chance = fraction * total, 3 * (fraction * (1 - fraction) * total) ** 0.5
        if test[label] < min(expected / 2, expected - chance):
            detail = f"{label!r} has {test[label]} of its {total} images in test; dataset.splits.test is {fraction:g}"
            yield Finding("small test share", (), detail)


def check_groups(splits: Mapping[str, Sequence[ImageRecord]]) -> Iterator[Finding]:
    """Yields findings for manifest groups whose images are spread over several splits."""
    for name, group in groups_in_several_splits(splits).items():
        files = tuple(image.path for images in group.values() for image in images)
        counts = " and ".join(f"{len(images)} in {split}" for split, images in group.items())
        yield Finding("group across splits", files, f"images in group {name!r}: {counts}")
