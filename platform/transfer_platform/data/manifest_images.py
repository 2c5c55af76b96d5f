"""Locates, downloads and scans the images listed in a manifest."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from transfer_platform.data.catalog import ARCHIVE_REMEDY, Catalog, ImageRecord, is_archive, sort_by_content
from transfer_platform.data.manifest import Manifest, ManifestRow
from transfer_platform.data.scan import scan_files
from transfer_platform.file_problems import FileProblem, printable, unreadable
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.checksums import FileStamp
from transfer_platform.sources.download import redact_url
from transfer_platform.sources.object_store import STORES, cache_folder_for, fetch_images, scheme
from transfer_platform.sources.walk import FoundFile
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from transfer_platform.data.image_stats import ImageStats

_MAX_COMPARED_NAMES = 5000
_NOT_ALLOWED = ", which is not allowed in a downloaded manifest or a metadata file"
_MAX_SUGGESTIONS = 20
"""Maximum number of missing files for which similar names are suggested."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A manifest row with the location of its image.

    Attributes:
        path: Path of the local file; for a URL that has not been downloaded yet, the cache folder for that URL.
        url: URL to download; empty for a local file.
        name: Name used in messages and matched against `dataset.exclude`: the path as written, or the URL.
    """

    row: ManifestRow
    path: Path
    url: str
    name: str


@dataclass(frozen=True)
class ManifestImages:
    """A manifest and the locations of its images, with one entry per row."""

    manifest: Manifest
    entries: tuple[ManifestEntry, ...]

    @property
    def root(self) -> Path:
        """Folder that contains the manifest; local image names are relative to this folder."""
        return self.manifest.folder

    @property
    def names(self) -> dict[str, Path]:
        """Paths of the images, keyed by entry name and by the path written in the manifest."""
        as_written = {entry.row.path: entry.path for entry in self.entries}
        return as_written | {entry.name: entry.path for entry in self.entries}

    def scan(
        self, excluded: Collection[Path], stats: ImageStats, progress: Progress = silent
    ) -> tuple[dict[str, Catalog], dict[Path, Path]]:
        """Downloads and scans the images, except for `excluded` paths; adds their statistics to `stats`.

        Returns:
            A catalog for each split (only `train` if the manifest has no splits), and a mapping from the
            cache folder for each URL to the path of the downloaded file.

        Raises:
            SourceError: An object store cannot be reached, or the cache is not writable.
        """
        included = [entry for entry in self.entries if entry.path not in excluded]
        present, problems = _fetch(included, self.manifest, progress)
        files, missing = _find_files(present)
        scanned = scan_files(self.manifest.file, files, stats, progress)
        problems |= missing | scanned.problems
        problems = {
            entry.path: replace(problem, message=f"{problem.message} ({self.manifest.row_label(entry.row.number)})")
            for entry in [*included, *present]
            if (problem := problems.get(entry.path))
        }
        entries = {entry.row.number: entry for entry in [*self.entries, *present]}.values()
        catalogs = {
            split: self._catalog(
                [entry for entry in entries if entry.row.split in (split, "")], scanned.digests, problems, excluded
            )
            for split in self.manifest.splits or ("train",)
        }
        return catalogs, {cache_folder_for(entry.url): entry.path for entry in present if entry.url}

    def _catalog(
        self,
        entries: Sequence[ManifestEntry],
        digests: Mapping[str, str],
        problems: Mapping[Path, FileProblem],
        excluded: Collection[Path],
    ) -> Catalog:
        return Catalog(
            folder=self.manifest.file,
            root=self.root,
            images=sort_by_content(
                ImageRecord(file, entry.row.label, digests[file], entry.row.group, entry.row.weight)
                for entry in entries
                if (file := str(entry.path)) in digests
            ),
            classes=tuple(sorted({entry.row.label for entry in entries if entry.path not in excluded})),
            excluded=tuple(sorted(entry.path for entry in entries if entry.path in excluded)),
            ignored=(),
            problems={entry.path: problems[entry.path] for entry in entries if entry.path in problems},
            names={entry.path: entry.name for entry in entries if entry.url},
            from_manifest=True,
        )


def locate_images(manifest: Manifest, url: str = "") -> ManifestImages:
    """Locates the images of a manifest; relative paths are resolved against the manifest's folder.

    A manifest that the user named may list any file or URL. If a manifest was downloaded from `url`, or found in the
    folder of a dataset, its file paths must be inside the manifest's folder.

    Raises:
        DataError: Some rows are invalid; the message lists the errors, including any missing files.
    """
    entries, errors = list[ManifestEntry](), list(manifest.errors)
    first_rows: dict[Path, int] = {}
    root = manifest.folder.resolve()
    for row in manifest.rows:
        if not row.path.strip():
            continue
        if error := _path_error(row.path, confined=bool(url) or not manifest.is_listed_by_user):
            errors.append((row.number, f"{printable(row.path)} {error}"))
            continue
        entry = _locate(row, manifest.folder, url)
        if not (manifest.is_listed_by_user or entry.url) and not entry.path.resolve().is_relative_to(root):
            errors.append((row.number, f"{printable(row.path)} is a link to a target outside the dataset"))
        if (first := first_rows.setdefault(entry.path, row.number)) != row.number:
            errors.append((row.number, f"{printable(row.path)} is already listed in {manifest.row_label(first)}"))
        entries.append(entry)
    if errors:
        _, missing = _find_files([entry for entry in entries if not entry.url])
        rows = {entry.path: entry.row for entry in entries}
        errors += [
            (rows[path].number, f"{printable(rows[path].path)}: {problem.message}") for path, problem in missing.items()
        ]
    manifest.raise_errors(errors)
    return ManifestImages(manifest, tuple(entries))


def _path_error(path: str, *, confined: bool) -> str:
    """Returns an error message, or "" if the path is valid; a `confined` path must be inside the manifest's folder."""
    if "\0" in path:
        return "contains a NUL character, which is not allowed in file names"
    if store := scheme(path):
        known = ", ".join(f"{name}://" for name in STORES)
        return "" if store in STORES else f"cannot be fetched; supported schemes: {known}{did_you_mean(store, STORES)}"
    if not confined:
        return ""
    relative = PurePosixPath(path)
    if relative.is_absolute():
        return f"is absolute{_NOT_ALLOWED}"
    if ".." in relative.parts:
        return f"points outside the manifest's folder (..){_NOT_ALLOWED}"
    return ""


