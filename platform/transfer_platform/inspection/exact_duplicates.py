"""Finds exact duplicates: files with identical content."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_platform.data.splits import images_in_several_splits
from transfer_platform.inspection.findings import Finding

if TYPE_CHECKING:
    from transfer_platform.data.catalog import ImageRecord


def exact_duplicates(
    splits: Mapping[str, Sequence[ImageRecord]], allowed: Collection[Path] = frozenset()
) -> Iterator[Finding]:
    """Yields findings for identical files. Files in `allowed` are not reported as duplicates across splits."""
    for copies in images_in_several_splits(splits, allowed):
        yield Finding("duplicate across splits", _paths(copies), " and ".join(_locations(copies)))
    counts = Counter(image.sha256 for images in splits.values() for image in images)
    by_content: dict[str, dict[str, list[ImageRecord]]] = defaultdict(lambda: defaultdict(list))
    for split, images in splits.items():
        for image in images:
            if counts[image.sha256] > 1:
                by_content[image.sha256][split].append(image)
    for group in by_content.values():
        labels = {image.label for images in group.values() for image in images}
        if len(labels) > 1:
            yield Finding("duplicate with another label", _paths(group), " and ".join(_locations(group)))
        else:
            for split, images in group.items():
                if len(images) > 1:
                    yield Finding("exact duplicate", _paths({split: images}), f"{split}/{images[0].label}")


def _paths(images: Mapping[str, Sequence[ImageRecord]]) -> tuple[Path, ...]:
    return tuple(image.path for group in images.values() for image in group)


def _locations(copies: Mapping[str, Sequence[ImageRecord]]) -> list[str]:
    """Returns the distinct `split/label` pairs, in the order of the splits."""
    locations = {f"{split}/{image.label}" for split, images in copies.items() for image in images}
    order = list(copies)
    return sorted(locations, key=lambda location: (order.index(location.partition("/")[0]), location))
