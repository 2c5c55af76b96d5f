"""The images that a manifest lists, read like those of folders: one catalog for each split."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from transfer_platform.data.catalog import Catalog, ImageRecord, sort_by_content
from transfer_platform.data.manifest import Manifest, ManifestRow
from transfer_platform.data.scan import ScanResult, scan_files
from transfer_platform.file_problems import FileProblem, printable, unreadable
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.checksums import FileStamp
from transfer_platform.sources.download import redact_url
from transfer_platform.sources.object_store import STORES, cache_folder_for, fetch_images, scheme
from transfer_platform.sources.walk import FoundFile
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transfer_platform.data.image_stats import ImageStats

_COMPARED_NAMES = 5000
_SUGGESTED = 20
"""Files that are not there for which a near name is looked for."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """A row and where its image is.

    Attributes:
        row: Of the manifest.
        path: A file of this machine; for one that has to be fetched first, its place in the cache.
        url: What to fetch; empty for a file of this machine.
        name: What `dataset.exclude` may call it, and people see: the written path, or the URL.
    """

    row: ManifestRow
    path: Path
    url: str
    name: str


@dataclass(frozen=True)
class ManifestImages:
    """A manifest whose images are about to be read.

    Attributes:
        manifest: What was read.
        entries: Its rows, located.
    """

    manifest: Manifest
    entries: tuple[ManifestEntry, ...]

    @property
    def root(self) -> Path:
        """The manifest's folder, which names are relative to."""
        return self.manifest.file.parent

    @property
    def names(self) -> dict[str, Path]:
        """Every entry's path, by its name and by what stands in the manifest."""
        written = {entry.row.path: entry.path for entry in self.entries}
        return written | {entry.name: entry.path for entry in self.entries}

    def catalogs(
        self, excluded: Collection[Path], looks: ImageStats, progress: Progress = silent
    ) -> tuple[dict[str, Catalog], dict[Path, Path]]:
        """Fetches and reads every image that is not excluded.

        Args:
            excluded: Paths of entries.
            looks: Is given what is seen of the images.
            progress: Is told how many were fetched and read.

        Returns:
            A catalog for each split that the manifest names, all in `train` where it names none; and where
            the entries with a URL lie now.

        Raises:
            SourceError: A store cannot be reached.
        """
        wanted = [entry for entry in self.entries if entry.path not in excluded]
        present, problems = _fetched(wanted, self.manifest, progress)
        files, missing = _files(present)
        readings = scan_files(self.manifest.file, files, looks, progress)
        problems |= missing | readings.problems
        told = {
            each.path: replace(
                problem, message=f"{problem.message} ({self.manifest.row_label(each.row.number)})"
            )
            for each in [*wanted, *present]
            if (problem := problems.get(each.path))
        }
        places = {each.row.number: each for each in [*self.entries, *present]}
        catalogs = {
            role: self._catalog(
                [each for each in places.values() if each.row.split in (role, "")], readings, told, excluded
            )
            for role in self.manifest.roles or ("train",)
        }
        return catalogs, {cache_folder_for(each.url): each.path for each in present if each.url}

    def _catalog(
        self,
        entries: Sequence[ManifestEntry],
        readings: ScanResult,
        problems: Mapping[Path, FileProblem],
        excluded: Collection[Path],
    ) -> Catalog:
        digests = readings.digests
        return Catalog(
            folder=self.manifest.file,
            root=self.root,
            images=sort_by_content(
                ImageRecord(file, each.row.label, digests[file], each.row.group, each.row.weight)
                for each in entries
                if (file := str(each.path)) in digests
            ),
            classes=tuple(sorted({each.row.label for each in entries})),
            excluded=tuple(sorted(each.path for each in entries if each.path in excluded)),
            ignored=(),
            problems={each.path: problems[each.path] for each in entries if each.path in problems},
            names={each.path: each.name for each in entries if each.url},
            from_manifest=True,
        )