def _locate(row: ManifestRow, folder: Path, base_url: str) -> ManifestEntry:
    if not (scheme(row.path) or base_url):
        # `link/..` is the parent of the link's target, not of the link.
        has_parent = ".." in PurePosixPath(row.path).parts
        path = (folder / row.path).resolve() if has_parent else Path(os.path.normpath(folder / row.path))
        return ManifestEntry(row, path, "", posixpath.normpath(row.path))
    url = row.path if scheme(row.path) else urljoin(base_url, quote(posixpath.normpath(row.path)))
    # The query is redacted, because it may contain a secret; the line number makes the name unique.
    suffix = f" (line {row.number})" if urlsplit(url).query else ""
    return ManifestEntry(row, cache_folder_for(url), url, redact_url(url) + suffix)


def _fetch(
    entries: Sequence[ManifestEntry], manifest: Manifest, progress: Progress
) -> tuple[list[ManifestEntry], dict[Path, FileProblem]]:
    """Downloads images; returns the entries of all local files, and a mapping from paths to failed downloads."""
    urls = [entry.url for entry in entries if entry.url]
    results = fetch_images(urls, f"downloading images in {manifest.file.name}", progress) if urls else {}
    present, problems = list[ManifestEntry](), dict[Path, FileProblem]()
    for entry in entries:
        result = results.get(entry.url, entry.path)
        if isinstance(result, FileProblem):
            problems[entry.path] = result
        else:
            present.append(replace(entry, path=result))
    return present, problems


def _find_files(entries: Sequence[ManifestEntry]) -> tuple[list[FoundFile], dict[Path, FileProblem]]:
    files, problems = list[FoundFile](), dict[Path, FileProblem]()
    for entry in entries:
        try:
            status = entry.path.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            hint = _suggest_file(entry) if len(problems) < _MAX_SUGGESTIONS else ""
            problems[entry.path] = FileProblem("missing", f"the file does not exist{hint}")
        except OSError as error:
            problems[entry.path] = unreadable(error)
        else:
            if S_ISREG(status.st_mode):
                files.append(FoundFile(str(entry.path), str(entry.path), FileStamp.of(status)))
            else:
                problems[entry.path] = FileProblem("special file", "it is a folder, a pipe or a device, not a file")
    return files, problems


def _suggest_file(entry: ManifestEntry) -> str:
    if "\\" in entry.row.path:
        return "; use / to separate folders"
    siblings = [name for name in _file_names(entry.path.parent) if not is_archive(name)]
    return did_you_mean(entry.path.name, siblings) or _name_archive(entry)


def _name_archive(entry: ManifestEntry) -> str:
    """Returns a hint if a folder in the image's path contains an archive, because the image may be in the archive."""
    folders = [*entry.path.parents][: len(PurePosixPath(entry.row.path).parts)]
    archives = [name for folder in folders for name in sorted(_file_names(folder)) if is_archive(name)]
    return f"; {printable(archives[0])} {ARCHIVE_REMEDY}" if archives else ""


def _file_names(folder: Path) -> list[str]:
    try:
        return [path.name for path in islice(folder.iterdir(), _MAX_COMPARED_NAMES)]
    except OSError:  # the folder does not exist, or cannot be read
        return []
