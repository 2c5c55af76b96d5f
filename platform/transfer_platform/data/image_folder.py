"""Reads the metadata files of folders in Hugging Face's ImageFolder format.

There is one metadata file in the folder itself, or one in each of its split folders:

    photos/metadata.csv         photos/train/metadata.jsonl
    photos/0001.png             photos/train/0001.png
                                photos/test/metadata.jsonl

See https://huggingface.co/docs/datasets/image_dataset.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath

from transfer_platform.data.manifest import FILE_NAME, Manifest, ManifestPart, read_manifest
from transfer_platform.data.patterns import matches
from transfer_platform.data.split_names import split_for_name
from transfer_platform.data.table_files import METADATA_FILES, read_columns
from transfer_platform.errors import DataError, MetadataError
from transfer_platform.file_problems import printable
from transfer_platform.plurals import counted
from transfer_platform.sources.walk import is_ignored, walk


def read_image_folder(root: Path, group_by: str | None = None, exclude: Collection[str] = ()) -> Manifest | None:
    """Returns the manifest of a folder, or None if the folder has no metadata files with labels.

    If the folder has only one subfolder, the metadata file may be in that subfolder.

    Args:
        root: Folder of the dataset.
        group_by: Name of an additional required column that contains the group names.
        exclude: Patterns relative to `root`; metadata files that match any of them are ignored.

    Raises:
        MetadataError: A metadata file cannot be read or has errors.
        DataError: A folder has several metadata files, or only some split folders have one.
    """
    below = [folder for folder in sorted(root.iterdir()) if _is_folder(folder, root)]
    files = {folder: _metadata_file(folder, root, exclude) for folder in (root, *below)}
    if file := files[root] or (files[below[0]] if len(below) == 1 and not split_for_name(below[0].name) else None):
        return _with_split_folders(_read(file, root, group_by))
    folders = [folder for folder in below if split_for_name(folder.name)]
    found = {folder: file for folder in folders if (file := files[folder])}
    if not found:
        return None
    if missing := [printable(folder.name) for folder in folders if folder not in found]:
        names = ", ".join(printable(file.relative_to(root)) for file in found.values())
        raise DataError(
            f"{printable(root)} has {names}, but no metadata file with the columns {FILE_NAME} and label exists in "
            f"{', '.join(missing)}; add one, or list the existing files in dataset.exclude to use the class folders"
        )
    return _joined(root, {folder: _read(file, root, group_by) for folder, file in found.items()})


def unlisted_note(manifest: Manifest, listed: Collection[Path]) -> Iterator[str]:
    """Yields a note if the manifest's folder contains files other than metadata files and the `listed` images."""
    folder = manifest.folder
    own = {folder / part.name for part in manifest.parts} or {manifest.file}
    paths = {Path(file.path) for file in walk(folder, folder).files}
    if others := sorted(paths - own - {*listed}):
        example = printable(others[0].relative_to(folder))
        subject = counted(len(others), "file is", "files are")
        yield f"{subject} not listed in the metadata and not used (for example, {example})"


def _metadata_file(folder: Path, root: Path, exclude: Collection[str]) -> Path | None:
    """Returns the metadata file of a folder; files without labels, such as lists of captions, are ignored."""
    files = [folder / name for name in METADATA_FILES]
    used = [file for file in files if _is_file(file) and not _is_excluded(file.relative_to(root), exclude)]
    labeled = [file for file in used if _has_labels(file, root)]
    if len(labeled) > 1:
        names = " and ".join(file.name for file in labeled)
        raise DataError(
            f"{printable(folder)} contains {names}; keep only one of them, or list the others in dataset.exclude"
        )
    return labeled[0] if labeled else None


def _is_folder(folder: Path, root: Path) -> bool:
    """Returns whether a path is a visible folder and not a link to a target outside the dataset."""
    return folder.is_dir() and not is_ignored(folder.name) and folder.resolve().is_relative_to(root)


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # the scan of the class folders reports folders that cannot be read
        return False


def _is_excluded(name: PurePath, exclude: Collection[str]) -> bool:
    return any(matches(name.as_posix(), pattern) for pattern in exclude)


def _has_labels(file: Path, root: Path) -> bool:
    """Returns whether the header has the columns `file_name` and `label`, which identify a metadata file."""
    try:
        columns = {name.casefold() for name in read_columns(file)}
    except DataError as error:
        raise MetadataError(str(error), file, [_name(file, root)]) from error
    return {FILE_NAME, "label"} <= columns


def _read(file: Path, root: Path, group_by: str | None) -> Manifest:
    name = _name(file, root)
    try:
        return replace(read_manifest(file, group_by), metadata_files=(name,))
    except DataError as error:
        raise MetadataError(str(error), file, [name]) from error


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _with_split_folders(manifest: Manifest) -> Manifest:
    """Sets the splits of a manifest without a split column if all of its images are in split folders."""
    splits = [split_for_name(PurePosixPath(row.path).parts[0]) if row.path.strip() else "" for row in manifest.rows]
    if manifest.splits or not all(splits) or len({*splits}) < 2:
        return manifest
    note = f"splits taken from the folders of the images: {', '.join(sorted({*splits}))}"
    rows = [replace(row, split=split) for row, split in zip(manifest.rows, splits, strict=True)]
    return replace(manifest, rows=tuple(rows), notes=(*manifest.notes, note))


def _joined(root: Path, manifests: Mapping[Path, Manifest]) -> Manifest:
    """Joins the manifests of split folders and sets the split of each row."""
    rows, errors, notes, parts = [], [], [], list[ManifestPart]()
    start = 0
    for folder, manifest in manifests.items():
        split, name = split_for_name(folder.name), folder.name
        parts.append(ManifestPart(start, f"{name}/{manifest.file.name}"))
        rows += [
            replace(row, number=start + row.number, path=f"{name}/{row.path}" if row.path.strip() else "", split=split)
            for row in manifest.rows
        ]
        errors += [(start + number, error) for number, error in manifest.errors]
        notes += [f"{name}/{manifest.file.name}: {note}" for note in manifest.notes]
        notes += [f"the images listed in {name}/{manifest.file.name} are in {split}"]
        start = max([start, *(row.number for row in rows), *(number for number, _ in errors)]) + 1
    files = tuple(part.name for part in parts)
    return Manifest(root, tuple(rows), tuple(errors), tuple(notes), tuple(parts), files)
