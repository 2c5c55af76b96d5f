"""Inspection of a dataset before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.dataset import ScannedDataset
from transfer_platform.data.intensity import as_intensity, resolve
from transfer_platform.data.splits import Splits
from transfer_platform.errors import SplitError
from transfer_platform.inspection.center_crop import total_left_out
from transfer_platform.inspection.class_checks import (
    check_class_folders,
    check_class_names,
    check_class_sizes,
    check_groups,
    check_test_shares,
    check_validation,
)
from transfer_platform.inspection.exact_duplicates import exact_duplicates
from transfer_platform.inspection.findings import FINDING_KINDS, Finding, Severity
from transfer_platform.inspection.image_checks import BLANK_CONTRAST, check_files, check_images
from transfer_platform.inspection.inspection import Inspection, sorted_findings
from transfer_platform.inspection.intensity_checks import check_intensity
from transfer_platform.inspection.near_duplicates import MIN_CONTRAST, near_duplicates, similar_images
from transfer_platform.inspection.perceptual_hash import PerceptualHashes, compute_hashes
from transfer_platform.inspection.summary import format_table, image_statistics
from transfer_platform.plurals import counted

if TYPE_CHECKING:
    from transfer_platform.data.catalog import Catalog, ImageRecord


def preflight(dataset: ScannedDataset, crop: float = 1.0) -> tuple[Inspection, Splits | None]:
    """Runs all checks that do not require a neural network, and splits the images.

    Args:
        dataset: Scanned dataset.
        crop: Side length of the center crop that the network sees, as a fraction of the shorter side of an image.

    Returns:
        The inspection and the splits; if the images cannot be split, the splits are None and the inspection has errors.
    """
    splits, split_error = None, ""
    images = {split: catalog.images for split, catalog in dataset.catalogs.items()}
    similar = similar_images([image for members in images.values() for image in members], dataset.stats)
    if not any(catalog.class_errors() for catalog in dataset.catalogs.values()):
        try:
            splits = dataset.split(similar)
        except SplitError as error:
            split_error = str(error)
    return _inspect(dataset, splits.by_name if splits else images, similar, split_error, crop), splits


def require_valid(inspection: Inspection, splits: Splits | None) -> Splits:
    """Returns the splits if the dataset has no errors.

    Raises:
        DataError: The preflight found errors; the message lists them.
    """
    inspection.raise_errors("run `platform data RECIPE` to see all findings, with thumbnails")
    assert splits is not None, "a failed split is an error"
    return splits


def _inspect(
    dataset: ScannedDataset,
    splits: Mapping[str, Sequence[ImageRecord]],
    similar: Sequence[Sequence[str]],
    split_error: str,
    crop: float,
) -> Inspection:
    images = [image for members in splits.values() for image in members]
    catalogs, stats = dataset.catalogs, dataset.stats
    test = dataset.resolved_splits.split_specs["test"]
    rows = stats.rows(image.sha256 for image in images)
    ends = np.cumsum([len(members) for members in splits.values()])
    parts = {name: slice(end - len(splits[name]), end) for name, end in zip(splits, ends, strict=True)}
    headers = stats.headers(rows)
    intensity = resolve(dataset.config.intensity, headers[parts["train"]])
    hashes = compute_hashes(stats, rows, as_intensity(intensity))
    split_findings = [*check_class_folders(catalogs), *exact_duplicates(splits, dataset.allowed), *check_groups(splits)]
    if split_error and not any(FINDING_KINDS[each.kind].severity == Severity.ERROR for each in split_findings):
        split_findings.append(Finding("cannot be split", (), split_error))
    findings = [
        *check_files(catalogs),
        *split_findings,
        *near_duplicates(splits, similar),
        *check_images(images, headers, hashes, crop),
        *check_intensity(images, headers, parts["train"], dataset.config.intensity, intensity),
        *check_class_names({image.label for image in images}),
        *check_class_sizes(splits["train"], dataset.config.few_images),
        *check_validation(splits),
        *(check_test_shares(splits, test) if isinstance(test, float) and not split_error else ()),
        *(Finding("manifest", (), note) for note in dataset.notes),
    ]
    filled = {name: part for name, part in parts.items() if splits[name]}
    return Inspection(
        root=dataset.root,
        classes=tuple(sorted({image.label for image in images})),
        intensity=intensity,
        counts={name: Counter(image.label for image in members) for name, members in splits.items()},
        findings=sorted_findings(findings),
        statistics=image_statistics(headers, hashes.brightness, filled),
        formats=format_table({name: headers[part] for name, part in parts.items()}),
        skipped_checks=_skipped_comparisons(hashes),
        quarantine=_skippable_files(catalogs) if dataset.config.on_bad_image == "skip" else {},
        names={path: name for catalog in catalogs.values() for path, name in catalog.names.items()},
        left_out=total_left_out(headers, crop),
    )


def _skippable_files(catalogs: Mapping[str, Catalog]) -> dict[Path, str]:
    problems = {path: problem for catalog in catalogs.values() for path, problem in catalog.problems.items()}
    return {
        path: problem.message for path, problem in sorted(problems.items()) if FINDING_KINDS[problem.kind].skippable
    }


def _skipped_comparisons(hashes: PerceptualHashes) -> tuple[str, ...]:
    is_flat = (hashes.deviation < MIN_CONTRAST) & (hashes.contrast >= BLANK_CONTRAST)
    count = int(np.count_nonzero(is_flat))
    if not count:
        return ()
    subject = counted(count, "image was", "images were")
    return (f"{subject} not checked for near duplicates because of low contrast.",)
