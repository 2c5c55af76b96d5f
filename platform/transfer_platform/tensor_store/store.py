"""Rows on disk, computed once: by whom first asks for them, on behalf of all processes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import Timeout
from torch import Tensor

from transfer_platform.tensor_store import eviction
from transfer_platform.tensor_store.errors import StoreError, write_errors
from transfer_platform.tensor_store.layout import Bytes, RowSpec, to_bytes
from transfer_platform.tensor_store.rows import Place, Rows, open_rows
from transfer_platform.tensor_store.segment import SegmentWriter
from transfer_platform.tensor_store.shelf import SegmentFolder

Compute = Callable[[Sequence[int]], Iterator[Tensor]]
"""Positions of missing rows, ascending -> batches (b, *shape) that together are these rows, in that order."""

SEGMENT_BYTES = 64 << 20
"""Size of a file. Each mapped one costs a file descriptor, and a killed writer loses one."""
SEGMENT_SECONDS = 60.0
"""A file is finished after that long however small it is, so that a killed writer never loses more."""
KEY_BYTES = 128
"""What a row takes besides itself, about."""


def _nobody() -> None:
    """Tells nobody that another process is waited for."""


class Store:
    """Rows under (address, key), in files that several processes share.

    Args:
        folder: Of this kind of rows, and nothing else; need not exist.
        limit: Of all files together, in bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit

    def fits(self, layout: RowSpec, count: int) -> bool:
        """Whether so many rows fit the limit and the disk, where all others had to make room for them."""
        size = _disk_bytes(layout, count)
        return size <= min(
            self._limit, eviction.free_bytes(self._folder) + eviction.usage(self._folder).bytes
        )

    def get_or_compute(
        self,
        address: str,
        layout: RowSpec,
        keys: Sequence[str],
        compute: Compute,
        waiting: Callable[[], None] = _nobody,
    ) -> Rows:
        """The rows of some keys; those that are not stored are computed, each distinct one once, and stored.

        Args:
            address: Digest of all that the rows depend on besides their keys; names a folder.
            layout: Of each row.
            keys: N of them, such as a digest of each image; they may repeat.
            compute: Takes the positions in `keys` of the rows that are missing. Never called for none.
            waiting: Called once where another process is just computing rows of this address.

        Raises:
            StoreFullError: There is no room; what stands in finished files stays stored.
            StoreUnwritableError: Rows are missing, and the folder cannot be written to.
            ValueError: `compute` gave other rows than it was asked for. Its own errors pass through.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", address):
            raise ValueError(f"an address is a digest, but this is {address!r}")
        shelf = SegmentFolder(self._folder / address, layout)
        places = shelf.find(keys) if keys else {}
        if not places.keys() >= set(keys):
            with self._alone(address, waiting):
                places |= shelf.find(set(keys) - places.keys())
                self._complete(shelf, layout, keys, places, compute)
        return open_rows(layout, keys, {key: places[key] for key in keys})

    def _complete(
        self,
        shelf: SegmentFolder,
        layout: RowSpec,
        keys: Sequence[str],
        places: dict[str, Place],
        compute: Compute,
    ) -> None:
        missing = [position for key, position in _first(keys).items() if key not in places]
        if not missing:
            return
        with write_errors(self._folder):
            shelf.remove_stale()
        eviction.remove_unfinished(self._folder, shelf.folder.name)
        filling = _Filling(shelf, layout, self._limit, places)
        filling.make_room(len(missing))
        filling.fill([keys[position] for position in missing], compute(missing))

    @contextmanager
    def _alone(self, address: str, waiting: Callable[[], None]) -> Iterator[None]:
        with write_errors(self._folder):
            (self._folder / ".locks").mkdir(parents=True, exist_ok=True)
            lock = eviction.lock(self._folder, address)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                waiting()
                lock.acquire()
        try:
            with write_errors(self._folder):
                # Not before: whoever held the lock may have removed it.
                (self._folder / address).mkdir(exist_ok=True)
            yield
        finally:
            lock.release()


class _Filling:
    """Writes rows as they come, one segment after the other.

    Args:
        shelf: Where they belong; its lock is held.
        layout: Of each row.
        limit: Of the store, in bytes.
        places: Of the rows that are stored already; those that are written are added.
    """

    def __init__(self, shelf: SegmentFolder, layout: RowSpec, limit: int, places: dict[str, Place]) -> None:
        self._shelf, self._layout, self._limit, self._places = shelf, layout, limit, places
        self._capacity = max(1, SEGMENT_BYTES // layout.row_bytes)
        self._writer: SegmentWriter | None = None
        self._opened = 0.0

    def make_room(self, rows: int) -> None:
        """Evicts what so many more rows displace."""
        store, own = self._shelf.folder.parent, self._shelf.folder.name
        keep = frozenset(segment.path for segment, _ in self._places.values())
        eviction.make_room(store, self._limit, _disk_bytes(self._layout, rows), own, keep)

    def fill(self, keys: Sequence[str], batches: Iterator[Tensor]) -> None:
        """Writes one row for every key.

        Raises:
            StoreError: They cannot be written; those of finished segments stay.
            ValueError: There are more or fewer rows, or they are not of the layout.
        """
        done = 0
        try:
            for batch in batches:
                rows = to_bytes(batch, self._layout)
                if done + len(rows) > len(keys):
                    raise ValueError(f"{len(keys)} rows were asked for, but more were computed")
                self._write(keys[done : done + len(rows)], rows, len(keys) - done)
                done += len(rows)
            if done < len(keys):
                raise ValueError(f"{len(keys)} rows were asked for, but {done} were computed")
        except StoreError:
            self._discard()
            raise
        except BaseException:
            # What was computed before somebody pressed Ctrl-C, or an image was unreadable, is right.
            with suppress(StoreError):
                self._finish()
            raise
        self._finish()

    def _write(self, keys: Sequence[str], rows: Bytes, left: int) -> None:
        while len(rows):
            if self._writer is None:
                self._open(left)
            assert self._writer is not None
            count = min(len(rows), self._capacity - len(self._writer))
            with write_errors(self._shelf.folder.parent):
                self._writer.append(keys[:count], rows[:count])
            keys, rows, left = keys[count:], rows[count:], left - count
            if len(self._writer) == self._capacity or time.monotonic() - self._opened > SEGMENT_SECONDS:
                self._finish()

    def _open(self, left: int) -> None:
        # Again for every segment: other processes write to the same store.
        self.make_room(min(left, self._capacity))
        with write_errors(self._shelf.folder.parent):
            self._writer = SegmentWriter(self._shelf.next_path(), self._layout)
        self._opened = time.monotonic()

    def _finish(self) -> None:
        if self._writer is None:
            return
        try:
            with write_errors(self._shelf.folder.parent):
                segment = self._writer.finish()
        except BaseException:
            self._discard()
            raise
        self._writer = None
        self._places |= {key: (segment, place) for place, key in enumerate(segment.keys)}

    def _discard(self) -> None:
        if self._writer is not None:
            with suppress(OSError):
                self._writer.discard()
            self._writer = None


def _first(keys: Sequence[str]) -> Mapping[str, int]:
    """Where each distinct key stands first, in order."""
    places: dict[str, int] = {}
    for position, key in enumerate(keys):
        places.setdefault(key, position)
    return places


def _disk_bytes(layout: RowSpec, count: int) -> int:
    return count * (layout.row_bytes + KEY_BYTES)