def locate_images(manifest: Manifest, url: str = "") -> ManifestImages:
    """Finds out where the images of a manifest are.

    Args:
        manifest: Its paths are relative to its folder. One that lies on this machine may name any file; one
            that was fetched names files below its own address, or URLs.
        url: Where it was fetched from; empty where it lies on this machine.

    Raises:
        DataError: Rows are wrong in any way: all of them are named, and files that are not there as well.
    """
    entries: list[ManifestEntry] = []
    faults = list(manifest.errors)
    seen: dict[Path, int] = {}
    for row in manifest.rows:
        if not row.path.strip():
            continue
        if rule := _broken_rule(row.path, fetched=bool(url)):
            faults.append((row.number, f"{printable(row.path)} {rule}"))
            continue
        entry = _entry(row, manifest.file.parent, url)
        if (first := seen.setdefault(entry.path, row.number)) != row.number:
            faults.append((row.number, f"{printable(row.path)} stands in {first} already"))
        entries.append(entry)
    if faults:
        _, missing = _files([entry for entry in entries if not entry.url])
        numbers = {entry.path: entry.row for entry in entries}
        absent = ((numbers[path], problem) for path, problem in missing.items())
        faults += [(row.number, f"{printable(row.path)}: {problem.message}") for row, problem in absent]
    manifest.raise_errors(faults)
    return ManifestImages(manifest, tuple(entries))


def _broken_rule(path: str, *, fetched: bool) -> str:
    """The rule that a path breaks, or nothing; a stranger's manifest must not name files of this machine."""
    if "\0" in path:
        return "has a character that no file name has (NUL)"
    if store := scheme(path):
        known = ", ".join(f"{name}://" for name in STORES)
        return "" if store in STORES else f"cannot be fetched; there is {known}{did_you_mean(store, STORES)}"
    if not fetched:
        return ""
    relative = PurePosixPath(path)
    if relative.is_absolute():
        return "is absolute, which is refused in a manifest that was fetched"
    return (
        "leaves the manifest's folder (..), which is refused in a fetched one"
        if ".." in relative.parts
        else ""
    )


def _entry(row: ManifestRow, folder: Path, base: str) -> ManifestEntry:
    if not (scheme(row.path) or base):
        # `link/..` is not where the link lies, but what is above its target.
        climbs = ".." in PurePosixPath(row.path).parts
        path = (folder / row.path).resolve() if climbs else Path(os.path.normpath(folder / row.path))
        return ManifestEntry(row, path, "", posixpath.normpath(row.path))
    url = row.path if scheme(row.path) else urljoin(base, quote(posixpath.normpath(row.path)))
    # What a query holds may be a secret; the line tells such URLs apart.
    which = f" (line {row.number})" if urlsplit(url).query else ""
    return ManifestEntry(row, cache_folder_for(url), url, redact_url(url) + which)


def _fetched(
    entries: Sequence[ManifestEntry], manifest: Manifest, progress: Progress
) -> tuple[list[ManifestEntry], dict[Path, FileProblem]]:
    """All that is on this machine now, and why the rest is not."""
    urls = [entry.url for entry in entries if entry.url]
    answers = fetch_images(urls, f"fetching {manifest.file.name}", progress) if urls else {}
    present: list[ManifestEntry] = []
    problems: dict[Path, FileProblem] = {}
    for entry in entries:
        answer = answers.get(entry.url, entry.path)
        if isinstance(answer, FileProblem):
            problems[entry.path] = answer
        else:
            present.append(replace(entry, path=answer))
    return present, problems


def _files(entries: Sequence[ManifestEntry]) -> tuple[list[FoundFile], dict[Path, FileProblem]]:
    """What can be read, and why the rest cannot."""
    files: list[FoundFile] = []
    problems: dict[Path, FileProblem] = {}
    for entry in entries:
        try:
            status = entry.path.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            near = _nearest(entry) if len(problems) < _SUGGESTED else ""
            problems[entry.path] = FileProblem("missing", f"there is no such file{near}")
        except OSError as error:
            problems[entry.path] = unreadable(error)
        else:
            if S_ISREG(status.st_mode):
                files.append(FoundFile(str(entry.path), str(entry.path), FileStamp.of(status)))
            else:
                problems[entry.path] = FileProblem(
                    "special file", "is a folder, a pipe or a device, not a file"
                )
    return files, problems


def _nearest(entry: ManifestEntry) -> str:
    if "\\" in entry.row.path:
        return "; folders are separated by /"
    siblings: Iterator[Path] = iter(())
    if entry.path.parent.is_dir():
        siblings = entry.path.parent.iterdir()
    names = (path.name for path, _ in zip(siblings, range(_COMPARED_NAMES), strict=False))
    return did_you_mean(entry.path.name, names)
