"""`platform init`: inspects a dataset and writes a first recipe for it."""

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

from transfer_platform.commands._exclusions import find_exclusions
from transfer_platform.commands._first_recipe import InspectedDataset, render_recipe, summary_lines
from transfer_platform.data.dataset import ScannedDataset, open_dataset
from transfer_platform.data.table_files import METADATA_FILES
from transfer_platform.errors import DataError, MetadataError
from transfer_platform.file_problems import printable
from transfer_platform.inspection.findings import FINDING_KINDS
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.preflight import preflight
from transfer_platform.plurals import counted
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.schema import DatasetConfig, FoldsConfig, SplitsConfig
from transfer_registry.errors import StorageError
from transfer_registry.files import atomic_write, require_writable

FOLDS = 5
_MAX_ROUNDS = 10
"""Maximum number of times to open a dataset; it is reopened because exclusions may make more files unusable."""

_SUFFIXES = r"(?i)(\.tar)?\.(zip|tar|tgz|tbz2|txz|gz|bz2|xz|csv|tsv|jsonl|parquet)$"


@dataclass(frozen=True)
class FirstRecipe:
    """A newly written recipe and a summary of its dataset.

    Attributes:
        file: Path of the recipe.
        notes: Sentences that summarize the dataset.
    """

    file: Path
    notes: tuple[str, ...]

    def __str__(self) -> str:
        file = shlex.quote(printable(self.file))
        commands = [f"  platform {command} {file}" for command in ("data", "check", "run")]
        return "\n".join([f"wrote {printable(self.file)}", *self.notes, "next:", *commands])


def write_first_recipe(
    source: str, out: Path | None = None, progress: Progress = silent, train: str | None = None
) -> FirstRecipe:
    """Inspects all images of a dataset and writes a recipe for it.

    Args:
        source: Dataset source, as in `dataset.source`; relative paths are relative to the current folder.
        out: Recipe file; by default, it is named after the source and written to the current folder.
        progress: Called while data is downloaded, unpacked and read.
        train: Folder that contains the class folders, relative to the source; detected automatically by default.

    Raises:
        StorageError: The file already exists or cannot be written.
        DataError: The dataset cannot be opened or used for training; the message explains why in one sentence.
    """
    path = Path(source).expanduser().resolve()
    source = str(path) if path.exists() else source
    if printable(source) != source:
        raise DataError(f"{printable(source)}: the name contains unprintable characters; rename the folder or file")
    name = _recipe_name(source)
    out = out or Path(f"{name}.yaml")
    _require_free_place(out, source)
    dataset = _inspect(source, train, progress)
    with atomic_write(out) as unfinished:
        unfinished.write_text(render_recipe(dataset, name, _relative_source(source, out), out.name), encoding="utf-8")
        load_recipe(unfinished)  # fails only if there is a bug, and then leaves no file behind
    return FirstRecipe(out, tuple(summary_lines(dataset)))


def _require_free_place(out: Path, source: str) -> None:
    folder = Path(source)
    if folder.is_absolute() and folder.is_dir() and out.resolve().is_relative_to(folder):
        elsewhere = printable(folder.with_name(f"{folder.name}.yaml"))
        raise StorageError(
            f"{printable(out)} is inside the image folder; use --out to write it elsewhere, for example to {elsewhere}"
        )
    if ":./" in source and out.resolve().parent != Path.cwd():
        raise StorageError(f"{source} is relative to the current folder, so the recipe must be there too; omit --out")
    if out.exists():
        raise StorageError(f"{printable(out)} already exists; delete it, or choose another file with --out")
    require_writable(out)


