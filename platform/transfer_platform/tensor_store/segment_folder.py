"""Finds and verifies the rows stored in the segments at one address."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path

from transfer_platform.tensor_store.errors import CorruptFileError, StoreError
from transfer_platform.tensor_store.eviction import PART, SUFFIX
from transfer_platform.tensor_store.rows import RowLocation
from transfer_platform.tensor_store.segment import RowSpec, Segment, open_segment

MAX_THREADS = 4
"""Maximum number of threads that verify segments; each holds one segment in memory. Four saturate most disks."""


class SegmentFolder:
    """The segments at one address. The folder need not exist. Segments not matching `spec` are considered corrupt."""

    def __init__(self, folder: Path, spec: RowSpec) -> None:
        self.folder, self._spec = folder, spec

    def locate(self, keys: Iterable[str]) -> dict[str, RowLocation]:
        """Returns the location of each requested row that is stored and intact, and marks its file as recently used."""
        candidates = self._candidates(set(keys))
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
            locations = dict(chain.from_iterable(pool.map(_verify, candidates)))
        for path in {segment.path for segment, _ in locations.values()}:
            with suppress(OSError):  # removed in the meantime, or a read-only folder
                os.utime(path)
        return locations

    def remove_corrupt(self) -> None:
        """Removes corrupt and unfinished segments. The caller must hold the address lock."""
        for path in self.folder.glob(f"*{PART}"):
            path.unlink(missing_ok=True)
        for path in self._paths():
            try:
                _open(path, self._spec)
            except CorruptFileError:
                path.unlink(missing_ok=True)

    def next_path(self) -> Path:
        """Returns the path of the next segment; it gets the highest number so that its rows take precedence."""
        last = max((int(path.stem) for path in self._paths()), default=0)
        return self.folder / f"{last + 1:06d}{SUFFIX}"

    def _candidates(self, keys: set[str]) -> list[tuple[Segment, list[tuple[str, int]]]]:
        """Returns the segments to read, each with its (key, row index) pairs. Later segments take precedence."""
        candidates = []
        for path in reversed(self._paths()):
            if not keys:
                break
            try:
                segment = _open(path, self._spec)
            except CorruptFileError:
                continue
            if segment is not None:
                rows = [(key, index) for index, key in enumerate(segment.keys) if key in keys]
                keys = keys.difference(segment.keys)
                candidates.append((segment, rows))
        return candidates

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def _open(path: Path, spec: RowSpec) -> Segment | None:
    """Opens a segment; returns None if the file is unreadable or has been removed by another process."""
    try:
        return open_segment(path, spec)
    except OSError as error:
        # Treating the rows as missing would silently recompute all of them.
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise StoreError(
                f"cannot read the cache {path.parents[1]}: too many open files; raise the limit with `ulimit -n`"
            ) from error
        return None


def _verify(candidate: tuple[Segment, Sequence[tuple[str, int]]]) -> Iterator[tuple[str, RowLocation]]:
    segment, rows = candidate
    intact = set(segment.intact(index for _, index in rows))
    return iter([(key, (segment, index)) for key, index in rows if index in intact])
