"""Classes and files that a first recipe excludes because a run could not use them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from transfer_platform.data.catalog import Catalog, normalize_label
from transfer_platform.data.dataset import ScannedDataset
from transfer_platform.inspection.inspection import Inspection

LEAK = "duplicate across splits"
"""Kind of finding reported for an image that occurs in two splits."""

_PRIORITY = ("test", "validation", "train")
"""Splits from highest to lowest priority; an image in several splits remains only in the first of them."""


def find_exclusions(dataset: ScannedDataset, inspection: Inspection) -> dict[str, str]:
    """Returns the `dataset.exclude` patterns that make a dataset usable, each mapped to the reason for the exclusion.

    Returns an empty dictionary if nothing needs to be excluded, or if fewer than two classes would be left.
    """
    classes = _unusable_classes(dataset)
    paths = {path: reason for label, reason in classes.items() for path in _paths_of_class(dataset, label)}
    paths = paths or dict(_copies(dataset, inspection))
    train = dataset.catalogs["train"].images
    if len({image.label for image in train if image.label not in classes and image.path not in paths}) < 2:
        return {}
    # A name that had to be escaped is not a pattern that matches the file.
    return {
        inspection.name(path): reason
        for path, reason in sorted(paths.items())
        if path in inspection.names or inspection.root / inspection.name(path) == path
    }


def _unusable_classes(dataset: ScannedDataset) -> dict[str, str]:
    """Returns the classes that cannot have images in every split, each mapped to the reason."""
    catalogs = dataset.catalogs
    reasons: dict[str, str] = {}
    for split, catalog in catalogs.items():
        with_images = {image.label for image in catalog.images}
        empty = [label for label in catalog.classes if label not in with_images]
        reasons |= dict.fromkeys(empty, f"no readable image of this class in {split}")
        others = {label for other in catalogs.values() for label in other.classes} - set(catalog.classes)
        reasons |= dict.fromkeys(sorted(others), f"no image of this class in {split}")
    if any(not isinstance(spec, str) for spec in dataset.resolved_splits.split_specs.values()):
        reasons = dict(_indivisible_classes(catalogs["train"])) | reasons
    return reasons


def _indivisible_classes(train: Catalog) -> Iterator[tuple[str, str]]:
    labels_of: dict[str, list[str]] = defaultdict(list)
    digests_of: dict[str, set[str]] = defaultdict(set)
    for image in train.images:  # sorted by label
        labels_of[image.sha256].append(image.label)
        digests_of[image.label].add(image.sha256)
    links = set() if train.from_manifest else {path.name for path in train.folder.iterdir() if path.is_symlink()}
    # An image that several classes contain counts for the first of them that is not a link to another folder.
    owner_of = {digest: min(labels, key=lambda label: (label in links, label)) for digest, labels in labels_of.items()}
    owners = set(owner_of.values())
    for label, digests in digests_of.items():
        if label not in owners:
            others = sorted({owner_of[digest] for digest in digests})
            classes = f"of class {others[0]!r}" if len(others) == 1 else f"of another class, such as {others[0]!r}"
            yield label, f"every image is identical to an image {classes}"
        elif len(digests) < 2:
            yield label, "only one distinct image; train and test each need one"


def _paths_of_class(dataset: ScannedDataset, label: str) -> Iterator[Path]:
    """Yields the folders of a class in all splits or, for a manifest, the paths of the class's images."""
    for catalog in dataset.catalogs.values():
        if catalog.from_manifest:
            yield from (image.path for image in catalog.images if image.label == label)
        else:
            folders = (path for path in catalog.folder.iterdir() if path.is_dir())
            yield from (path for path in folders if normalize_label(path.name) == label)


def _copies(dataset: ScannedDataset, inspection: Inspection) -> Iterator[tuple[Path, str]]:
    """Yields each image that also occurs in a higher-priority split, and the reason for excluding it."""
    split_of = {image.path: split for split, catalog in dataset.catalogs.items() for image in catalog.images}
    for finding in inspection.by_kind(LEAK):
        splits = [split_of[path] for path in finding.files if path in split_of]
        chosen = min(splits, key=_PRIORITY.index, default="")
        for path in finding.files:
            if split_of.get(path, chosen) != chosen:
                yield path, f"identical to an image in {chosen}"
