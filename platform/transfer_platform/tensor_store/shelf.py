"""The files of one address: which rows are there and intact, and how new ones are added."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path

from transfer_platform.tensor_store.errors import CorruptFileError, StoreError
from transfer_platform.tensor_store.layout import RowSpec
from transfer_platform.tensor_store.rows import Place
from transfer_platform.tensor_store.segment import PART, SUFFIX, Segment, open_segment


class SegmentFolder:
    """The folder of one address.

    Args:
        folder: Need not exist.
        layout: Of every row in it; files of another one count as damaged.
    """

    def __init__(self, folder: Path, layout: RowSpec) -> None:
        self.folder, self._layout = folder, layout

    def find(self, keys: Iterable[str]) -> dict[str, Place]:
        """The places of those keys whose rows are stored and intact; their files are marked as used now."""
        candidates = self._candidates(set(keys))
        with ThreadPoolExecutor(_threads()) as threads:
            found = threads.map(_checked, candidates.values())
        places = dict(chain.from_iterable(found))
        for segment in {id(segment): segment for segment, _ in places.values()}.values():
            with suppress(OSError):  # removed meanwhile, or a folder that cannot be written to
                os.utime(segment.path)
        return places

    def remove_stale(self) -> None:
        """Removes what dead writers left, and damaged files. Only for whoever holds the address."""
        for path in self.folder.glob(f"*{PART}"):
            path.unlink(missing_ok=True)
        for path in self._paths():
            try:
                _opened(path, self._layout)
            except CorruptFileError:
                path.unlink(missing_ok=True)

    def next_path(self) -> Path:
        """Where the next segment belongs: behind all others, because later rows replace earlier ones."""
        last = max((int(path.stem) for path in self._paths()), default=0)
        return self.folder / f"{last + 1:06d}{SUFFIX}"

    def _candidates(self, keys: set[str]) -> dict[Path, tuple[Segment, list[tuple[str, int]]]]:
        """For each file the keys that it should be asked for: those that no later file has."""
        candidates = {}
        for path in reversed(self._paths()):
            segment = _usable(path, self._layout) if keys else None
            if segment is None:
                continue
            wanted = [(key, place) for place, key in enumerate(segment.keys) if key in keys]
            keys = keys.difference(segment.keys)
            candidates[path] = segment, wanted
        return candidates

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"*{SUFFIX}") if path.stem.isdigit())


def _usable(path: Path, layout: RowSpec) -> Segment | None:
    with suppress(CorruptFileError):
        return _opened(path, layout)
    return None


def _opened(path: Path, layout: RowSpec) -> Segment | None:
    """`None` where another process has removed the file, or this one may not read it."""
    try:
        return open_segment(path, layout)
    except OSError as error:
        # Otherwise everything behind it would be computed again, without a word.
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise StoreError(
                f"the cache {path.parents[1]} cannot be read, because this process may not open more files: "
                "raise the limit with `ulimit -n`"
            ) from error
        return None


def _checked(candidate: tuple[Segment, Sequence[tuple[str, int]]]) -> Iterator[tuple[str, Place]]:
    segment, wanted = candidate
    intact = set(segment.intact(place for _, place in wanted))
    return iter([(key, (segment, place)) for key, place in wanted if place in intact])


def _threads() -> int:
    """A few: each has a whole segment in memory, and four are as fast as most disks."""
    return min(4, os.cpu_count() or 1)