def _inspect(
    source: str, train: str | None, progress: Progress, metadata: Mapping[str, str] = MappingProxyType({})
) -> InspectedDataset:
    """Inspects a dataset, excluding the classes and files that a run could not use.

    Uses cross-validation folds, if possible, when a validation fraction would hold out too few images.

    Args:
        source: Dataset source.
        train: Folder that contains the class folders; None to detect it automatically.
        progress: Called while data is downloaded, unpacked and read.
        metadata: Metadata files to exclude, each mapped to the reason.
    """
    exclude = {**metadata}
    for _ in range(_MAX_ROUNDS):
        scanned, exclude = _open(source, train, exclude, progress)
        dataset = _inspected(scanned, exclude)
        found = find_exclusions(scanned, dataset.inspection)
        if not found:
            break
        exclude |= found
    if dataset.inspection.errors:
        # If no recipe can exclude them, skipped files are errors again, because a class may have no other files.
        inspection = replace(dataset.inspection, quarantine={})
        missing = len(inspection.by_kind("missing"))
        if missing and scanned.metadata_files:
            reason = f"not used, because {counted(missing, 'image')} in it cannot be found"
            with suppress(DataError):  # there are no class folders that could be used instead
                return _inspect(source, train, progress, dict.fromkeys(scanned.metadata_files, reason))
        raise DataError(_refusal(inspection, exclude))
    if not dataset.needs_folds:
        return dataset
    folded = _inspected(scanned.with_splits(validation=FoldsConfig(folds=FOLDS)), exclude)
    return dataset if folded.inspection.by_kind("cannot be split") else folded


def _open(
    source: str, train: str | None, exclude: Mapping[str, str], progress: Progress
) -> tuple[ScannedDataset, dict[str, str]]:
    """Opens a dataset without the files in `exclude`; returns it with the files that were excluded.

    These also contain the metadata file if it is unusable but there are class folders.
    """
    # Unreadable files are skipped here so that other problems are reported; the recipe excludes them by name.
    splits = SplitsConfig(train=train)
    config = DatasetConfig(source=source, splits=splits, on_bad_image="skip", exclude=tuple(exclude))
    try:
        return open_dataset(config, Path(), progress), {**exclude}
    except MetadataError as error:
        excluded = {**exclude, **dict.fromkeys(error.names, f"not used, because it {error.reason}")}
        try:
            return _open(source, train, excluded, progress)
        except DataError:  # there are no class folders that could be used instead
            raise DataError(error.with_remedy("correct the file, or move it out of the folder")) from error


def _refusal(inspection: Inspection, exclude: Mapping[str, str]) -> str:
    """Returns a one-sentence message that states, for each kind of error, the count, an example and the remedy."""
    reasons = [f"{name} is {reason}" for name, reason in exclude.items() if Path(name).name in METADATA_FILES]
    for kind, found in groupby(inspection.errors, key=lambda error: error.kind):
        first, *others = found
        count = f" ({len(others) + 1}), for example " if others else ": "
        remedy = FINDING_KINDS[kind].fix
        reasons.append(f"{kind}{count}{inspection.line(first)}{f'; {remedy}' if remedy else ''}")
    root = printable(inspection.root)
    return f"no recipe was written for {root}, because `platform run` would fail: {'; '.join(reasons)}"


def _inspected(dataset: ScannedDataset, exclude: Mapping[str, str]) -> InspectedDataset:
    inspection, _ = preflight(dataset)
    return InspectedDataset(inspection, dataset.resolved_splits, exclude)


def _relative_source(source: str, out: Path) -> str:
    """Returns the source relative to the recipe's folder if it is inside that folder, otherwise unchanged."""
    path, home = Path(source), out.resolve().parent
    below = path.is_absolute() and path != home and path.is_relative_to(home)
    return path.relative_to(home).as_posix() if below else source


def _recipe_name(source: str) -> str:
    """Returns a recipe name derived from the source, such as `ants-bees` for `~/Photos/Ants & bees.zip`."""
    parts = re.split(r"[/:]", source.partition("?")[0])
    last = Path(source).name if Path(source).is_absolute() else parts[-1]
    plain = re.sub(_SUFFIXES, "", last)
    return re.sub(r"[^A-Za-z0-9._]+", "-", plain).strip("-._").lower()[:100] or "photographs"
